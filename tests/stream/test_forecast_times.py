"""A stream of forecasts whose times are wrong, missing, far apart, or of a calendar."""

import numpy as np
import pandas as pd
import pytest

from longstate import Forecaster
from longstate.errors import InputError
from longstate.stream import ForecastStream
from tests.stream.test_forecast import assert_predicts, rows
from tests.train.helpers import QUICK, TINY, hourly

WINDOW = 24


def fit(frame, **options):
    forecaster = Forecaster(4, window=WINDOW, size=TINY, training=QUICK)
    return forecaster.fit(frame, "y", **options)


@pytest.fixture(scope="module")
def frame():
    return hourly()[["date", "y"]]


@pytest.fixture(scope="module")
def plain(frame):
    return fit(frame)


def values(times, text):
    wave = 20 + np.sin(np.arange(len(times)) / 4)
    return pd.DataFrame({"date": times.strftime(text) if text else times.astype(str), "y": wave})


def push_all(stream, frame):
    """The last forecast, and the messages of the rows that were refused."""
    refused, last = [], None
    for row in rows(frame):
        try:
            last = stream.push(row)
        except InputError as error:
            refused.append(str(error))
    return last, refused


@pytest.mark.parametrize("at", [0, 10, 40])
@pytest.mark.parametrize("wrong", ["2099-01-01 00:00:00", "1970-01-01 00:00:00"])
def test_one_wrong_time_loses_one_row(at, wrong, plain, frame):
    seen = frame[:80].copy()
    seen.loc[at, "date"] = wrong
    last, refused = push_all(ForecastStream(plain.model), seen)
    assert len(refused) == 1
    assert "more than the window of 24 rows; it is held until a row follows it" in refused[0]
    if at == 40:
        assert_predicts(last, plain, seen.drop(index=40))
    assert last.origin == seen["date"].iloc[-1]


def test_after_a_long_pause_the_stream_continues_once_confirmed(plain, frame):
    seen = pd.concat([frame[:40], frame[200:230]])
    last, refused = push_all(ForecastStream(plain.model), seen)
    assert len(refused) == 1
    assert last.note is None
    assert_predicts(last, plain, frame[200:230])


def test_a_window_of_gaps_is_reported(plain, frame):
    stream = ForecastStream(plain.model)
    for row in rows(frame[:40]):
        stream.push(row)
    streamed = stream.push(rows(frame[55:56])[0])
    assert streamed.note == "Of the 24 rows that the forecast reads, 15 are missing."
    with pytest.raises(InputError, match="24 rows that a forecast reads, 23 are missing"):
        stream.push(rows(frame[79:80])[0])
    assert stream.push(rows(frame[80:81])[0]).note.endswith("22 are missing.")


CALENDARS = {
    "day first": ("D", None, "%d/%m/%Y"),
    "a zone": ("D", "Europe/Berlin", None),
    "the hour that comes twice": ("h", "Europe/Berlin", None),
    "months": ("MS", None, "%b %Y"),
    "working days": ("B", None, "%Y-%m-%d"),
}


@pytest.mark.parametrize("case", CALENDARS)
def test_times_are_read_and_written_as_in_training(case):
    freq, zone, text = CALENDARS[case]
    start = "2023-10-28 00:00" if freq == "h" else "2023-09-01"
    times = pd.date_range(start, periods=160, freq=freq, tz=zone)
    whole = values(times, text)
    forecaster = fit(whole)
    stream = ForecastStream(forecaster.model)
    for i, row in enumerate(rows(whole)):
        streamed = stream.push(row)
        if i >= WINDOW - 1:
            assert streamed.origin == whole["date"][i]
    assert_predicts(streamed, forecaster, whole)


def test_local_times_across_the_end_of_summer_time():
    times = pd.date_range("2023-10-25", periods=160, freq="h", tz="Europe/Berlin")
    whole = values(times.tz_localize(None), None)
    forecaster = fit(whole, zone="Europe/Berlin")
    last, refused = push_all(ForecastStream(forecaster.model), whole)
    assert refused == []
    assert_predicts(last, forecaster, whole)


def test_working_days_without_a_row_are_holidays_as_in_training():
    times = pd.date_range("2023-01-02", periods=200, freq="B").delete([70, 130])
    whole = values(times, "%Y-%m-%d")
    forecaster = fit(whole)
    later = values(pd.date_range("2024-01-01", periods=60, freq="B").delete([40, 41]), "%Y-%m-%d")
    last, refused = push_all(ForecastStream(forecaster.model), later)
    assert refused == []
    assert last.note is None
    assert_predicts(last, forecaster, later)


def test_rows_may_count_instead_of_time(frame):
    uneven = frame.drop(index=[30, 31, 50, 90, 91, 92, 93, 94])
    forecaster = fit(uneven, step="rows")
    last, refused = push_all(ForecastStream(forecaster.model), uneven)
    assert refused == []
    assert last.origin == frame["date"].iloc[-1]
    assert_predicts(last, forecaster, uneven)


def test_clocks_that_jitter_are_rounded(plain, frame):
    seen = frame[:60].copy()
    seen["date"] = (pd.to_datetime(seen["date"]) + pd.Timedelta("1s")).astype(str)
    last, refused = push_all(ForecastStream(plain.model), seen)
    assert refused == []
    assert_predicts(last, plain, frame[:60])


@pytest.mark.parametrize("known", [False, True])
def test_a_stream_continues_after_a_restart(known, tmp_path):
    frame = hourly()
    forecaster = fit(frame, **({"known": "z", "covariates": "x"} if known else {}))
    whole, first = ForecastStream(forecaster.model), ForecastStream(forecaster.model)
    seen = rows(frame[:90])
    future = [{**row, "y": ""} for row in seen]
    feed = future[:28] if known else []
    for i in range(60):
        present = [] if i in (33, 34) else [seen[i]]  # two are missing
        feed += [*present, *(future[28 + i : 29 + i] if known else [])]
    cut = len(feed) - 20
    expected = [whole.push(row) for row in feed]
    for row in feed[:cut]:
        first.push(row)
    first.save(tmp_path / "state")
    again = ForecastStream(forecaster.model)
    again.load(tmp_path / "state")
    for row, there in zip(feed[cut:], expected[cut:], strict=True):
        here = again.push(row)
        assert (here is None) == (there is None)
        if here is not None:
            assert here.origin == there.origin
            assert here.forecast.point.tolist() == there.forecast.point.tolist()


def test_a_held_row_is_kept_over_a_restart(plain, frame, tmp_path):
    first, seen = ForecastStream(plain.model), rows(frame)
    for row in seen[:30]:
        first.push(row)
    with pytest.raises(InputError, match="it is held"):
        first.push(seen[100])
    first.save(tmp_path / "state")
    again = ForecastStream(plain.model)
    again.load(tmp_path / "state")
    assert again.push(seen[101]).note.endswith("22 are missing.")


def test_a_state_of_another_model_or_a_damaged_one_is_refused(plain, frame, tmp_path):
    stream, path = ForecastStream(plain.model), tmp_path / "state"
    stream.push(rows(frame)[0])
    stream.save(path)
    other = Forecaster(4, window=WINDOW, size=TINY, training=QUICK, seed=1).fit(frame, "y")
    with pytest.raises(InputError, match="belongs to ForecastModel with other weights"):
        ForecastStream(other.model).load(path)
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(InputError, match="is damaged"):
        stream.load(path)
