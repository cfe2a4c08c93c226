"""What an evaluation keeps beside the scores: errors by column, the worst windows, series to draw,
and how sure a difference is."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate.train import ForecastEvaluation, Score, _evaluate
from longstate.train._examples import DRAWN, picked
from longstate.train._folds import independent
from longstate.train._forecast_frame import first_unseen
from longstate.train._windows import Windows
from tests.train.helpers import QUICK, TINY, hourly, months

HORIZON = 6
SETTINGS = {"window": 24, "size": TINY, "training": QUICK}


@pytest.fixture(scope="module")
def frame():
    return hourly()


@pytest.fixture(scope="module")
def fitted(frame):
    return Forecaster(HORIZON, **SETTINGS).fit(frame, ["y", "x"])


@pytest.fixture(scope="module")
def evaluation(fitted, frame):
    return fitted.evaluate(frame)


@pytest.fixture(scope="module")
def errors(fitted, frame):
    """(n, h, c): of what was fitted to the training part, in scaled units."""
    model, table = fitted.model.eval(), fitted._table(frame)
    windows = Windows(table, model.spec, first_unseen(table, fitted.facts, HORIZON))
    choice = model.choice
    with torch.no_grad():
        batch = windows.batch(np.arange(len(windows)))
        now, choice.now = choice.now, None  # `chosen` takes what was fitted to all rows otherwise
        point = model.chosen(batch.window).point
        choice.now = now
    return (point - batch.future) / model.scale.units.unit


def test_errors_by_column(evaluation, errors):
    assert {one.name for one in evaluation.columns} == {"y", "x"}
    by_name = {one.name: one for one in evaluation.columns}
    for j, name in enumerate(("y", "x")):
        assert_close(by_name[name].mse, float((errors[..., j] ** 2).mean()))
        assert by_name[name].values == errors[..., j].numel()
    assert evaluation.columns[0].mse >= evaluation.columns[1].mse
    assert_close(evaluation.score("model").mse, float((errors**2).mean()))


def test_one_column_has_no_table_of_columns(frame):
    alone = Forecaster(HORIZON, **SETTINGS).fit(frame, "y").evaluate(frame)
    assert alone.columns == alone.series == alone.drawn == ()
    assert len(alone.worst) == 4


def test_the_worst_windows_are_the_worst(evaluation, errors, frame):
    squared = (errors**2).mean(1)
    window, target = divmod(int(squared.argmax()), 2)
    first = evaluation.worst[0]
    assert first.target == ("y", "x")[target]
    start = len(frame) - len(squared) - HORIZON + 1 + window
    assert first.times[-HORIZON] == frame["date"].iloc[start]
    found = [frame["date"].tolist().index(one.times[-HORIZON]) for one in evaluation.worst]
    gaps = np.diff(np.sort(found))
    assert (gaps >= HORIZON).all()
    means = [
        float((squared[at - start + window]).max()) for at in found
    ]  # of the worse target of each window
    assert means == sorted(means, reverse=True)


def test_the_residuals_are_those_one_step_ahead(evaluation, errors):
    assert [one.target for one in evaluation.residuals] == ["y", "x"]
    y = errors[:, 0, 0].double().numpy()
    y = y - y.mean()
    expected = float((y[:-1] * y[1:]).mean() / (y**2).mean())
    assert abs(evaluation.residuals[0].values[0] - expected) < 1e-5  # kept in float32
    assert len(evaluation.residuals[0].values) == 24


def test_bands_know_their_windows_and_steps(evaluation, fitted, frame):
    (band,) = evaluation.bands
    assert_close(np.mean(band.observed_by_step), band.observed)
    assert len(band.observed_by_step) == HORIZON
    table = fitted._table(frame)
    windows = Windows(table, fitted.model.spec, first_unseen(table, fitted.facts, HORIZON))
    assert band.windows == independent([windows], len(windows))


def test_the_bands_before_calibration_are_those_of_the_network(evaluation, errors, fitted, frame):
    model, table = fitted.model.eval(), fitted._table(frame)
    windows = Windows(table, model.spec, first_unseen(table, fitted.facts, HORIZON))
    with torch.no_grad():
        batch = windows.batch(np.arange(len(windows)))
        offsets = model.choice.parts(model, batch.window, model.choice.fitted(model)).offsets
    low, high = offsets[..., 0], offsets[..., 2]
    truth = -errors  # from the forecast
    inside = float(((low <= truth) & (truth <= high)).double().mean())
    (band,) = evaluation.bands
    assert abs(band.before - inside) <= 2 / errors.numel()  # rounding at the border of a band
    assert band.before != band.observed


def test_how_sure_a_difference_is(evaluation, errors):
    model = evaluation.score("model")
    assert model.noise is None
    zero = evaluation.score("last value")
    assert 0 < zero.noise < zero.mse
    assert Score("ridge", 1.0, 1.0, (), ()).differs(model)  # unknown
    near = Score("ridge", model.mse + 0.1, 1.0, (), (), noise=0.06)
    assert not near.differs(model)
    assert Score("ridge", model.mse + 0.1, 1.0, (), (), noise=0.04).differs(model)


def test_all_of_it_is_in_the_record(evaluation):
    again = ForecastEvaluation.from_json(evaluation.to_json())
    assert again.to_json() == evaluation.to_json()
    for name in ("columns", "worst", "residuals", "bands", "scores"):
        assert getattr(again, name) == getattr(evaluation, name)


def test_a_record_of_an_older_version_is_read(evaluation):
    import json

    raw = json.loads(evaluation.to_json())
    for name in ("columns", "worst", "drawn", "residuals"):
        del raw[name]
    raw["bands"] = [{k: b[k] for k in ("level", "observed", "before")} for b in raw["bands"]]
    raw["scores"] = [{k: v for k, v in s.items() if k != "noise"} for s in raw["scores"]]
    old = ForecastEvaluation.from_json(json.dumps(raw))
    assert old.worst == old.residuals == ()
    assert old.bands[0].chance is None


def test_series_to_draw():
    names = [f"s{i}" for i in range(100)]
    found = picked(names)
    assert list(found)[:DRAWN] == names[:DRAWN]
    assert list(found)[-DRAWN:] == names[-DRAWN:]
    reasons = list(found.values())
    assert [reasons.count(x) for x in ("largest error", "random", "smallest error")] == [DRAWN] * 3
    assert picked(names) == found
    assert list(picked(names[:20])) == names[:20]
    assert list(picked(names[:3]).values()) == ["largest error"] * 3


def test_a_panel_draws_the_last_window_of_each_series():
    frame = months()
    fitted = Forecaster(4, window=12, size=TINY, training=QUICK).fit(frame)
    found = fitted.evaluate(frame)
    assert [one.series for one in found.drawn] == [one.name for one in found.series]
    for one in found.drawn:
        rows = frame[frame["unique_id"] == one.series].sort_values("ds")
        assert one.example.target == f"y of {one.series}"
        assert_close(one.example.truth, tuple(rows["y"].iloc[-4:]))
        assert one.example.times[-1] == str(rows["ds"].iloc[-1].date())
    by_name = {one.name: one for one in found.series}
    worst = found.worst[0].target.removeprefix("y of ")
    assert worst in by_name
    assert found.bands[0].windows > len(found.series)


def test_of_many_windows_the_last_of_each_series_are_scored(monkeypatch):
    times = {"a": 90, "b": 60, "c": 44}
    draw = np.random.default_rng(0)
    frame = pd.concat(
        pd.DataFrame({"unique_id": name, "ds": np.arange(n), "y": draw.standard_normal(n)})
        for name, n in times.items()
    )
    model = Forecaster(3, window=8, size=TINY, training=QUICK).fit(frame, split=(0.4, 0.1, 0.5))
    whole = model.evaluate(frame)
    assert not any("Scored on the last" in note for note in whole.notes)
    monkeypatch.setattr(_evaluate, "MOST", 20)
    few = model.evaluate(frame)
    assert few.windows == 18 < whole.windows
    assert {one.name: one.values for one in few.series} == dict.fromkeys(times, 18)
    assert few.last == whole.last
    assert f"Scored on the last 6 windows of each series, 18 of {whole.windows}." in few.notes
    monkeypatch.setattr(_evaluate, "MOST", 1)
    assert model.evaluate(frame).windows == len(times)  # one of each, although these are more
    own = frame[frame["unique_id"] == "a"][["ds", "y"]]
    alone = Forecaster(3, window=8, size=TINY, training=QUICK).fit(own, "y")
    monkeypatch.setattr(_evaluate, "MOST", 5)
    found = alone.evaluate(own)
    assert found.windows == 5
    assert found.notes[-1].startswith("Scored on the last 5 of ")
