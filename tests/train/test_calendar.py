"""The calendar that training finds. What comes next is pandas' or written by hand."""

import re
import warnings

import numpy as np
import pandas as pd
import pytest

from longstate.errors import InputError
from longstate.models import Calendar
from longstate.train._table import Columns, make_table
from longstate.train._time_step import Timing, missing_days

Y = Columns(("y",), time="t")


def table(times, calendar=None, **said):
    frame = pd.DataFrame({"t": times})
    frame["y"] = np.arange(float(len(frame)))
    return make_table(frame, Y, calendar=calendar, timing=Timing(**said))


def ahead(table, n=3):
    return list(table.times_ahead(n)[-n:])


def days(start, periods, freq="D", **options):
    return pd.date_range(start, periods=periods, freq=freq, **options)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("zone", ["Europe/Berlin", "America/New_York"])
@pytest.mark.parametrize("freq", ["D", "7D", "MS", "ME", "QS", "B"])
def test_calendar_steps_across_a_change_of_clocks(freq, zone, text):
    whole = days("2023-10-01 06:00", 43, freq).tz_localize(zone)
    times = whole[:40].to_series(index=range(40))
    found = table(times.astype(str) if text else times)
    assert found.rows == 40
    assert ahead(found) == list(whole[40:])
    assert [t.utcoffset() for t in ahead(found)] == [t.utcoffset() for t in whole[40:]]


def test_the_hour_that_comes_twice():
    whole = days("2024-10-26 12:00", 60, "h", tz="Europe/Berlin")
    assert ahead(table(whole[:57])) == list(whole[57:])
    naive = whole.tz_localize(None)
    with pytest.raises(InputError, match=r"line 17 .* repeats .*zone \(--zone\) names the time"):
        table(naive[:57])
    found = table(naive[:57], zone="Europe/Berlin")
    assert found.rows == 57
    assert ahead(found) == list(whole[57:])


def test_several_rows_per_day_in_local_time():
    whole = days("2024-03-29", 23, "6h").tz_localize("Europe/Berlin")
    assert ahead(table(whole[:20])) == list(whole[20:])


def test_offsets_that_fit_no_zone_become_utc_with_a_note():
    found = table(["2024-06-01 00:00+01:30", "2024-06-02 03:45+05:15", "2024-06-03 00:00+01:30"])
    assert found.calendar.zone == "UTC"
    assert "fit no time zone" in found.notes[0]


FIXED = [f"{year}-{day}" for year in range(2019, 2025) for day in ("01-01", "07-04", "12-25")]
HOLIDAYS = [*FIXED, "2022-04-15", "2023-04-07", "2024-03-29"]


def trading(last="2024-12-24"):
    every = pd.bdate_range("2019-01-02", last)
    return every[~every.isin(pd.to_datetime(HOLIDAYS))]


def test_trading_days_without_weekends_have_no_gaps():
    found = table(trading())
    assert found.rows == len(trading())
    assert found.observed.all()
    holidays = [*FIXED, "2024-12-25", "2025-01-01"]
    expected = days("2024-12-26", 8, pd.offsets.CustomBusinessDay(holidays=holidays))
    assert ahead(found, 8) == list(expected)
    assert "working days without a row (2019-07-04, 2019-12-25, 2020-01-01" in found.notes[0]
    assert (
        found.notes[1] == "Holidays that came every year are expected again: 01-01, 07-04, 12-25."
    )


def test_other_weekends_are_found():
    week = pd.offsets.CustomBusinessDay(weekmask="Sun Mon Tue Wed Thu")
    whole = days("2024-01-01", 63, week)
    found = table(whole[:60])
    assert (found.rows, found.calendar.words) == (60, "working day")
    assert ahead(found) == list(whole[60:])


def test_later_data_has_holidays_of_its_own():
    calendar = table(trading()).calendar
    later = days("2025-03-03", 60, "B").delete([10, 30, 31])
    found = table(later, calendar)
    assert found.observed.all()
    assert "3 working days without a row (2025-03-17" in found.notes[0]
    hole = days("2025-03-03", 60, "B").delete(range(20, 30))  # two weeks are no holiday
    assert (~table(hole, calendar).observed).sum() == 10


