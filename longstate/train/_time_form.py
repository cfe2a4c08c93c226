"""Find the format of the times in a column, from all rows."""

import warnings
import zoneinfo
from typing import NamedTuple

import numpy as np
import pandas as pd

from longstate.models._time_text import (
    LONGEST,
    OFFSET,
    QUARTER,
    QUARTER_FIRST,
    WEEK,
    read_text,
)

# Unit of a number since 1970, such that the time is between 1973 and 2286.
UNIX = {"s": 1e8, "ms": 1e11, "us": 1e14, "ns": 1e17}
WHOLE = {"%Y": (1500, 2200), "%Y%m": (150001, 220012), "%Y%m%d": (15000101, 22001231)}
HOURS = (1900010100, 2100010100)
NUMERIC = r"^(\d{1,2})([/.\-])(\d{1,2})\2(\d{4}|\d{2})(.*)$"
CLOCKS = {
    "": r"", " %H:%M": r" \d{1,2}:\d\d", " %H:%M:%S": r" \d{1,2}:\d\d:\d\d",
    " %H:%M:%S.%f": r" \d{1,2}:\d\d:\d\d\.\d+", " %I:%M %p": r" \d{1,2}:\d\d [AaPp][Mm]",
    " %I:%M:%S %p": r" \d{1,2}:\d\d:\d\d [AaPp][Mm]",
}  # fmt: skip
WEEKS = r"\d{4}-\d\d-\d\d/\d{4}-\d\d-\d\d"
MONTH_NAMES = (
    "%m/%Y",
    "%m.%Y",
    "%m-%Y",
    "%b %Y",
    "%B %Y",
    "%b-%Y",
    "%b-%y",
    "%b %y",
    "%Y-%b",
    "%Y %b",
    "%d-%b-%y",
    "%d-%b-%Y",
)
# Time zones with common rules; the first that fits is used.
COMMON = (
    "Europe/London", "Europe/Berlin", "Europe/Helsinki", "America/New_York", "America/Chicago",
    "America/Denver", "America/Los_Angeles", "America/Halifax", "America/Sao_Paulo",
    "Australia/Sydney", "Australia/Adelaide", "Pacific/Auckland",
)  # fmt: skip


class Form(NamedTuple):
    """A `Calendar.form`, the zone of the values, and notes."""

    form: str
    zone: str | None
    notes: tuple[str, ...] = ()


def find_form(values: pd.Series) -> Form:
    dtype = values.dtype
    if isinstance(dtype, pd.PeriodDtype):
        return Form(f"period {dtype.name[7:-1]}", None)
    if isinstance(dtype, pd.DatetimeTZDtype):
        return Form("dates", _zone_name(dtype.tz))
    if pd.api.types.is_datetime64_dtype(dtype):
        return Form("dates", None)
    if pd.api.types.is_numeric_dtype(dtype):
        return Form(_number_form(values), None)
    first = values[values.notna()].iloc[:1]
    if len(first) and hasattr(first.iloc[0], "isoformat"):  # a column of Python's own dates
        zone = getattr(first.iloc[0], "tzinfo", None)
        return Form("dates", None if zone is None else _zone_name(zone))
    text = values.astype("string").str.strip()
    text = text.mask(text.str.len() > LONGEST)
    if _all(text, r"-?\d+"):
        return Form(_number_form(pd.to_numeric(text)), None)
    form, notes = _text_form(text)
    zone, more = _offset_zone(text)
    return Form(form, zone, (*notes, *more))


def _all(text: pd.Series, pattern: str) -> bool:
    """Whether all rows match. Most columns already fail at the first row."""
    return bool(text.iloc[:1].str.fullmatch(pattern).all() and text.str.fullmatch(pattern).all())


def _number_form(values: pd.Series) -> str:
    numbers = values.to_numpy(dtype=np.float64, na_value=np.nan)
    if not len(numbers) or not np.isfinite(numbers).all() or (numbers % 1).any():
        return "number"
    low, high = numbers.min(), numbers.max()
    for form, (least, most) in {**WHOLE, "%Y%m%d%H": HOURS}.items():
        if least <= low and high <= most:
            text = pd.Series(numbers).astype("int64").astype("string")
            if not read_text(form, text).isna().any():
                return f"int {form}"
    for unit, begin in UNIX.items():
        if begin <= low and high < 100 * begin:
            return f"unix {unit}"
    return "number"


