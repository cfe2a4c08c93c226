"""Find the format of the times in a column, from all rows."""

import re
import warnings
import zoneinfo
from typing import NamedTuple

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models._time_text import (
    LONGEST,
    OFFSET_WITH_SECONDS,
    QUARTER,
    QUARTER_FIRST,
    WEEK,
    read_text,
)
from longstate.train._time_pattern import badness, find_pattern

# Unit of a number since 1970, such that the time is between 1973 and 2286.
UNIX = {"s": 1e8, "ms": 1e11, "us": 1e14, "ns": 1e17}
# Formats of dates in one whole number, and their ranges.
WHOLE = {
    "%Y": (1500, 2200), "%Y%m": (150001, 220012), "%Y%m%d": (15000101, 22001231),
    "%Y%m%d%H": (1900010100, 2100010100), "%Y%m%d%H%M": (190001010000, 210001010000),
    "%Y%m%d%H%M%S": (19000101000000, 21000101000000),
}  # fmt: skip
NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
TAIL = r":\d\d.*?(Z|[+-]\d\d(?::?\d\d(?::\d\d)?)?)$"
SPELLED = r"^([+-]\d\d):?(\d\d)?(?::(\d\d))?$"
IN_UTC = r".*\d(?:Z| UTC| GMT)"
WEEKS = r"\d{4}-\d\d-\d\d/\d{4}-\d\d-\d\d"
# Day and month as numbers: their order cannot be guessed row by row.
UNCLEAR = r"(?<!\d)\d{1,2}[/.\-] ?\d{1,2}[/.\-] ?(?:\d{4}|\d{2})(?!\d)"
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


def find_form(values: pd.Series, *, ordered: bool = True) -> Form:
    """The format of a column.

    Args:
        values: the times. ordered: whether their order tells the format too, as in one series.
    """
    dtype = values.dtype
    if isinstance(dtype, pd.PeriodDtype):
        name = dtype.name[7:-1]
        return Form("dates" if name == "B" else f"period {name}", None)
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
    form, notes = _text_form(text, ordered)
    if _all(text, NUMBER) and badness(read_text(form, text), ordered=ordered)[:2] > (0, False):
        return Form("number", None)
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
    for form, (least, most) in WHOLE.items():
        if least <= low and high <= most:
            text = pd.Series(numbers).astype("int64").astype("string")
            if not read_text(form, text).isna().any():
                return f"int {form}"
    for unit, begin in UNIX.items():
        if begin <= low and high < 100 * begin:
            return f"unix {unit}"
    return "number"


def _text_form(text: pd.Series, ordered: bool) -> tuple[str, tuple[str, ...]]:
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
        example = re.sub(OFFSET_WITH_SECONDS, r"\1", known.iloc[row])
        longest = pd.tseries.api.guess_datetime_format(example)
        if not read_text("dates", known).isna().any():
            return longest or "dates", ()
        pattern = find_pattern(known, ordered=ordered)
        if pattern is not None:
            return pattern.form, () if pattern.note is None else (pattern.note,)
        return "mixed", ()


def check_clear(form: str, column: pd.Series) -> None:
    """Refuse dates whose day and month would have to be guessed in each row.

    Raises:
        InputError: names the first row.
    """
    if form != "mixed":
        return
    unclear = column.astype("string").str.contains(UNCLEAR, regex=True, na=False)
    if unclear.any():
        raise InputError(
            f"the time column {column.name!r} holds {str(column[unclear].iloc[0])[:60]!r}, whose "
            "format is not known; write dates as 2024-01-31 12:00"
        )


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
    if text.str.fullmatch(IN_UTC).all():
        return "UTC", ()
    if text.iloc[:1].str.extract(TAIL)[0].isna().any():
        return None, ()
    tail = text.str.extract(TAIL)[0]
    if tail.isna().any():
        return None, ()
    offsets = pd.to_timedelta(
        tail.str.replace("Z", "+00:00").str.replace(SPELLED, _spell, regex=True)
    )
    if offsets.nunique() == 1 and offsets.iloc[0] % pd.Timedelta(1, "min") == pd.Timedelta(0):
        zone = tail.iloc[0]
        return ("UTC" if offsets.iloc[0] == pd.Timedelta(0) else _fixed(zone)), ()
    utc = pd.DatetimeIndex(read_text("mixed", text))
    change = np.flatnonzero(np.diff(offsets.to_numpy()).astype(np.int64))
    rows = np.unique(np.concatenate([[0, len(text) - 1], change, change + 1]))
    few, wanted = utc[rows], offsets.to_numpy()[rows]
    if few.isna().any():
        return "UTC", ()
    others = tail[offsets != offsets.iloc[0]]
    shown = tail.iloc[0] if others.empty else f"{tail.iloc[0]} and {others.iloc[0]}"
    shown = f"offset {shown} fits" if others.empty else f"offsets {shown} fit"
    for zone in (*COMMON, *sorted(zoneinfo.available_timezones())):
        local = few.tz_convert(zone).tz_localize(None) - few.tz_convert("UTC").tz_localize(None)
        if (local.to_numpy() == wanted).all():
            return zone, (f"The {shown} the time zone {zone}, which is used.",)
    return "UTC", (f"The {shown} no time zone; times are in UTC.",)


def _spell(found: "object") -> str:
    hours, minutes, seconds = found.group(1, 2, 3)  # type: ignore[attr-defined]
    return f"{hours}:{minutes or '00'}:{seconds or '00'}"


def _fixed(tail: str) -> str:
    digits = tail[1:].replace(":", "").ljust(4, "0")
    return f"{tail[0]}{digits[:2]}:{digits[2:]}"
