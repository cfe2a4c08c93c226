"""Forecasts from several origins, each from the rows before it alone."""

import numpy as np
import pandas as pd
import pytest

from longstate import Forecaster
from longstate.errors import InputError
from tests.train.helpers import QUICK, TINY, hourly


@pytest.fixture(scope="module")
def frame():
    return hourly()


@pytest.fixture(scope="module")
def fitted(frame):
    return Forecaster(4, window=30, size=TINY, training=QUICK).fit(frame, "y", covariates="x")


def test_without_refit_it_is_the_evaluation(fitted, frame):
    found = fitted.backtest(frame, origins=77)
    assert len(found.forecasts) == 77 * 4
    score = fitted.evaluate(frame).score("model")
    unit = frame["y"][:280].std(ddof=0)
    errors = found.forecasts["y"] - found.forecasts["y_actual"]
    assert np.isclose((errors**2).mean() / unit**2, score.mse)
    naive = found.scores.set_index("method").loc["last value", "mae"]
    assert np.isclose(naive / unit, fitted.evaluate(frame).score("last value").mae)
    first = found.forecasts.iloc[0]
    assert (str(first["origin"]), str(first["date"])) == (frame["date"][319], frame["date"][320])


@pytest.mark.parametrize("options", [{}, {"refit": True}, {"refit": 2, "network": True}])
def test_later_rows_do_not_matter(fitted, frame, options):
    """Rows after the horizon of the first origin are another series."""
    other = frame.copy()
    other.loc[330:, "y"] += 30 * np.random.default_rng(1).random(70)
    one, two = (fitted.backtest(f, origins=2, **options).forecasts[:4] for f in (frame, other))
    pd.testing.assert_frame_equal(one, two, check_exact=True)


def test_a_refit_reads_the_rows_before_the_origin(fitted, frame):
    kept, again = (fitted.backtest(frame, origins=3, refit=r).forecasts for r in (False, 1))
    assert (kept["y"][8:] != again["y"][8:]).all()
    half = fitted.backtest(frame, origins=3, refit=2).forecasts
    assert half["y"][8:].equals(again["y"][8:])
    assert not half["y"][4:8].equals(again["y"][4:8])


def test_a_refit_is_what_fit_does(fitted, frame):
    """A training whose data ends at the origin, with the same training and validation part, has the
    same ridge and line."""
    found = fitted.backtest(frame, origins=2, refit=True).forecasts.tail(4)
    rows = 396
    split = (280 / rows, 40 / rows, 76 / rows)
    same = Forecaster(4, window=30, size=TINY, training=QUICK)
    same.fit(frame[:rows], "y", covariates="x", split=split)
    expected = same.predict(frame[:rows])
    for name in ("y", "y_q0.1", "y_q0.9"):
        assert np.allclose(found[name], expected[name], rtol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"origins": 0}, "origins must be a whole number of at least 1"),
        ({"refit": -1}, "refit must be a whole number of at least 0"),
        ({"network": True}, "network=True trains again at each refit"),
    ],
)
def test_wrong_numbers_are_refused(fitted, frame, options, message):
    with pytest.raises(InputError, match=message):
        fitted.backtest(frame, **options)


def test_rows_that_were_seen_are_refused(fitted, frame):
    with pytest.raises(InputError, match="an evaluation needs 4 rows after"):
        fitted.backtest(frame[:200])
    with pytest.raises(InputError, match="refit needs the rows of training"):
        fitted.backtest(frame[300:], refit=True)
