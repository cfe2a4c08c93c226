"""Times as users write them, and steps that meet a change of clocks. The oracle is pandas."""

import numpy as np
import pandas as pd
import pytest

from longstate.errors import InputError
from longstate.models._time_text import read_one, texts
from tests.train.test_calendar import ahead, table


@pytest.mark.parametrize("freq", ["2h", "6h", "12h"])
@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Europe/Berlin"])
def test_steps_that_meet_a_skipped_hour(freq, zone):
    """The next valid time stands for the skipped one, as in pandas."""
    local = pd.date_range("2018-01-20", "2018-12-20", freq=freq)
    times = local.tz_localize(
        zone, ambiguous=np.ones(len(local), bool), nonexistent="shift_forward"
    )
    made = table(times[:-3])
    assert made.rows == len(times) - 3
    assert list(ahead(made)) == list(times[-3:])


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y"])
def test_firsts_of_months_in_either_order(form):
    months = pd.date_range("2005-01-01", periods=60, freq="MS")
    assert list(ahead(table(months[:-3].strftime(form)))) == list(months[-3:])


@pytest.mark.parametrize("form", ["%m/%Y", "%m.%Y", "Q%q %Y", "Q%q-%Y"])
def test_months_and_quarters_are_written_as_they_were_read(form):
    periods = pd.period_range("2005-01", periods=60, freq="Q" if "%q" in form else "M")
    written = list(periods.strftime(form))
    made = table(written[:-3])
    assert texts(made.calendar, made.times_ahead(3)[-3:]) == written[-3:]


def test_weeks_in_text():
    weeks = pd.period_range("2000-01-01", periods=30, freq="W-WED")
    made = table(weeks[:-3].astype(str))
    assert texts(made.calendar, made.times_ahead(3)[-3:]) == list(weeks[-3:].astype(str))


def test_the_row_that_does_not_fit_a_given_step_is_named():
    days = pd.bdate_range("2021-01-04", periods=50).append(pd.DatetimeIndex(["2021-02-06"]))
    with pytest.raises(InputError, match=r"2021-02-06.* does not fit its step \(every working day"):
        table(days.sort_values(), step="B")


HOURS = pd.date_range("2024-03-01", periods=203, freq="h")
DAY_FIRST = [
    "%d/%m/%YT%H:%M:%S",
    "%d/%m/%Y, %H:%M:%S",
    "%d/%m/%Y - %H:%M",
    "%d/%m/%Y %I:%M%p",
    "%d.%m.%Y %H:%M Uhr",
    "%d/%m/%Y %H:%M:%S UTC",
    "%d/%m/%Y %H:%M:%SZ",
    "%d/%m/%Y %Hh%M",
    "%d/%m/%Y %H",
    "%d%m%Y %H:%M",
    "%a %d/%m/%Y %H:%M",
    "%a, %d %b %Y %H:%M:%S GMT",
    "%d-%b-%y %I:%M %p",
    "%H:%M %d/%m/%y",
    "%d %B %Y %I:%M:%S %p",
    "%y/%m/%d %H:%M",
]


@pytest.mark.parametrize("form", DAY_FIRST)
def test_dates_are_read_and_written_in_their_own_form(form):
    written = list(HOURS.strftime(form))
    made = table(written[:200])
    assert list(made.times.tz_localize(None)) == list(HOURS[:200])
    assert texts(made.calendar, made.times_ahead(3)[-3:]) == written[200:]
    for stamp, text in zip(HOURS, written, strict=True):  # as a stream reads them, row by row
        assert read_one(made.calendar, text).tz_localize(None) == stamp


@pytest.mark.parametrize("form", ["%d/%m/%Y %H.%M", "%d/%m/%Y %I:%M a.m."])
def test_the_order_of_day_and_month_is_never_guessed_row_by_row(form):
    with pytest.raises(InputError, match="whose format is not known; write dates as 2024-01-31"):
        table(HOURS.strftime(form))


@pytest.mark.parametrize("form", ["%Y%m%d%H%M", "%Y%m%d%H%M%S"])
def test_minutes_and_seconds_in_one_whole_number(form):
    minutes = pd.date_range("1999-12-31 22:00", periods=203, freq="min")
    whole = minutes.strftime(form).astype(int)
    for values in (whole, whole.astype(str), whole.astype(float)):
        made = table(values[:200])
        assert made.calendar.words == "minute"
        assert list(ahead(made)) == list(minutes[200:])


def test_numbers_in_text_are_numbers():
    assert ahead(table([f"{i / 10:.1f}" for i in range(60)])) == [6.0, 6.1, 6.2]
    assert ahead(table([f"{1.7e9 + i / 2:.1f}" for i in range(60)]))[0] == 1.7e9 + 30
    thirds = table([f"{i / 3:.6f}" for i in range(3000)])  # the step of 0.333333 is off by a step
    assert thirds.rows == 3000


