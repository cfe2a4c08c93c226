import inspect
import pickle

import numpy as np
import pytest

from longstate import Forecaster
from longstate.errors import InputError
from longstate.stream import ForecastStream
from tests.train.helpers import QUICK, TINY, hourly


def fit(frame, **columns):
    return Forecaster(4, window=30, size=TINY, training=QUICK).fit(frame, "y", **columns)


@pytest.fixture(scope="module")
def frame():
    return hourly()


@pytest.fixture(scope="module")
def plain(frame):
    return fit(frame, covariates="x")


def rows(frame):
    return [{k: str(v) for k, v in row.items()} for row in frame.to_dict("records")]


def assert_predicts(streamed, forecaster, frame):
    """The stream gives exactly the forecasts of `predict` on the same data."""
    expected = forecaster.predict(frame)
    point, quantiles = streamed.forecast
    assert point[0, :, 0].tolist() == expected["y"].tolist()
    assert quantiles[0, :, 0, 2].tolist() == expected["y_q0.9"].tolist()


def test_one_forecast_per_row_is_prediction(plain, frame):
    stream = ForecastStream(plain.model)
    for i, row in enumerate(rows(frame[:40])):
        streamed = stream.push(row)
        assert (streamed is None) == (i < 29)
        if i in (29, 35, 39):
            assert_predicts(streamed, plain, frame[: i + 1])
            assert streamed.origin == frame["date"][i]


def test_gaps_are_treated_as_in_a_table(plain, frame):
    holed = frame[:80].copy()
    holed.loc[[0, 1, 60, 61], "y"] = np.nan
    holed.loc[[65, 66], "x"] = np.nan
    holed = holed.drop(index=[70, 71, 72])
    stream = ForecastStream(plain.model)
    for row in rows(holed):
        streamed = stream.push(row)
    assert_predicts(streamed, plain, holed)


def test_known_columns_are_pushed_first_and_the_row_later(frame):
    forecaster = fit(frame, known="z")
    stream = ForecastStream(forecaster.model)
    seen = rows(frame)
    for row in seen[:4]:
        assert stream.push({**row, "y": ""}) is None
    for i in range(40):
        assert stream.push(seen[i]) is None  # three rows of the future are known, four are needed
        streamed = stream.push({**seen[i + 4], "y": ""})
        assert (streamed is None) == (i < 29)
        if streamed is not None:
            ahead = frame[: i + 5].copy()
            ahead.loc[i + 1 :, "y"] = np.nan
            assert_predicts(streamed, forecaster, ahead)


def test_a_row_without_known_columns_uses_those_pushed_before(frame):
    model = fit(frame, known="z").model
    seen = rows(frame)
    forecasts = []
    for again in ({}, {"z": ""}):
        stream = ForecastStream(model)
        for row in seen[:34]:
            stream.push({**row, "y": ""})
        for row in seen[:30]:
            streamed = stream.push({**row, **again})
        forecasts.append(streamed.forecast.point.tolist())
    assert forecasts[0] == forecasts[1]


@pytest.mark.parametrize(("text", "number"), [("True", 1.0), (" false", 0.0)])
def test_true_is_read_as_one(text, number, plain, frame):
    forecasts = []
    for value in (text, number):
        stream = ForecastStream(plain.model)
        for row in rows(frame[:30]):
            streamed = stream.push({**row, "x": value})
        forecasts.append(streamed.forecast.point.tolist())
    assert forecasts[0] == forecasts[1]


def test_the_first_row_must_be_complete(frame):
    """With two targets, one of which is missing in the first row: there is nothing to hold."""
    forecaster = Forecaster(4, window=30, size=TINY, training=QUICK).fit(frame, ["y", "x"])
    holed = frame[:31].copy()
    holed.loc[0, "y"] = np.nan
    stream = ForecastStream(forecaster.model)
    streamed = [stream.push(row) for row in rows(holed)]
    assert [x is None for x in streamed] == [True] * 30 + [False]
    expected = forecaster.predict(holed)[["y", "x"]].to_numpy()
    assert streamed[-1].forecast.point[0].tolist() == expected.tolist()


