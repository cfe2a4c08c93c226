"""The integer arithmetic of a calendar against that of pandas."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from longstate.errors import InputError
from longstate.models import Calendar, ForecastSpec
from longstate.models._calendar import seconds
from longstate.models._time_text import read, read_one, shown, texts

OFFSETS = [
    "ns", "250us", "100ms", "s", "15min", "h", "D", "7D", "MS", "2MS", "ME", "QS-FEB", "QE-DEC",
    "YS-APR", "YE-JUN", "BMS", "BME", "BQE-DEC", "BYS-JAN", "B", "WOM-3FRI",
]  # fmt: skip


@pytest.mark.parametrize("freq", OFFSETS)
def test_stamps_are_those_of_pandas(freq):
    times = pd.date_range("2003-03-05", periods=80, freq=freq)
    calendar = Calendar(freq).anchored(times[10:])
    numbers = calendar.index_of(times)
    assert np.diff(numbers).tolist() == [1] * 79
    assert (calendar.at(numbers) == times).all()
    ahead = pd.date_range(times[-1], periods=6, freq=freq)[1:]
    assert (calendar.next(times[-1], 5) == ahead).all()


@pytest.mark.parametrize("freq", ["D", "7D", "MS", "B"])
def test_calendar_steps_keep_the_local_time(freq):
    zone = "Europe/Berlin"
    times = pd.date_range("2024-03-20 09:00", periods=40, freq=freq).tz_localize(zone)
    calendar = Calendar(freq, zone=zone, wall=True).anchored(times)
    assert (calendar.next(times[0], 39) == times[1:]).all()
    assert calendar.at(np.array([calendar.index_of(times[:1])[0]])).tz is not None


def test_hours_are_elapsed_time_also_when_clocks_change():
    times = pd.date_range("2024-10-26 20:00", periods=12, freq="h", tz="Europe/Berlin")
    calendar = Calendar("h", zone="Europe/Berlin").anchored(times)
    assert (calendar.next(times[0], 11) == times[1:]).all()
    assert len(set(times.tz_localize(None))) == 11


def test_a_day_that_a_month_lacks_is_its_last():
    start = pd.Timestamp("2001-01-30")
    times = pd.DatetimeIndex([start + pd.DateOffset(months=i) for i in range(30)])
    calendar = Calendar("MS").anchored(times)
    assert (calendar.next(times[0], 29) == times[1:]).all()


def test_holidays_are_no_working_days():
    holidays = ("2024-12-25", "2024-12-26", "2025-01-01")
    day = pd.offsets.CustomBusinessDay(holidays=list(holidays))
    times = pd.date_range("2024-12-16", periods=20, freq=day)
    calendar = Calendar("B", holidays=holidays, wall=True).anchored(times)
    assert (calendar.next(times[0], 19) == times[1:]).all()
    week = pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed Thu")
    times = pd.date_range("2024-12-15", periods=20, freq=week)
    calendar = Calendar("B", weekdays="1111001", wall=True).anchored(times)
    assert (calendar.next(times[0], 19) == times[1:]).all()


def test_numbers_of_any_size():
    calendar = Calendar("0.1", form="number", anchor="0.0")
    assert calendar.next(0.3, 3).tolist() == [0.4, 0.5, 0.6]
    assert Calendar("10", form="number", anchor="5").next(25, 2).tolist() == [35, 45]


@pytest.mark.parametrize(
    ("off", "fits"), [("1s", True), ("-5min", True), ("7min", False), ("-20min", False)]
)
def test_jitter_is_a_tenth_of_a_step(off, fits):
    times = pd.date_range("2024-01-01", periods=10, freq="h")
    calendar = Calendar("h").anchored(times)
    moved = times + pd.Timedelta(off)
    numbers = calendar.index_of(moved)
    assert numbers.tolist() == calendar.index_of(times).tolist()
    assert calendar.off_grid(moved, numbers).any() != fits


FORMS = {
    "%d/%m/%Y": ["03/04/2024", "13/04/2024"],
    "%Y-%m-%dT%H:%M:%S%z": ["2024-04-03T10:00:00+02:00", "2024-12-03T10:00:00+01:00"],
    "%d.%m.%y %H:%M": ["03.04.24 10:30", "13.04.24 00:00"],
    "%Y-Q%q": ["2024-Q2", "2025-Q1"],
    "%G-W%V": ["2024-W05", "2020-W53"],
    "int %Y": ["1950", "1951"],
    "int %Y%m%d": ["20240403", "20241231"],
    "unix s": ["1700000000", "1700003600"],
    "unix ms": ["1700000000000", "1700003600123"],
    "period M": ["2024-04", "2024-12"],
    "dates": ["2024-04-03 10:00:00", "2024-12-31 00:00:00.250000"],
}


@pytest.mark.parametrize("form", FORMS)
def test_times_are_written_as_they_were_read(form):
    zone = "Europe/Berlin" if "%z" in form else None
    calendar = Calendar("D", form=form, zone=zone, wall=True)
    stamps = read(calendar, pd.Series(FORMS[form]))
    assert texts(calendar, stamps) == FORMS[form]


@pytest.mark.parametrize(
    ("step", "form", "zone", "expected"),
    [
        ("D", "dates", None, "2024-01-31"),
        ("ME", "mixed", None, "2024-01-31"),
        ("B", "unix s", None, "2024-01-31"),
        ("rows", "%d.%m.%Y", None, "2024-01-31"),
        ("h", "dates", None, "2024-01-31 00:00:00"),
        ("stamps", "%Y-%m-%d %H:%M", None, "2024-01-31 00:00:00"),
        ("D", "%Y-%m-%dT%H:%M:%S%z", "Europe/Berlin", "2024-01-31 00:00:00+01:00"),
    ],
)
def test_messages_show_dates_alone_where_times_are_days(step, form, zone, expected):
    usual = 3600.0 if step == "stamps" else None
    calendar = Calendar(step, form=form, zone=zone, usual=usual)
    stamp = pd.Timestamp("2024-01-31", tz=zone)
    assert shown(calendar, stamp) == expected
    assert calendar.untext(expected) == stamp
    assert shown(calendar, stamp + pd.Timedelta("2h")).startswith("2024-01-31 02:00:00")


def test_the_saved_form_decides_and_iso_is_always_read():
    calendar = Calendar("D", form="%d/%m/%Y")
    assert read_one(calendar, "03/04/2024") == pd.Timestamp("2024-04-03")
    assert read_one(calendar, "2024-04-03") == pd.Timestamp("2024-04-03")
    assert read_one(calendar, "04/13/2024") is None
    assert read_one(calendar, "x" * 3_000_000) is None


def test_the_second_of_an_hour_that_comes_twice():
    calendar = Calendar("h", form="%Y-%m-%d %H:%M", zone="Europe/Berlin")
    first = read_one(calendar, "2024-10-27 02:00", pd.Timestamp("2024-10-26 23:00", tz="UTC"))
    assert first == pd.Timestamp("2024-10-27 00:00", tz="UTC")
    assert read_one(calendar, "2024-10-27 02:00", first) == pd.Timestamp("2024-10-27 01:00Z")


def test_models_load_no_pandas():
    code = "import sys, torch; sys.modules.setdefault('pandas', None); import longstate.models"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_calendar_is_plain_data():
    calendar = Calendar("B", "%d/%m/%Y", "Europe/Paris", "2024-01-02", True, ("2024-05-01",))
    spec = ForecastSpec(("y",), (), (), "t", calendar, ("week",), 8, 3, 5, (0.5,), lower=0.0)
    assert ForecastSpec.of(json.loads(json.dumps(dataclasses.asdict(spec)))) == spec


def test_runs_whose_step_stood_alone():
    raw = {
        "targets": ["y"], "covariates": [], "known": [], "time": "t", "step": "QS-OCT",
        "calendar": ["year"], "window": 8, "horizon": 3, "season": 4, "quantiles": [0.1, 0.9],
    }  # fmt: skip
    spec = ForecastSpec.of(raw)
    assert (spec.calendar.step, spec.calendar.zone, spec.cycles) == ("QS-OCT", None, ("year",))
    assert spec.times == "t, every quarter"
    assert ForecastSpec.of({**raw, "step": None, "time": None}).calendar is None


@pytest.mark.parametrize(
    ("step", "words", "length"),
    [
        ("h", "hour", 3600),
        ("36h", "36 hours", 36 * 3600),
        ("90s", "90 seconds", 90),
        ("D", "day", 86400),
        ("7D", "week", 7 * 86400),
        ("QS-OCT", "quarter", 365.2425 * 86400 / 4),
        ("2YE", "2 years, at its end", 2 * 365.2425 * 86400),
        ("B", "working day", 120960),
        ("250us", "250 microseconds", 250e-6),
        ("30T", "30 minutes", 1800),  # names of pandas before 2.2
        ("M", "month, at its end", 365.2425 * 86400 / 12),
        ("AS-JAN", "year", 365.2425 * 86400),
    ],
)
def test_words_and_length(step, words, length):
    assert Calendar(step).words == words
    assert seconds(Calendar(step)) == length


@pytest.mark.parametrize("step", ["hourly", "-1h", "0h", ""])
def test_refuses_an_unknown_step(step):
    with pytest.raises(InputError, match="is not known; give a pandas offset such as h"):
        assert Calendar(step).words


@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Africa/Cairo", "America/Havana"])
def test_days_without_a_midnight_are_written(zone):
    """Clocks change at midnight there: pandas cannot `normalize` such days."""
    noons = pd.date_range("2009-01-01 12:00", "2018-12-31 12:00", freq="D", tz=zone)
    assert texts(Calendar("D", "dates", zone), noons) == [str(noon) for noon in noons]


def test_offsets_with_seconds():
    stamp = pd.Timestamp("1700-01-01", tz="America/New_York")
    calendar = Calendar("D", zone="America/New_York")
    assert calendar.untext(calendar.text(stamp)) == stamp


@pytest.mark.parametrize("freq", ["W", "W-WED", "Q-NOV"])
def test_periods_are_read_as_they_are_written(freq):
    periods = pd.period_range("2000-01-01", periods=9, freq=freq)
    calendar = Calendar("D", f"period {freq}")
    assert list(read(calendar, pd.Series(periods.astype(str)))) == list(periods.to_timestamp())
