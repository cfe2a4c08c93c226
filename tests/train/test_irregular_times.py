"""Forecasts of rows at irregular times, without resampling."""

import json

import numpy as np
import pandas as pd
import pytest
import torch

import longstate
from longstate import Forecaster
from longstate.cli import main
from longstate.errors import InputError
from longstate.layers import S4D
from longstate.models import ForecastModel
from longstate.models._choice import NETWORK
from longstate.models._elapsed import as_feature, steps_between
from longstate.stream import ForecastStream
from longstate.train import Size, Training
from longstate.train._windows import Windows

SMALL = {
    "size": Size(d_model=16, n_layers=1),
    "training": Training(epochs=10, learning_rate=1e-2),
}
QUICK = {"size": Size(d_model=4, n_layers=1, d_state=4), "training": Training(epochs=1)}


def sampled(n: int = 400, seed: int = 0) -> pd.DataFrame:
    """A wave at random times: whole seconds, as dates."""
    random = np.random.default_rng(seed)
    seconds = np.cumsum(random.choice([1000, 2500, 3600, 9000], n))
    y = 5 + 3 * np.sin(seconds / 6000) + 0.05 * random.normal(size=n)
    start = pd.Timestamp("2024-01-01")
    return pd.DataFrame({"when": start + pd.to_timedelta(seconds, unit="s"), "y": y})


def forecaster(frame: pd.DataFrame, **options) -> Forecaster:
    return Forecaster(6, window=24, **QUICK).fit(frame, "y", time="when", **options)


@pytest.fixture(scope="module")
def fitted() -> Forecaster:
    return Forecaster(6, window=24, **SMALL).fit(sampled(), "y", time="when")


@pytest.mark.parametrize("seed", range(2))
def test_times_tell_what_rows_do_not(seed):
    frame, errors = sampled(600, seed), []
    for step in (None, "rows"):
        model = Forecaster(6, window=24, seed=seed, **SMALL)
        scores = model.fit(frame, "y", time="when", step=step).evaluate(frame).scores
        errors.append({s.method: s.mse for s in scores})
    assert errors[0]["model"] < 0.5 * errors[1]["model"]
    assert errors[0]["ridge"] == errors[1]["ridge"]  # which counts rows in both


def test_the_run_says_what_it_does(fitted):
    assert fitted.model.choice.weight[NETWORK] > 0  # of which the tests below tell
    said = "The times are irregular: the layers step over the time between rows (usually 1 hour)"
    assert any(note.startswith(said) for note in fitted.facts["notes"])
    assert fitted.model.spec.times == "when, irregular, usually 1 hour apart"
    assert fitted.model.spec.season == 1


def test_another_unit_changes_nothing():
    frame = sampled(120)
    hours = frame.assign(when=(frame["when"] - frame["when"][0]).dt.total_seconds() / 3600 - 50)
    one, other = (forecaster(f).predict(f) for f in (frame, hours))
    torch.testing.assert_close(*(torch.tensor(list(f["y"])).float() for f in (one, other)))
    assert "(1) is assumed" in other.attrs["notes"][-1]


def test_the_layers_step_over_the_time_between_rows(fitted):
    """The window that a forecast reads, against times that are computed here."""
    frame, spec = sampled(), fitted.model.spec
    table = fitted._table(frame)
    batch = Windows(table, spec).at(np.array([100]))
    seconds = (frame["when"] - frame["when"][99]).dt.total_seconds().to_numpy()[76:106] / 3600
    torch.testing.assert_close(batch.window.calendar[0, :, 0], torch.from_numpy(seconds))
    seen = {}

    def keep(module, args, options):
        seen.update(options, u=args[0])

    hook = fitted.model.backbone.register_forward_pre_hook(keep, with_kwargs=True)
    fitted.model(batch.window)
    hook.remove()
    gaps = np.concatenate([[1], np.diff(seconds)])
    torch.testing.assert_close(seen["dt"][0], torch.from_numpy(gaps).float())


def test_rows_without_a_target_pass_time():
    times = torch.tensor([[-4.0, -3.0, -1.0, 0.0, 2.0]])
    mask = torch.tensor([[True, True, False, True, True]])
    assert steps_between(times, None).tolist() == [[1, 1, 2, 1, 2]]
    dt = steps_between(times, mask)
    assert dt[mask].tolist() == [1, 1, 3, 2]
    torch.testing.assert_close(as_feature(times), times.sign() * torch.log(1 + times.abs()))


def test_later_times_are_those_of_the_data(fitted):
    frame = sampled()
    last = frame["when"].iloc[-1]
    later = last + pd.to_timedelta([10, 50, 60, 300, 301, 400], unit="min")
    usual = last + pd.to_timedelta(np.arange(1, 7), unit="h")
    rows = pd.DataFrame({"when": later, "y": np.nan})
    given, assumed = fitted.predict(pd.concat([frame, rows])), fitted.predict(frame)
    assert list(given["when"]) == list(later)
    assert list(assumed["when"]) == list(usual)
    assert (given["y"] != assumed["y"]).all()
    assert not any("assumed" in note for note in given.attrs["notes"])
    assert assumed.attrs["notes"][-1].startswith("The times of 6 rows that are forecast are not")
    some = fitted.predict(pd.concat([frame, rows[:2]]))
    assert list(some["when"]) == [*later[:2], *(later[1] + pd.to_timedelta([1, 2, 3, 4], "h"))]
    assert "The times of 4 rows" in some.attrs["notes"][-1]