def test_holidays_that_are_given_and_a_hole_is_a_gap():
    times = trading().delete(100)
    found = table(times, holidays=(*HOLIDAYS, "2024-12-26"))
    assert np.flatnonzero(~found.observed[:, 0]).tolist() == [100]
    assert ahead(found, 1) == [pd.Timestamp("2024-12-27")]
    with pytest.raises(InputError, match=r"a holiday must be a date .*; got 'soon'"):
        table(times, holidays=("soon",))


def test_rows_may_count_instead_of_time():
    times = trading()
    found = table(times, step="rows")
    assert found.rows == len(times)
    assert found.times_ahead(1) is None
    assert found.label(3) == str(times[3])
    assert found.label(len(times) + 1) == str(len(times) + 1)


@pytest.mark.parametrize("freq", ["MS", "ME", "2MS", "QS-FEB", "QE-DEC", "YS-JAN", "YE-DEC", "BME"])
def test_a_missing_month_quarter_or_year_is_a_gap(freq):
    whole = days("2001-01-01", 33, freq)
    found = table(whole[:30].delete(11))
    assert np.flatnonzero(~found.observed[:, 0]).tolist() == [11]
    assert ahead(found) == list(whole[30:])


@pytest.mark.parametrize("day", [15, 29, 31])
def test_months_may_begin_on_any_day(day):
    start = pd.Timestamp(2001, 1, day)
    whole = [start + pd.DateOffset(months=i) for i in range(33)]
    assert ahead(table(whole[:30])) == whole[30:]


@pytest.mark.parametrize(
    ("freq", "short"), [("MS", 3), ("MS", 1), ("B", 5), ("B", 2), ("7D", 2), ("h", 1)]
)
def test_a_short_frame_of_a_known_step(freq, short):
    whole = days("2001-01-01", 80, freq)
    found = table(whole[60 : 60 + short], table(whole[:50]).calendar)
    assert ahead(found) == list(whole[60 + short : 63 + short])


@pytest.mark.parametrize(
    ("freq", "jitter"), [("min", 1000), ("h", 900), ("100ms", 3), ("D", 59999)]
)
def test_clocks_that_jitter(freq, jitter):
    whole = days("2024-01-01", 203, freq)
    draw = np.random.default_rng(0).integers(-jitter, jitter + 1, 200)
    found = table(whole[:200] + pd.to_timedelta(draw, unit="ms"))
    assert list(found.times) == list(whole[:200])
    assert ahead(found) == list(whole[200:])
    assert "times lie beside their step" in found.notes[0]
    assert "they were rounded to it" in found.notes[0]


def test_one_late_row_does_not_move_the_others():
    times = days("2024-01-01", 50, "h").to_series().reset_index(drop=True)
    times[20] += pd.Timedelta("1s")
    found = table(times)
    assert list(found.times) == list(days("2024-01-01", 50, "h"))
    assert found.notes == (
        "1 times lie beside their step (every hour) by at most 1 seconds; they were rounded to it.",
    )


@pytest.mark.parametrize("row", [500, 999])
def test_a_mistyped_year_is_named_without_large_memory(row):
    times = days("2024-01-01", 1000, "s").to_series().reset_index(drop=True)
    times[row:] = times[row:] + pd.DateOffset(years=75)
    with pytest.raises(InputError, match=f"most before line {row + 2} .2099-01-01 00:") as error:
        table(times)
    assert "every second" in str(error.value)
    assert "--step rows" in str(error.value)


@pytest.mark.parametrize("freq", ["us", "250us", "ns", "7ns"])
def test_steps_below_a_millisecond(freq):
    whole = days("2024-01-01", 53, freq)
    found = table(whole[:50])
    assert ahead(found) == list(whole[50:])
    other = table(whole[:50] + (whole[1] - whole[0]))
    assert "ns" not in str(other.calendar.words)


DAY_FIRST = {
    "long": (days("2024-01-20", 43), "%d/%m/%Y"),
    "days that could be months": (days("2024-03-01", 12, "h"), "%d/%m/%Y %H:%M"),
    "only one way is even": (days("2024-03-01", 11), "%d/%m/%Y"),
    "two digits": (days("2024-01-20", 43), "%d-%m-%y"),
    "dots": (days("2024-03-01", 12), "%d.%m.%Y"),
    "half days": (days("2024-01-20", 43, "12h"), "%d/%m/%Y %I:%M %p"),
}


