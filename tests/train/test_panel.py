"""Panels: one forecaster over many series."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate.errors import InputError
from longstate.models._spec import ForecastSpec
from longstate.train import ForecastEvaluation
from longstate.train._columns import Columns
from longstate.train._panel_table import make_panel, melt, resized, with_units
from longstate.train._windows import Windows
from tests.train.helpers import QUICK, TINY, months

LONG = Columns(("y",), time="ds", id="unique_id")


def forecaster(horizon=4, **options):
    return Forecaster(horizon, **{"window": 12, "size": TINY, "training": QUICK, **options})


@pytest.fixture(scope="module")
def frame():
    return months()


@pytest.fixture(scope="module")
def fitted(frame):
    return forecaster().fit(frame, static=("kind", "size"))


def test_long_columns_are_recognised(fitted, frame):
    spec = fitted.model.spec
    assert (spec.id, spec.time, spec.targets) == ("unique_id", "ds", ("y",))
    assert spec.series == tuple(frame["unique_id"].unique())
    assert spec.static == ("size",)
    assert [(c.column, c.role, c.levels) for c in spec.categories] == [
        ("kind", "static", ("a", "b", "c"))
    ]
    notes = " ".join(fitted.facts["notes"])
    assert "one model for all series" in notes
    assert "6 series of 30 to 80 rows" in notes
    assert "'kind': text, which the network alone reads" in notes


def test_each_series_is_scaled_by_its_own_training_part(fitted, frame):
    table = make_panel(frame, LONG)
    for name, scale in zip(fitted.model.spec.series, fitted.model.scale.std, strict=True):
        one = frame[frame["unique_id"] == name].sort_values("ds")
        seen = one[one["ds"] < cut(frame, 0.7)]["y"]
        assert_close(float(scale), seen.std(ddof=0))
    assert table.span == 80


def cut(frame, share):
    """The time before which this share of all rows is."""
    times = frame["ds"].sort_values().to_numpy()
    return times[round(len(times) * share)]


def test_parts_are_those_of_time(fitted, frame):
    facts = fitted.facts
    last = frame["ds"][frame["ds"] < cut(frame, 0.8)].max()
    assert pd.Timestamp(facts["seen_until"]) == last
    evaluation = fitted.evaluate(frame)
    assert pd.Timestamp(evaluation.first) > last
    later = frame[frame["ds"] > last - pd.DateOffset(months=12)]
    assert fitted.evaluate(later).windows == evaluation.windows


def test_forecasts_follow_the_last_row_of_each_series(fitted, frame):
    forecast = fitted.predict(frame.sample(frac=1, random_state=1))
    assert list(forecast.columns) == ["unique_id", "ds", "y", "y_q0.1", "y_q0.5", "y_q0.9"]
    assert forecast.notna().all().all()
    for name, part in forecast.groupby("unique_id"):
        last = frame["ds"][frame["unique_id"] == name].max()
        assert list(part["ds"]) == list(pd.date_range(last, periods=5, freq="MS")[1:])


def test_a_forecast_does_not_depend_on_the_other_series(fitted, frame):
    whole = fitted.predict(frame).set_index("unique_id")
    one = fitted.predict(frame[frame["unique_id"] == "s3"]).set_index("unique_id")
    assert_close(whole.loc["s3", "y"].tolist(), one["y"].tolist(), rtol=1e-5, atol=0)


def test_a_series_that_is_not_in_the_training(fitted, frame):
    """It gets the scale of its own rows, so the units of its values do not matter."""
    new = frame[frame["unique_id"] == "s1"].assign(unique_id="new")
    larger = new.assign(y=new["y"] * 1000 + 5)
    a, b = (fitted.predict(one)["y"].to_list() for one in (new, larger))
    assert_close([y * 1000 + 5 for y in a], b, rtol=1e-4, atol=0)


def test_series_that_are_too_short_are_padded_or_left_out(fitted, frame):
    rows = {"s0": 80, "s1": 5, "s2": 1}
    parts = [frame[frame["unique_id"] == name].tail(n) for name, n in rows.items()]
    with pytest.warns(UserWarning, match="have fewer than") as warned:
        forecast = fitted.predict(pd.concat(parts))
    assert list(forecast["unique_id"].unique()) == ["s0", "s1"]
    notes = [str(w.message) for w in warned]
    assert any("1 series ('s2') have fewer than 2 values" in n for n in notes)
    assert any("1 series ('s1') have fewer than half" in n for n in notes)
    with pytest.raises(InputError, match="no series can be forecast"):
        fitted.predict(parts[2])


def test_save_and_load(fitted, frame, tmp_path):
    fitted.save(tmp_path / "m.safetensors")
    loaded = Forecaster.load(tmp_path / "m.safetensors")
    pd.testing.assert_frame_equal(loaded.predict(frame), fitted.predict(frame), check_exact=True)
    evaluation = fitted.evaluate(frame)
    assert loaded.evaluate(frame).to_json() == evaluation.to_json()
    assert ForecastEvaluation.from_json(evaluation.to_json()) == evaluation


def test_errors_by_series_add_up(fitted, frame):
    evaluation = fitted.evaluate(frame)
    scores = evaluation.series
    total = sum(one.mse * one.values for one in scores) / sum(one.values for one in scores)
    assert_close(total, evaluation.score("model").mse)
    best = sum(one.best_mse * one.values for one in scores) / sum(one.values for one in scores)
    assert_close(best, evaluation.score(scores[0].best).mse)
    assert [one.mse for one in scores] == sorted((one.mse for one in scores), reverse=True)
    assert {one.name for one in scores} <= set(frame["unique_id"])
    assert f"The squared error of the {len(scores)} series" in (evaluation.by_series() or "")


def test_seasonal_naive_stays_within_a_series(fitted, frame):
    """Scores of the simple methods, from the data alone."""
    evaluation = fitted.evaluate(frame)
    errors, after = [], pd.Timestamp(fitted.facts["seen_until"])
    scale = dict(zip(fitted.model.spec.series, fitted.model.scale.std[:, 0].tolist(), strict=True))
    for name, one in frame.sort_values("ds").groupby("unique_id"):
        y, times = one["y"].to_numpy(), one["ds"].to_numpy()
        for o in range(12, len(y) - 3):
            if times[o] > after:
                errors += list((y[o : o + 4] - y[o - 12 : o - 8]) / scale[name])
    assert_close(evaluation.score("seasonal naive").mse, np.mean(np.square(errors)))


def test_windows_are_rows_of_one_series(frame):
    table = resized(make_panel(frame, LONG), 16, 0)
    spec = ForecastSpec(
        ("y",), (), (), "ds", table.calendar, ("year",), 12, 4, 12, (), id="unique_id",
        series=table.panel.names,
    )  # fmt: skip
    table = with_units(table, spec)
    windows = Windows(table, spec)
    batch = windows.batch(np.arange(len(windows)))
    seen = {}
    for name, one in frame.sort_values("ds").groupby("unique_id"):
        for y, t in zip(one["y"], one["ds"], strict=True):
            seen[round(y, 9)] = name, t
    series = [windows.places.names[i] for i in windows.places.of(batch.rows)]
    pairs = zip(batch.window.target[..., 0], batch.future[..., 0], series, strict=True)
    for past, future, name in pairs:
        rows = [seen[round(float(y), 9)] for y in torch.cat([past, future])]
        assert {of for of, _ in rows} == {name}
        times = [t for _, t in rows]
        assert times == list(pd.date_range(times[0], periods=16, freq="MS"))
    counts = frame.groupby("unique_id").size()
    assert len(windows) == sum(n - 15 for n in counts)
    months_of = batch.window.calendar[:, :, :2]
    first = [seen[round(float(y[0, 0]), 9)][1] for y in batch.window.target]
    seconds = np.array([t.timestamp() for t in first])
    angle = 2 * np.pi * (seconds % (365.2425 * 86400)) / (365.2425 * 86400)
    assert_close(months_of[:, 0, 0].numpy(), np.sin(angle))


def test_padding_is_not_observed(frame):
    short = pd.concat(
        [frame[frame["unique_id"] == "s0"], frame[frame["unique_id"] == "s1"].tail(6)]
    )
    table = resized(make_panel(short, LONG), 16, 4)
    panel = table.panel
    assert panel.names == ("s0", "s1")
    assert np.diff(panel.starts).tolist() == [84, 20]
    rows = slice(int(panel.starts[1]), int(panel.starts[2]))
    y = short["y"].to_numpy()[-6:]
    assert table.target[rows, 0].tolist() == [y[0]] * 10 + list(y) + [y[-1]] * 4
    assert table.observed[rows, 0].tolist() == [False] * 10 + [True] * 6 + [False] * 4
    assert np.diff(panel.position[rows]).tolist() == [1] * 19
    assert table.label(int(panel.ends[1]) - 1) == table.label(int(panel.ends[0]) - 1)


def test_a_wide_frame_is_a_panel_too(frame):
    wide = frame.pivot(index="ds", columns="unique_id", values="y").reset_index()
    names = list(frame["unique_id"].unique())
    long = forecaster().fit(frame.drop(columns=["kind", "size"]))
    found = forecaster().fit(wide, names, wide=True)
    assert found.model.spec.series == tuple(names)
    a, b = (f.predict(frame).set_index(["unique_id", "ds"])["y"] for f in (long, found))
    assert_close(a.to_list(), b.loc[a.index].to_list(), rtol=1e-5, atol=0)
    again = found.predict(wide).set_index(["unique_id", "ds"])["y"]
    assert_close(a.to_list(), again.loc[a.index].to_list(), rtol=1e-5, atol=0)
    with pytest.raises(InputError, match="cannot have a column 'y'"):
        melt(wide.assign(y=0), names)


def test_a_panel_of_one_is_the_single_series(frame):
    one = frame[frame["unique_id"] == "s0"][["unique_id", "ds", "y"]]
    panel = forecaster().fit(one)
    single = forecaster().fit(one, "y")  # recognised, too
    plain = forecaster().fit(one[["ds", "y"]], "y")
    assert single.model.spec.id == "unique_id"
    scores = [f.evaluate(one).score("model").mse for f in (panel, plain)]
    assert_close(*scores, rtol=1e-5, atol=0)
    a, b = (f.predict(one)["y"].to_list() for f in (panel, plain))
    assert_close(a, b, rtol=1e-5, atol=0)