def test_a_file_for_prediction_can_be_streamed(frame):
    forecaster = fit(frame, known="z")
    ahead = frame[:60].copy()
    ahead.loc[56:, "y"] = np.nan
    stream = ForecastStream(forecaster.model)
    results = [stream.push(row) for row in rows(ahead)]
    assert [r is not None for r in results] == [False] * 59 + [True]
    assert_predicts(results[-1], forecaster, ahead)


def test_without_times(frame):
    forecaster = fit(frame[["y"]])
    stream = ForecastStream(forecaster.model)
    for row in rows(frame[["y"]][:35]):
        streamed = stream.push(row)
    assert streamed.origin == "34"
    assert_predicts(streamed, forecaster, frame[["y"]][:35])


WRONG = {
    "column": ({"date": "2024-01-02 16:00"}, "there is no column 'y' in the row"),
    "number": ({"y": "abc"}, "column 'y' holds 'abc'; a number was expected"),
    "infinite": ({"x": "inf"}, "column 'x' is infinite"),
    "date": ({"date": "soon"}, "the time column 'date' holds 'soon', not a date"),
    "again": ({"date": "2024-01-02 15:00"}, "15:00:00 does not come after 2024-01-02 15:00:00"),
    "early": ({"date": "2024-01-02 15:20"}, r"15:20:00 does not fit its step \(every hour\)"),
    "off": ({"date": "2024-01-02 17:20"}, r"17:20:00 does not fit its step \(every hour\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_bad_row_is_refused_and_the_stream_continues(case, plain, frame):
    change, message = WRONG[case]
    stream = ForecastStream(plain.model)
    seen = rows(frame)
    for row in seen[:40]:
        stream.push(row)
    bad = change if case == "column" else {**seen[40], **change}
    with pytest.raises(InputError, match=message):
        stream.push(bad)
    assert_predicts(stream.push(seen[40]), plain, frame[:41])


def test_bad_future_rows_are_refused(frame):
    stream = ForecastStream(fit(frame, known="z").model)
    seen = rows(frame)
    stream.push(seen[0])
    with pytest.raises(InputError, match="a row of the future must fill every column"):
        stream.push({**seen[1], "y": "", "z": ""})
    with pytest.raises(InputError, match="2024-01-01 01:00:00 was expected"):
        stream.push({**seen[2], "y": ""})
    for row in seen[1:39]:
        stream.push({**row, "y": ""})
    with pytest.raises(InputError, match="38 rows of the future are waiting; more are refused"):
        stream.push({**seen[39], "y": ""})


def test_memory_does_not_grow(plain, frame):
    stream = ForecastStream(plain.model)
    times = iter(np.datetime64("2024-01-01", "s") + np.arange(10**6) * np.timedelta64(3600, "s"))

    def push(count):
        for _ in range(count):
            stream.push({"date": str(next(times)), "y": "1.5", "x": "2"})

    def held():
        return len(pickle.dumps({k: v for k, v in vars(stream).items() if k != "model"}))

    push(40)
    before = held()
    push(60)
    assert held() == before


def test_a_long_gap_adds_at_most_a_window_of_rows(plain, frame):
    stream = ForecastStream(plain.model)
    for row in rows(frame[:40]):
        stream.push(row)
    later = {"date": "2424-01-01 00:00:00", "y": "20", "x": "0"}
    with pytest.raises(InputError, match="more than the window of 30 rows; it is held until a row"):
        stream.push(later)
    streamed = stream.push({**later, "date": "2424-01-01 01:00:00"})
    assert np.isfinite(streamed.forecast.point).all()
    assert streamed.note == "Of the 30 rows that the forecast reads, 28 are missing."


def test_a_stream_imports_no_training_code():
    from longstate.stream import _forecast as forecast

    assert "longstate.train" not in inspect.getsource(forecast)