@pytest.mark.parametrize(
    ("freq", "late", "unit"),
    [("h", 200, "s"), ("min", 5, "s"), ("D", 45, "min"), ("MS", 5, "s"), ("ME", 50, "min"),
     ("QS", 1, "s"), ("B", 20, "min")],
)  # fmt: skip
def test_clocks_that_are_early_and_late(freq, late, unit):
    """The first row is early by the most, the second late; days are those of the round times."""
    whole = pd.date_range("2024-03-01", periods=63, freq=freq)
    off = np.random.default_rng(0).integers(-late, late + 1, 60)
    off[:2] = -late, late
    made = table(whole[:60] + pd.to_timedelta(off, unit=unit))
    assert list(made.times) == list(whole[:60])
    assert list(ahead(made)) == list(whole[60:])


def test_a_clock_that_is_only_late_is_rounded_down():
    whole = pd.date_range("2024-03-01 09:00", periods=63, freq="D")
    late = np.random.default_rng(0).integers(1, 30, 60)
    made = table(whole[:60] + pd.to_timedelta(late, unit="s"))
    assert list(ahead(made)) == list(whole[60:])


def test_the_rounded_time_lies_within_the_jitter():
    whole = pd.date_range("2024-03-01 00:07:00", periods=63, freq="D")
    off = np.random.default_rng(0).integers(-300, 301, 60)
    assert list(ahead(table(whole[:60] + pd.to_timedelta(off, unit="s")))) == list(whole[60:])


def test_months_from_the_29th_without_a_rule_are_refused_as_uneven():
    """Not every month has a fifth Wednesday, so there is no step by its number."""
    stamps = pd.date_range("2024-01-31", periods=8, freq="ME") + pd.to_timedelta(
        [0, 5, -5, 7, -7, 2, 0, 9], unit="h"
    )
    with pytest.raises(InputError, match=r"uneven: line . .*does not fit the usual step"):
        table(stamps)


SKIPPED = [("Pacific/Apia", "2011-12-30"), ("Pacific/Kiritimati", "1994-12-31")]


def without(day, freq, count=63):
    """Local times around a day that there was not, made without a time zone."""
    local = pd.date_range(pd.Timestamp(day) - 40 * pd.tseries.frequencies.to_offset(freq),
                          periods=count + 24, freq=freq)  # fmt: skip
    return local[local.strftime("%Y-%m-%d") != day][:count]


@pytest.mark.parametrize("freq", ["D", "12h", "6h", "2h"])
@pytest.mark.parametrize(("zone", "day"), SKIPPED)
def test_a_day_that_there_was_not(zone, day, freq):
    local = without(day, freq)
    times = local.tz_localize(zone)
    assert day not in times.strftime("%Y-%m-%d")
    for end in (38, 41, 60):  # the day comes in the forecast, at its beginning, in training
        for made in (table(times[:end]), table(local[:end].astype(str), zone=zone)):
            assert list(made.times) == list(times[:end])
            assert list(ahead(made)) == list(times[end : end + 3])
            assert texts(made.calendar, times[end:]) == texts(
                made.calendar, ahead_index(made, 63 - end)
            )
            read = [read_one(made.calendar, str(t), times[0]) for t in local]
            assert read == list(times)


def ahead_index(made, n):
    return made.times_ahead(n)[-n:]


def test_a_week_whose_day_there_was_not_is_the_next_day():
    weeks = pd.date_range("2010-11-05", periods=60, freq="7D", tz="Pacific/Apia")
    made = table(weeks[:58].strftime("%Y-%m-%d"), zone="Pacific/Apia")
    expected = ["2011-12-16", "2011-12-23", "2011-12-31", "2012-01-06"]
    assert texts(made.calendar, ahead_index(made, 4)) == expected


@pytest.mark.parametrize(
    ("zone", "start", "offset"),
    [("Asia/Kolkata", "1850-01-01", "+05:53:28"), ("Europe/Amsterdam", "1936-01-01", "+00:19:32"),
     ("Africa/Monrovia", "1960-01-01", "-00:44:30")],
)  # fmt: skip
def test_offsets_with_seconds_are_read_and_written(zone, start, offset):
    times = pd.date_range(start, periods=63, freq="D", tz=zone)
    written = [f"{t.strftime('%Y-%m-%d %H:%M:%S')}{offset}" for t in times]
    assert written == [str(t) for t in times]
    made = table(written[:60])
    assert list(made.times.tz_convert("UTC")) == list(times[:60].tz_convert("UTC"))
    assert texts(made.calendar, ahead_index(made, 3)) == written[60:]
    assert [read_one(made.calendar, text) for text in written] == list(made.times_ahead(3))
    assert f"The offset {offset} fits the time zone" in made.notes[0]
    other = table(times[:60].strftime("%Y-%m-%d %H:%M:%S"), zone="UTC").calendar
    assert [read_one(other, text) for text in written] == list(times)