@pytest.mark.parametrize("case", DAY_FIRST)
def test_the_day_may_come_first(case):
    times, form = DAY_FIRST[case]
    found = table(times.strftime(form))
    if "could" in case:  # both are even: month first, and said
        assert found.calendar.form == "%m/%d/%Y %H:%M"
        assert "every row could also be day/month" in found.notes[0]
        return
    assert found.calendar.form == form
    assert list(found.times) == list(times)


def test_the_form_of_training_reads_every_later_frame():
    calendar = table(days("2024-01-20", 43).strftime("%d/%m/%Y")).calendar
    found = table(["03/04/2024", "04/04/2024"], calendar)
    assert ahead(found, 2) == [pd.Timestamp("2024-04-05"), pd.Timestamp("2024-04-06")]
    with pytest.raises(InputError, match=r"'04/13/2024' in line 3; a date such as 20/01/2024"):
        table(["04/12/2024", "04/13/2024"], calendar)


UNITS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}


@pytest.mark.parametrize("unit", UNITS)
def test_numbers_since_1970(unit):
    whole = days("2024-01-01", 33, "15min").as_unit("ns").asi8 // UNITS[unit]
    found = table(whole[:30])
    assert found.calendar.words == "15 minutes"
    assert [t.value // UNITS[unit] for t in ahead(found)] == whole[30:].tolist()


NUMBERS = {
    "years": (np.arange(1950, 1990), [1990, 1991, 1992], "year"),
    "every 5 years": (np.arange(1800, 1990, 5), [1990, 1995, 2000], "5 years"),
    "a missing year": (np.delete(np.arange(1950, 1990), 7), [1990, 1991, 1992], "year"),
    "days": (days("2024-01-20", 20).strftime("%Y%m%d").astype(int), None, "day"),
    "months": (days("2024-01-20", 20, "MS").strftime("%Y%m").astype(int), None, "month"),
    "steps": (np.arange(0, 300, 10), [300, 310, 320], "10"),
    "seconds": (np.arange(30) / 10, [3.0, 3.1, 3.2], "0.1"),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_times_that_are_numbers(case):
    values, expected, words = NUMBERS[case]
    found = table(values)
    assert found.calendar.words == words
    if case.startswith(("years", "every", "a miss")):
        assert [t.year for t in ahead(found)] == expected
    elif expected is not None:
        assert ahead(found) == expected


@pytest.mark.parametrize("freq", ["M", "Q-DEC", "D", "h", "Y-DEC"])
def test_periods(freq):
    whole = pd.period_range("2001-01-01", periods=33, freq=freq)
    found = table(whole[:30])
    assert found.rows == 30
    assert list(found.times_ahead(3)[-3:].to_period(freq)) == list(whole[30:])


@pytest.mark.filterwarnings("error")
def test_periods_of_one_working_day():
    with warnings.catch_warnings(action="ignore"):
        whole = pd.period_range("2001-01-01", periods=33, freq="B")
    found = table(whole[:30])
    assert found.calendar.words == "working day"
    assert ahead(found) == list(days("2001-01-01", 33, "B")[-3:])


def test_empty_rows_of_a_file_are_no_rows():
    times = days("2024-01-01", 20).astype(str).to_series().reset_index(drop=True)
    frame = pd.DataFrame({"t": times, "y": np.arange(20.0)})
    blank = pd.DataFrame({"t": [None] * 3, "y": [np.nan] * 3})
    found = make_table(pd.concat([blank, frame, blank], ignore_index=True), Y)
    assert (found.rows, found.label(0)) == (20, "2024-01-01")


def test_no_message_mentions_nanoseconds():
    with pytest.raises(InputError) as error:
        table(["2024-01-01", "2024-01-02 05:00", "2024-01-04 07:00:01", "2024-01-09"])
    assert "nano" not in str(error.value)
    assert not re.search(r"\dns", str(error.value))


@pytest.mark.parametrize(("absent", "found"), [(1, 1), (7, 7), (8, 0)])
def test_more_than_seven_working_days_in_a_row_are_no_holidays(absent, found):
    stamps = pd.bdate_range("2024-01-01", periods=60)
    calendar = Calendar("B", wall=True).anchored(stamps)
    left = stamps.delete(range(20, 20 + absent))
    assert missing_days(calendar, left).tolist() == [d.date() for d in stamps[20 : 20 + found]]
