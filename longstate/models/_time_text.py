"""Read times in the format that training found, and write them in the same format."""

import re
import warnings
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd

from longstate.errors import InputError, expect
from longstate.models._calendar import Calendar, seconds
from longstate.models._zones import localize, naive

MIDNIGHT = " 00:00:00"
LONGEST = 100  # characters; no date is longer, and parsing much longer text is very slow
OFFSET = r":\d\d.*(?:Z|[+-]\d\d(?::?\d\d)?)$"
OFFSET_WITH_SECONDS = r"^(.*:\d\d.*([+-])\d\d:\d\d):(\d\d(?:\.\d+)?)$"
QUARTER = r"^(\d{4})([-/ ]?)[qQ]([1-4])$"
QUARTER_FIRST = r"^[qQ]([1-4])([-/ ]?)(\d{4})$"
WEEK = "%G-W%V"


def read(calendar: Calendar, values: pd.Series) -> pd.Index:
    """The stamps of a column, in the calendar's zone; NaT or nan for unreadable values."""
    if not calendar.dated:
        numbers = pd.to_numeric(values, errors="coerce")
        whole = bool((numbers == np.floor(numbers)).all())
        return pd.Index(numbers.astype(np.int64) if whole else numbers.astype(np.float64))
    return settle(_read(calendar.form, values), calendar.zone)


def read_one(calendar: Calendar, text: str, after: Any = None) -> Any:
    """One stamp, or None. A local time that occurs twice in autumn is the second one if the first
    one is not later than `after`."""
    stamp = _quick(calendar, text)
    if stamp is None:
        stamp = read(calendar, pd.Series([text]))[0]
    if pd.isna(stamp):
        return None
    if after is None or calendar.zone is None or stamp > after:
        return stamp
    local = _read(calendar.form, pd.Series([text]))
    if local.tz is not None:
        return stamp
    again = localize(local, calendar.zone, second=True)[0]
    return again if again > after else stamp


def _quick(calendar: Calendar, text: str) -> pd.Timestamp | None:
    """A fast path for a date in exactly the format of training; None for all others."""
    if not calendar.form.startswith("%") or len(text) > LONGEST:
        return None
    try:
        stamp = pd.Timestamp(datetime.strptime(text.strip(), calendar.form))
        if stamp.tz is not None:
            return settle(pd.DatetimeIndex([stamp]), calendar.zone)[0]
        return stamp if calendar.zone is None else stamp.tz_localize(calendar.zone)
    except Exception:  # another format, or an ambiguous or skipped hour: pytz raises its own errors
        return None


def _read(form: str, values: pd.Series) -> pd.DatetimeIndex:
    """Time-zone aware if the values have an offset, naive otherwise."""
    dtype = values.dtype
    if isinstance(dtype, pd.PeriodDtype):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of periods of one working day
            return pd.DatetimeIndex(values.dt.to_timestamp())
    if isinstance(dtype, pd.DatetimeTZDtype) or pd.api.types.is_datetime64_dtype(dtype):
        return pd.DatetimeIndex(values)
    if form.startswith("unix "):
        numbers = pd.to_numeric(values, errors="coerce")
        unit: Any = form.removeprefix("unix ")
        return pd.DatetimeIndex(pd.to_datetime(numbers, unit=unit, errors="coerce"))
    if form.startswith("int "):
        numbers = pd.to_numeric(values, errors="coerce")
        text = numbers.astype("Int64").astype("string")
        return _parse(text, form.removeprefix("int "), False)
    text = values.astype("string").str.strip()
    text = text.mask(text.str.len() > LONGEST)
    return read_text(form, text)


def read_text(form: str, text: pd.Series) -> pd.DatetimeIndex:
    """`form` is a `strptime` format, "dates" or "mixed". ISO dates are always read."""
    whole = text.str.extract(OFFSET_WITH_SECONDS)
    if whole[0].notna().any():  # which pandas does not read
        rest = pd.to_numeric(whole[1] + whole[2]).fillna(0).to_numpy()
        return read_text(form, whole[0].fillna(text)) - pd.to_timedelta(rest, unit="s")
    aware = bool(text.str.contains(OFFSET, regex=True).any())
    if form.startswith("period "):
        stamps = _periods(form.removeprefix("period "), text)
        if stamps is not None:
            return stamps
        form = "mixed"
    if form in ("dates", "mixed"):
        stamps = _parse(text, "ISO8601", aware)
        return _parse(text, "mixed", aware) if stamps.isna().any() and form == "mixed" else stamps
    stamps = _parse(text, form, aware)
    return _parse(text, "ISO8601", aware) if stamps.isna().all() or _some(stamps, form) else stamps


def _periods(frequency: str, text: pd.Series) -> pd.DatetimeIndex | None:
    """The first days of periods such as 2000Q1 or 1999-12-27/2000-01-02; None if one is no such."""
    try:
        return pd.PeriodIndex(text, freq=frequency).to_timestamp().rename(None)
    except (ValueError, TypeError):
        return None