def test_a_stream_predicts(fitted):
    frame = sampled()[:60]
    frame.loc[50, "y"] = np.nan
    stream = ForecastStream(fitted.model)
    for i, (when, y) in enumerate(zip(frame["when"], frame["y"], strict=True)):
        found = stream.push({"when": str(when), "y": "" if np.isnan(y) else str(y)})
        if i in (23, 40, 52, 59):
            expected = fitted.predict(frame[: i + 1])
            assert found.forecast.point[0, :, 0].tolist() == expected["y"].tolist()
    with pytest.raises(InputError, match="does not come after"):
        stream.push({"when": str(frame["when"][3]), "y": "1"})


def test_a_stream_with_later_times(tmp_path):
    frame = sampled().assign(load=lambda f: np.arange(len(f)) % 7.0)
    model = Forecaster(6, window=24, **SMALL).fit(frame, "y", time="when", known="load")
    assert model.model.choice.weight[NETWORK] > 0  # no other method reads the times
    stream = ForecastStream(model.model)
    for row in frame[:34].to_dict("records"):
        stream.push({k: str(v) for k, v in row.items()})
    stream.save(tmp_path / "state")
    stream = ForecastStream(model.model)
    stream.load(tmp_path / "state")
    future = frame[34:40].assign(y=np.nan)
    for row in future.assign(y="").to_dict("records"):
        found = stream.push({k: str(v) for k, v in row.items()})
    expected = model.predict(pd.concat([frame[:34], future]))
    assert found.forecast.point[0, :, 0].tolist() == expected["y"].tolist()


def test_files_and_stopped_runs(fitted, tmp_path):
    frame = sampled()
    longstate.save(fitted, tmp_path / "m.safetensors")
    again = longstate.load(tmp_path / "m.safetensors")
    assert again.predict(frame).equals(fitted.predict(frame))
    assert again.evaluate(frame).scores == fitted.evaluate(frame).scores
    fitted.model.save(tmp_path / "model.safetensors")
    alone = ForecastModel.load(tmp_path / "model.safetensors")
    assert alone.spec == fitted.model.spec


def test_only_irregular_times_are_taken_as_such():
    regular = pd.date_range("2024-01-01", periods=120, freq="h")
    frame = pd.DataFrame({"when": regular, "y": np.arange(120) % 5.0})
    assert forecaster(frame).model.spec.calendar.step == "h"
    frame.loc[60, "when"] += pd.Timedelta("17min")
    with pytest.raises(InputError, match=r"is uneven: line 62.*step 'stamps'"):
        forecaster(frame)
    spec = forecaster(frame, step="stamps").model.spec
    assert (spec.calendar.step, spec.calendar.usual) == ("stamps", 3600)


def test_wrong_input_is_one_sentence():
    frame = sampled(120)
    with pytest.raises(InputError, match=r"'longhorn' cannot read.*use one of.*or count rows"):
        Forecaster(6, window=24, layers="longhorn", **QUICK).fit(frame, "y", time="when")
    twice = frame.assign(when=frame["when"].where(frame.index != 7, frame["when"][6]))
    message = r"must go forward: line 9 .* repeats the time of line 8 \(such lines: 1\); keep"
    with pytest.raises(InputError, match=message):
        forecaster(twice)
    missing = frame.assign(when=frame["when"].astype("string").where(frame.index != 7))
    with pytest.raises(InputError, match=r"a date such as .* was expected"):
        forecaster(missing)
    with pytest.raises(InputError, match="need at least 2 rows"):
        forecaster(frame[:1], step="stamps")


def test_the_command_line(tmp_path, capsys):
    data, out = tmp_path / "data.csv", tmp_path / "run"
    sampled(150).to_csv(data, index=False)
    small = ["--horizon", "4", "--window", "12", "--epochs", "1", "--d-model", "4"]
    command = ["train", "forecast", str(data), "--target", "y", "--time", "when", *small]
    assert main([*command, "--out", str(out)]) == 0
    assert "The times are irregular: the layers step" in capsys.readouterr().out
    assert main(["predict", str(out), str(data)]) == 0
    shown = capsys.readouterr()
    assert "The times of 4 rows that are forecast are not in the data" in shown.err
    assert shown.out.splitlines()[0] == "when,y,y_q0.1,y_q0.5,y_q0.9"
    assert main(["evaluate", str(out), str(data)]) == 0
    assert main(["info", str(out)]) == 0
    assert "irregular, usually 1 hour apart" in capsys.readouterr().out
    assert json.loads((out / "evaluation.json").read_text())["season"] == 1


def test_a_layer_alone_reads_the_times():
    """The same rows at other times give another forecast."""
    model = forecaster(sampled(120)).model
    torch.nn.init.normal_(model.head.weight)
    spec, frame = model.spec, sampled(120)
    other = frame.assign(when=frame["when"] + pd.to_timedelta(np.arange(120) ** 2, unit="s"))
    windows = [Windows.last(_table(f, spec), spec) for f in (frame, other)]
    assert isinstance(model.backbone.blocks[0].mixer, S4D)
    a, b = (model(w).point for w in windows)
    assert bool((a != b).all())


def _table(frame, spec):
    from longstate.train._read_table import table_for

    return table_for(frame, spec)
