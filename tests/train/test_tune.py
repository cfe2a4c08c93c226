"""The search for settings: it begins with the given ones, goes on after a stop, keeps the best."""

import json

import pandas as pd
import pytest

from longstate import Forecaster
from longstate.errors import InputError
from longstate.train import Trial, Tuning
from longstate.train import _tune as tune
from longstate.train import _tune_trials as space
from tests.train.helpers import QUICK, TINY, hourly


@pytest.fixture(autouse=True)
def only_one_layer(monkeypatch):
    """No kernel is compiled for the others."""
    monkeypatch.setattr(space, "LAYERS", ("s4d",))


def make():
    return Forecaster(4, window=30, size=TINY, training=QUICK)


class Stop(Exception):
    pass


def search(out, count, after=None):
    """Search until `count` trials have ended, then stop by an exception like a kill."""
    ended: list[Trial] = []

    def told(trial):
        ended.append(trial)
        if len(ended) == count:
            raise (after or Stop)

    made = make()
    with pytest.raises(after or Stop):
        made.fit(hourly(), "y", tune=Tuning(60, told), out=out)
    return ended


def test_a_search_that_was_killed_goes_on(tmp_path):
    both = search(tmp_path / "a", 3)
    first, second = search(tmp_path / "b", 1), search(tmp_path / "b", 2)
    assert [t.settings for t in both] == [t.settings for t in first + second]
    assert [t.error for t in both] == [t.error for t in first + second]
    assert both[0].settings.window == 30
    assert both[0].settings.d_model == TINY.d_model
    best = min(both, key=lambda trial: trial.error)
    kept = Forecaster.load(tmp_path / "b")
    assert kept.choice.error == best.error
    assert kept.model.spec.window == best.settings.window
    assert [t["number"] for t in json.loads((tmp_path / "b" / "tune.json").read_text())["trials"]] == [0, 1, 2]  # fmt: skip  # noqa: E501


def test_a_training_in_the_middle_goes_on(tmp_path, monkeypatch):
    def killed(progress):
        if progress.step == 5:
            raise Stop

    with pytest.raises(Stop):
        make().fit(hourly(), "y", tune=60, out=tmp_path, show=killed)
    raw = json.loads((tmp_path / "tune.json").read_text())
    assert raw["trials"][0]["error"] is None
    steps = []
    monkeypatch.setattr(tune, "MOST_TRIALS", 1)
    made = make().fit(hourly(), "y", tune=60, out=tmp_path, show=lambda p: steps.append(p.step))
    assert steps[0] == 5
    whole = make().fit(hourly(), "y")
    pd.testing.assert_frame_equal(made.predict(hourly()), whole.predict(hourly()), check_exact=True)
    assert made.facts["notes"][-1].startswith("Search for settings: of 1 settings")
    again = make().fit(hourly(), "y", tune=60, out=tmp_path)
    assert again.facts["notes"] == made.facts["notes"]


def test_interrupts_keep_the_best(tmp_path, monkeypatch):
    seen = []
    real = tune.forecaster_of

    def interrupted(base, trial):
        seen.append(trial.number)
        if len(seen) == 2:
            monkeypatch.setattr(
                Forecaster, "_fit", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
            )
        return real(base, trial)

    monkeypatch.setattr(tune, "forecaster_of", interrupted)
    made = make().fit(hourly(), "y", tune=60, out=tmp_path)
    assert seen == [0, 1]
    assert len(made.predict(hourly())) == 4


def test_wrong_searches_are_refused(tmp_path):
    for minutes in (0, -1, float("nan"), float("inf"), "a", True):
        with pytest.raises(InputError, match="minutes of a search must be above 0"):
            make().fit(hourly(), "y", tune=minutes)
    search(tmp_path / "a", 1)
    with pytest.raises(InputError, match="belongs to another search: its data"):
        make().fit(hourly(300), "y", tune=1, out=tmp_path / "a")
    with pytest.raises(InputError, match="holds a search for settings"):
        make().fit(hourly(), "y", out=tmp_path / "a")
    make().fit(hourly(), "y", out=tmp_path / "b")
    with pytest.raises(InputError, match="holds a training without a search"):
        make().fit(hourly(), "y", tune=1, out=tmp_path / "b")
    with pytest.raises(InputError, match="the data has 400 rows"):
        Forecaster(4, window=3000).fit(hourly(), "y", tune=1, out=tmp_path / "c")
    assert not (tmp_path / "c" / "tune.json").exists()
    (tmp_path / "a" / "tune.json").write_text("{")
    with pytest.raises(InputError, match=r"tune.json cannot be read"):
        make().fit(hourly(), "y", tune=1, out=tmp_path / "a")


def test_no_trial_begins_after_the_time():
    def told(trial):
        assert trial.number < 3, "the search does not end"
        ended.append(trial)

    ended: list[Trial] = []
    make().fit(hourly(), "y", tune=Tuning(1e-4, told))  # 6 ms, which the first trial takes alone
    assert len(ended) == 1