def _some(stamps: pd.DatetimeIndex, form: str) -> bool:
    """Whether only some rows were read: ISO 8601 has several forms, such as days without hours."""
    return form.startswith("%Y-%m-%d") and bool(stamps.isna().any())


def _parse(text: pd.Series, form: str, aware: bool) -> pd.DatetimeIndex:
    if "%q" in form:
        first = form.startswith("Q")
        found = text.str.extract(QUARTER_FIRST if first else QUARTER)
        year, quarter = found[2 if first else 0], pd.to_numeric(found[0 if first else 2])
        text = year + "-" + (3 * quarter - 2).astype("Int64").astype("string")
        form = "%Y-%m"
    elif form == WEEK:
        text, form = text + "-1", WEEK + "-%u"
    stamps = pd.DatetimeIndex(pd.to_datetime(text, format=form, errors="coerce", utc=True))
    return stamps if aware else stamps.tz_localize(None)


def settle(stamps: pd.DatetimeIndex, zone: str | None) -> pd.DatetimeIndex:
    """Stamps in `zone`. Without a zone: unchanged, or in UTC if they have an offset."""
    if stamps.tz is not None:
        return (
            stamps.tz_convert("UTC").tz_localize(None) if zone is None else stamps.tz_convert(zone)
        )
    if zone is None:
        return stamps
    try:  # the order of the rows decides which of the two equal hours in autumn is meant
        return localize(stamps, zone, infer=True)
    except Exception:  # nothing to infer from: pandas 2 raises pytz's own errors
        return localize(stamps, zone)


def passed(times: pd.Index) -> np.ndarray:
    """The time since the first of `times`: in seconds for dates, else in their own unit."""
    found = times - times[0]
    seconds = found.total_seconds() if isinstance(found, pd.TimedeltaIndex) else found
    return np.asarray(seconds, dtype=np.float64)


def present(calendar: Calendar, stamps: Any) -> Any:
    """Stamps as values in the format of the data."""
    form = calendar.form
    if form.startswith("unix "):
        unit: Any = form.removeprefix("unix ")
        return (stamps - pd.Timestamp(0, tz=stamps.tz)) // pd.Timedelta(1, unit)
    if form.startswith("int "):
        return stamps.strftime(form.removeprefix("int ")).astype(np.int64)
    if form.startswith("period "):
        return stamps.to_period(form.removeprefix("period "))
    return stamps


def texts(calendar: Calendar, stamps: Any) -> list[str]:
    """Stamps as text in the format of the data."""
    values, form = present(calendar, stamps), calendar.form
    if "%q" in form:
        return list(stamps.to_period("Q").strftime(form))
    if "%" not in form or form.startswith("int ") or calendar.unit == "ns":
        whole = calendar.dated and values is stamps and _at_midnight(stamps)
        return [str(v)[:10] if whole else str(v) for v in values]
    return [_strftime(stamp, form) for stamp in stamps]


def shown(calendar: Calendar, stamp: Any) -> str:
    """A stamp for messages, which `Calendar.untext` reads: a date alone where times are of days or
    longer, by their format or their step."""
    text = calendar.text(stamp)
    if not (calendar.dated and text.endswith(MIDNIGHT)):
        return text
    dates = "%" in calendar.form and not re.search("%[HIcXsf]", calendar.form)
    days = (seconds(calendar) or 0) >= 86400
    return text.removesuffix(MIDNIGHT) if dates or days else text


def _at_midnight(stamps: pd.DatetimeIndex) -> bool:
    """Whether all are at local midnight. `stamps.normalize()` fails on days without a midnight."""
    local = naive(stamps, True)
    return bool((local == local.normalize()).all())


def _strftime(stamp: pd.Timestamp, form: str) -> str:
    offset = stamp.strftime("%z")
    if "%z" in form and offset:  # +01:00 and not +0100
        parts = offset[:3], offset[3:5], offset[5:]
        form = form.replace("%z", ":".join(filter(None, parts)))
    return stamp.strftime(form)


def check_calendar(calendar: Calendar) -> None:
    """Refuse a calendar from a file that no series can have.

    Raises:
        InputError: names what is wrong.
    """
    stamp = pd.Timestamp(0) if calendar.dated else 0
    try:
        days = np.busdaycalendar(calendar.weekdays, np.array(calendar.holidays, "M8[D]"))
        expect(len(days.weekmask) == 7 and bool(days.weekmask.any()), "no day is worked")
        if calendar.zone is not None:
            stamp = pd.Timestamp(0, tz=calendar.zone)
        if calendar.even:
            calendar.anchored(pd.Index([stamp])).index_of(pd.Index([stamp]))
        elif calendar.anchor is not None:
            calendar.untext(calendar.anchor)
        good = calendar.usual is not None and 0 < calendar.usual < np.inf
        expect(good == calendar.irregular, f"usual is {calendar.usual} at step {calendar.step!r}")
    except (ValueError, TypeError, LookupError, ArithmeticError, OSError) as e:
        raise InputError(f"the calendar is wrong: {e}") from None