def _text_form(text: pd.Series) -> tuple[str, tuple[str, ...]]:
    known = text[text.notna()]
    if known.empty:
        return "mixed", ()
    if _all(known, QUARTER):
        return f"%Y{known.iloc[:1].str.extract(QUARTER)[1].iloc[0]}Q%q", ()
    if _all(known, QUARTER_FIRST):
        return f"Q%q{known.iloc[:1].str.extract(QUARTER_FIRST)[1].iloc[0]}%Y", ()
    if _all(known, WEEKS):
        return f"period W-{pd.Timestamp(known.iloc[0][11:]).strftime('%a').upper()}", ()
    if _all(known, r"\d{4}-W\d\d"):
        return WEEK, ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns about guessing
        row = int(known.str.len().to_numpy().argmax())
        longest = pd.tseries.api.guess_datetime_format(known.iloc[row])
        if not read_text("dates", known).isna().any():
            return longest or "dates", ()
        numeric = _numeric_form(known)
        if numeric is not None:
            return numeric
        first = pd.tseries.api.guess_datetime_format(known.iloc[0])
        for form in (first, longest, *MONTH_NAMES):
            if form is not None and not read_text(form, known).isna().any():
                return form, ()
        return first or longest or "mixed", ()


def _numeric_form(text: pd.Series) -> tuple[str, tuple[str, ...]] | None:
    """Day and month in two digits: their order is found from all rows."""
    found = text.str.extract(NUMERIC)
    if found[0].isna().iloc[0]:
        return None
    year = "%Y" if len(found[3].iloc[0]) == 4 else "%y"
    rest = found[4].dropna()
    clock = next((c for c, shape in CLOCKS.items() if rest.str.fullmatch(shape).all()), None)
    if clock is None:
        clock = next((c for c, s in CLOCKS.items() if rest.iloc[:1].str.fullmatch(s).all()), None)
    if clock is None:
        return None
    mark = found[1].iloc[0]
    orders = [("%m", "%d"), ("%d", "%m")]
    if mark == ".":  # month.day is not in use
        orders.reverse()
    forms = [mark.join((*order, year)) + clock for order in orders]
    both = [read_text(form, text) for form in forms]
    marks = [_badness(stamps) for stamps in both]
    if marks[0] == marks[1] and bool((both[0] != both[1]).any()):
        way, other = (mark.join(o).replace("%m", "month").replace("%d", "day") for o in orders)
        return forms[0], (
            f"Times such as {text.iloc[0]} are read as {way}; every row could also be {other}.",
        )
    return forms[marks[1] < marks[0]], ()


def _badness(stamps: pd.DatetimeIndex) -> tuple[int, bool, float, int]:
    """A score, lower is better: unread rows, wrong order, largest step in typical steps, number of
    different steps."""
    gaps = np.diff(stamps.dropna().asi8)
    uneven = round(float(gaps.max() / np.median(gaps)), 1) if len(gaps) and gaps.min() > 0 else 1.0
    return int(np.sum(stamps.isna())), bool((gaps <= 0).any()), uneven, len(np.unique(gaps))


def _zone_name(zone: object) -> str:
    """A zone name that pandas accepts; UTC for a zone without a name."""
    name = str(getattr(zone, "key", None) or getattr(zone, "zone", None) or zone)
    try:
        pd.Timestamp(0, tz=name)
    except Exception:  # time zone libraries raise many kinds of errors
        return "UTC"
    return name


def _offset_zone(text: pd.Series) -> tuple[str | None, tuple[str, ...]]:
    """The zone of times that are written with an offset from UTC."""
    pattern = OFFSET.replace("(?:Z", "(Z", 1)
    if text.iloc[:1].str.extract(pattern)[0].isna().any():
        return None, ()
    tail = text.str.extract(pattern)[0]
    if tail.isna().any():
        return None, ()
    offsets = pd.to_timedelta(
        tail.str.replace("Z", "+00:00").str.replace(r"^([+-]\d\d):?(\d\d)?$", _spell, regex=True)
    )
    if offsets.nunique() == 1:
        zone = tail.iloc[0]
        return ("UTC" if offsets.iloc[0] == pd.Timedelta(0) else _fixed(zone)), ()
    utc = pd.DatetimeIndex(read_text("mixed", text))
    change = np.flatnonzero(np.diff(offsets.to_numpy()).astype(np.int64))
    rows = np.unique(np.concatenate([[0, len(text) - 1], change, change + 1]))
    few, wanted = utc[rows], offsets.to_numpy()[rows]
    if few.isna().any():
        return "UTC", ()
    shown = f"{tail.iloc[0]} and {tail[offsets != offsets.iloc[0]].iloc[0]}"
    for zone in (*COMMON, *sorted(zoneinfo.available_timezones())):
        local = few.tz_convert(zone).tz_localize(None) - few.tz_convert("UTC").tz_localize(None)
        if (local.to_numpy() == wanted).all():
            return zone, (f"The offsets {shown} fit the time zone {zone}, which is used.",)
    return "UTC", (f"The offsets {shown} fit no time zone; times are in UTC.",)


def _spell(found: "object") -> str:
    hours, minutes = found.group(1), found.group(2) or "00"  # type: ignore[attr-defined]
    return f"{hours}:{minutes}:00"


def _fixed(tail: str) -> str:
    digits = tail[1:].replace(":", "").ljust(4, "0")
    return f"{tail[0]}{digits[:2]}:{digits[2:]}"
