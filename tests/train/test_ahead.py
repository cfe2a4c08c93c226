"""The forecast of the rows after the data, as a report draws it."""

import warnings

import numpy as np

from longstate import Forecaster
from longstate.train._ahead import forecast_ahead
from tests.train.helpers import QUICK, TINY, hourly, months

SETTINGS = {"window": 12, "size": TINY, "training": QUICK}


def test_it_is_the_forecast_of_predict():
    frame = hourly()
    frame.loc[390, "y"] = np.nan
    fitted = Forecaster(4, **SETTINGS).fit(frame, ["y", "x"])
    with warnings.catch_warnings(action="ignore"):
        expected = fitted.predict(frame)
    found = forecast_ahead(fitted, frame)
    assert [one.target for one in found.single] == ["y", "x"]
    one = found.single[0]
    assert one.forecasts["model"] == tuple(expected["y"])
    assert one.quantiles == {q: tuple(expected[f"y_q{q:g}"]) for q in (0.1, 0.5, 0.9)}
    assert list(one.times[-4:]) == [str(time) for time in expected["date"]]
    assert one.times[-5] == frame["date"].iloc[-1]
    np.testing.assert_array_equal(one.past, frame["y"].iloc[-8:])  # a gap stays one
    assert np.isnan(one.truth).all()


def test_rows_of_the_future_that_are_lacking_are_named():
    frame = hourly()
    fitted = Forecaster(4, **SETTINGS).fit(frame, "y", known="z")
    found = forecast_ahead(fitted, frame)
    assert found.single == ()
    assert "'z' filled; the data has 0" in found.lacks
    frame.loc[396:, "y"] = np.nan
    assert forecast_ahead(fitted, frame).lacks is None


def test_series_of_a_panel():
    frame = months()
    fitted = Forecaster(4, **SETTINGS).fit(frame)
    expected = fitted.predict(frame).groupby("unique_id")
    found = forecast_ahead(fitted, frame, ["s2", "s0", "none"])
    assert list(found.windows) == ["s2", "s0"]
    for name, (one,) in found.windows.items():
        forecast = expected.get_group(name)
        rows = frame[frame["unique_id"] == name].sort_values("ds")
        assert one.forecasts["model"] == tuple(forecast["y"])
        assert list(one.times[-4:]) == [str(time.date()) for time in forecast["ds"]]
        assert one.past == tuple(rows["y"].iloc[-8:])
    assert found.single == ()
    assert forecast_ahead(fitted, frame).windows == {}


def test_rows_without_times_have_numbers():
    frame = hourly()[["y"]]
    found = forecast_ahead(Forecaster(4, **SETTINGS).fit(frame, "y"), frame)
    assert found.single[0].times[-5:] == ("399", "400", "401", "402", "403")
