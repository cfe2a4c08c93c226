"""Backtests of panels: all series at each origin, from the rows before it alone."""

import numpy as np
import pandas as pd
import pytest

from longstate import Forecaster
from longstate.errors import InputError
from tests.train.helpers import QUICK, TINY, months

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def fit(frame, **columns):
    made = Forecaster(4, window=12, size=TINY, training=QUICK)
    return made.fit(frame, "y", **{"id": "unique_id", **columns})


@pytest.fixture(scope="module")
def frame():
    return months()[["unique_id", "ds", "y"]]


@pytest.fixture(scope="module")
def fitted(frame):
    return fit(frame)


@pytest.fixture(scope="module")
def more(frame, fitted):
    """With series that were not in the training: one that begins late, and one that is constant
    up to the first origin."""
    flat = frame[frame["unique_id"] == "s0"].assign(unique_id="flat")
    flat["y"] = flat["y"].where(flat["ds"] > fitted.facts["seen_until"], 5.0)
    new = frame[frame["unique_id"] == "s3"].assign(unique_id="new", y=lambda d: 7 * d["y"] + 3)
    late = frame[frame["unique_id"] == "s0"].tail(10).assign(unique_id="late")
    return pd.concat([frame, new, late, flat], ignore_index=True)


def errors(found):
    return found.forecasts["y"] - found.forecasts["y_actual"]


def test_without_refit_it_is_the_evaluation(fitted, frame):
    found, evaluation = fitted.backtest(frame, origins=99), fitted.evaluate(frame)
    rows = found.forecasts
    assert list(rows.columns[:5]) == ["unique_id", "origin", "ds", "step", "y"]
    assert len(rows) == evaluation.windows * 4
    scores = found.scores.set_index("method")
    for name in ("model", "last value", "seasonal naive"):
        assert np.isclose(scores.loc[name, "rmse"] ** 2, evaluation.score(name).mse)
        assert np.isclose(scores.loc[name, "mae"], evaluation.score(name).mae)
    assert np.isclose(scores.loc["model", "held"], evaluation.bands[0].observed)
    by_series = found.series[found.series["method"] == "model"].set_index("series")
    for one in evaluation.series:
        assert np.isclose(by_series.loc[one.name, "scaled"] ** 2, one.mse)
        assert by_series.loc[one.name, "values"] == one.values
        own = errors(found)[rows["unique_id"] == one.name]
        assert np.isclose(by_series.loc[one.name, "rmse"], np.sqrt((own**2).mean()))
        assert np.isclose(by_series.loc[one.name, "mae"], own.abs().mean())
    truth = frame.set_index(["unique_id", "ds"])["y"]
    keys = pd.MultiIndex.from_frame(rows[["unique_id", "ds"]])
    assert (truth[keys].to_numpy() == rows["y_actual"].to_numpy()).all()
    assert (rows["ds"] > rows["origin"]).all()


def test_origins_are_moments(fitted, frame):
    found = fitted.backtest(frame, origins=3)
    moments = found.forecasts.groupby("origin")["unique_id"].nunique()
    assert moments.tolist() == [6, 6, 6]
    assert found.notes[-1].startswith("Nothing was fitted again")


@pytest.mark.parametrize("options", [{}, {"refit": True}, {"refit": 2, "network": True}])
def test_later_rows_do_not_matter(fitted, more, options):
    """Rows after the horizon of the first origin are other series, also for the scale of series
    that were not in the training."""
    first = fitted.backtest(more, origins=2).forecasts["ds"][:4].max()
    draw = np.random.default_rng(1).random(len(more))
    other = more.assign(y=more["y"] * np.where(more["ds"] > first, 1 + 9 * draw, 1))
    one, two = (fitted.backtest(f, origins=2, **options).forecasts for f in (more, other))
    count = one.groupby("origin", sort=False).size().iloc[0]
    assert set(one["unique_id"][:count]) >= {"s0", "new", "flat"}
    pd.testing.assert_frame_equal(one[:count], two[:count], check_exact=True)


def test_a_backtest_is_predict_from_an_origin(frame, more):
    """Without another fit at the end, which `predict` would have and the backtest has not."""
    fitted = fit(frame, refit=False)
    found = fitted.backtest(more, origins=3).forecasts
    for origin, rows in found.groupby("origin"):
        expected = fitted.predict(more, origin=origin)
        keys = ["unique_id", "ds"]
        both = rows.merge(expected, on=keys, suffixes=("", "_other"))
        assert len(both) == len(rows)
        assert np.allclose(both["y"], both["y_other"], rtol=1e-4)


def test_a_refit_is_what_fit_does(frame):
    """A training whose data ends at the origin, with the same training and validation part, has the
    same ridge and line."""
    even = frame[frame["unique_id"].isin(["s0", "s3"])]  # of 80 rows each
    fitted = fit(even)
    found = fitted.backtest(even, origins=2, refit=True).forecasts
    last = found["origin"].max()
    rows = 76
    same = Forecaster(4, window=12, size=TINY, training=QUICK)
    before = even[even["ds"] <= last]
    assert len(before) == 2 * rows
    same.fit(before, "y", id="unique_id", split=(56 / rows, 8 / rows, 12 / rows))
    expected = same.predict(before)
    for name in ("y", "y_q0.1", "y_q0.9"):
        assert np.allclose(found[name][found["origin"] == last], expected[name], rtol=1e-5)


def test_a_refit_reads_the_rows_before_the_origin(fitted, frame):
    kept, again = (fitted.backtest(frame, origins=3, refit=r).forecasts for r in (False, 1))
    late = kept["origin"] == kept["origin"].max()
    assert (kept["y"][late] != again["y"][late]).all()


def test_series_without_an_origin_are_named(fitted, frame):
    old = frame[(frame["unique_id"] != "s2") | (frame["ds"] < "2019-09-01")]
    found = fitted.backtest(old, origins=2)
    assert "1 series ('s2') have no window and horizon at these origins." in found.notes
    with pytest.raises(InputError, match="an evaluation needs 4 rows after"):
        fitted.backtest(frame[frame["ds"] < "2019-01-01"])
    with pytest.raises(InputError, match="refit needs the rows of training"):
        fitted.backtest(frame[frame["ds"] > "2019-01-01"], refit=True)


def test_panels_without_times(frame):
    bare = frame[["unique_id", "y"]]
    found = fit(bare).backtest(bare, origins=2)
    assert list(found.forecasts.columns[:4]) == ["unique_id", "origin", "row", "step"]
    assert (found.forecasts["row"] - found.forecasts["origin"] == found.forecasts["step"]).all()


def test_a_single_series_has_no_table_of_series(frame):
    one = frame[frame["unique_id"] == "s0"][["ds", "y"]]
    found = fit(one, id=None).backtest(one, origins=2)
    assert len(found.series) == 0
    assert "scaled" in found.series


def test_a_refit_needs_a_series_of_training(fitted, frame):
    new = frame.assign(unique_id="x" + frame["unique_id"])
    assert len(fitted.backtest(new, origins=2).series) == 6 * 3
    with pytest.raises(InputError, match="refit needs the series of training"):
        fitted.backtest(new, refit=True)
