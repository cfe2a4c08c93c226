"""Find the time step of a series from its stamps; training saves it as a calendar."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Calendar
from longstate.models._calendar import HOLIDAY_RUN, ROWS, STAMPS
from longstate.models._steps import DAY, Months
from longstate.train._irregular import irregular_calendar

HOUR = DAY // 24
# Largest share of missing working days that can be holidays; with more they are gaps.
HOLIDAYS = 0.1
YEARS_AHEAD = 10
MONTH_NAMES = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]


@dataclass(frozen=True)
class Timing:
    """Settings of the times.

    Args:
        step: a pandas offset ("h", "D", "MS", "B"), "rows" (one row is one step), "stamps" (times
            are irregular and are read), or a number if times are numbers. None finds it.
        zone: time zone of times without a zone.
        holidays: days without work, as dates; for the step "B".
    """

    step: str | None = None
    zone: str | None = None
    holidays: tuple[str, ...] = ()


def find_step(base: Calendar, stamps: pd.Index, timing: Timing) -> Calendar | None:
    """`base` with the step of `stamps`, which are in order; None if they are uneven. A given step
    is not compared with them."""
    holidays = tuple(sorted({str(_date(day)) for day in timing.holidays}))
    if timing.step == ROWS:
        return replace(base, step=ROWS)
    if timing.step == STAMPS:
        return irregular_calendar(base, stamps)
    if timing.step is not None or holidays:
        step = timing.step or "B"
        given = replace(base, step=step, holidays=holidays, wall=_is_wall(base, step))
        return _centred(_working_calendar(given, stamps).anchored(stamps), stamps)
    candidates: Iterable[Calendar]
    if len(stamps) < 3:
        return None
    elif not base.dated:
        candidates = _number_steps(base, stamps)
    else:
        candidates = _date_steps(base, stamps)
    for candidate in candidates:
        calendar = _centred(candidate.anchored(stamps), stamps)
        if fits(calendar, stamps):
            return calendar
    return None


def fits(calendar: Calendar, stamps: pd.Index) -> bool:
    numbers = calendar.index_of(stamps)
    ordered = bool((np.diff(numbers) > 0).all())
    return ordered and not calendar.off_grid(stamps, numbers).any()


def _date(day: object) -> object:
    stamp = pd.to_datetime(str(day), errors="coerce")
    if pd.isna(stamp):
        raise InputError(f"a holiday must be a date such as 2024-12-25; got {str(day)!r}")
    return stamp.date()


def _is_wall(base: Calendar, step: str) -> bool:
    """Whether steps follow local time: steps below a day count elapsed time, longer ones do."""
    one = replace(base, step=step)
    if not base.dated:
        float(step)
        return False
    return not one.words.endswith(("hour", "hours", "minute", "minutes", "second", "seconds"))


def _number_steps(base: Calendar, stamps: pd.Index) -> Iterator[Calendar]:
    gaps = np.diff(np.asarray(stamps))
    for gap in (_usual(gaps), float(np.median(gaps))):
        if gap % 1:  # 1/3 and not 0.333333, which is off by a step after many
            span = float(stamps[-1] - stamps[0])
            gap = span / max(1, round(span / gap))
        yield replace(base, step=f"{gap:.10g}")


def _usual(gaps: np.ndarray) -> float:
    sizes, counts = np.unique(gaps, return_counts=True)
    return sizes[counts.argmax()].item()


def _is_common(gaps: np.ndarray) -> bool:
    """Whether most gaps have the same size, so that there is no jitter."""
    return 2 * int(np.unique(gaps, return_counts=True)[1].max()) >= len(gaps)


def _date_steps(base: Calendar, stamps: Any) -> Iterator[Calendar]:
    elapsed, wall = (_clock(base, stamps, wall) for wall in (False, True))
    unit = 1000 if _unit(stamps) == "ns" else 1
    usual = _usual(np.diff(wall))
    daily = _same_time_of_day(wall // unit)
    days = _usual(np.diff(daily))
    local = replace(base, wall=True)
    if days >= 27.9 * DAY:
        yield from _month_steps(local, daily)
    if days == DAY:
        working = _working_week(daily // DAY)
        if working is not None:
            first = local.text(local.stamps(daily[:1])[0])
            yield _working_calendar(
                replace(local, step="B", weekdays=working, anchor=first), stamps
            )
    if not _is_common(np.diff(elapsed)) and not _is_common(np.diff(wall)):
        yield from _rough_steps(base, elapsed, unit)
    for clock, follows in ((wall, True), (elapsed, False)):
        gap = _usual(np.diff(clock))
        days = gap % (DAY * unit) == 0
        if days and not follows and base.zone is None:
            continue
        if not days and follows and (base.zone is None or gap < 2 * HOUR * unit):
            continue
        yield replace(base, step=_offset(gap, unit), wall=follows)
    if base.zone is not None and usual % (DAY * unit):
        yield replace(base, step=_offset(_usual(np.diff(elapsed)), unit))
    yield from _rough_steps(base, elapsed, unit)


def _rough_steps(base: Calendar, clock: np.ndarray, unit: int) -> Iterator[Calendar]:
    """Candidates for times with jitter: the roundest lengths near the typical gap."""
    gap = float(np.median(np.diff(clock)))
    for one in (DAY, HOUR, HOUR // 60, HOUR // 3600, 100_000, 10_000, 1000, 1):
        count = round(gap / (one * unit))
        if count and abs(gap - count * one * unit) <= 0.02 * gap:
            yield replace(base, step=_offset(count * one * unit, unit), wall=one == DAY)


def _offset(gap: float, unit: int) -> str:
    days, rest = divmod(int(gap), DAY * unit)
    if not rest:
        return "D" if days == 1 else f"{days}D"
    length = pd.Timedelta(int(gap), "ns" if unit == 1000 else "us")
    return str(pd.tseries.frequencies.to_offset(length).freqstr)


def _unit(stamps: Any) -> str:
    """Nanoseconds only if needed, because their range is 1678 to 2262."""
    return "ns" if stamps.unit == "ns" and (stamps.asi8 % 1000).any() else "us"


def _clock(base: Calendar, stamps: Any, wall: bool) -> np.ndarray:
    if stamps.tz is not None:
        stamps = stamps.tz_localize(None) if wall else stamps.tz_convert("UTC").tz_localize(None)
    return np.asarray(stamps.as_unit(_unit(stamps)).asi8)


def _same_time_of_day(wall: np.ndarray) -> np.ndarray:
    """Local times in microseconds, with jitter of at most an hour around one time of day removed,
    so that 23:59:58 and 00:00:01 are on the same day. Other times are returned as they are."""
    angle = wall % DAY * (2 * np.pi / DAY)
    middle = np.arctan2(np.sin(angle).mean(), np.cos(angle).mean()) * (DAY / (2 * np.pi))
    off = (wall - int(middle) + DAY // 2) % DAY - DAY // 2
    if np.ptp(off) == 0 or np.abs(off).max() > HOUR:
        return wall
    time = int(middle) + _roundest(off, 1, int(middle))
    return np.asarray((wall - time + DAY // 2) // DAY * DAY + time)


def _roundest(off: np.ndarray, scale: int, start: int) -> int:
    """The offset of the roundest time within the jitter `off` around `start`; its middle if it has
    no round one. One tenth more is allowed, because late clocks are never early."""
    middle, low, high = int(np.median(off)), off.min(), off.max()
    margin = (high - low) / 10
    for one in (HOUR, HOUR // 60, HOUR // 3600, 100_000, 1000, 1):
        near = round((start + middle) / (one * scale)) * one * scale - start
        if low - margin <= near <= high + margin:
            return near
    return middle


def _month_steps(base: Calendar, wall: np.ndarray) -> Iterator[Calendar]:
    month = wall.astype("M8[us]").astype("M8[M]")
    n = int(_usual(np.diff(month.astype(np.int64))))
    if n < 1:
        return
    day = (wall // DAY) - month.astype("M8[D]").astype(np.int64)  # of the month, from 0
    latest = int(day.argmax())  # the first month may not have the 30th
    weekday = (int(wall[0]) // DAY + 3) % 7
    kinds = ["end", "day", "first working", "last working"]
    if day[0] < 28:  # every month has this weekday
        kinds.append(f"week {day[0] // 7} {weekday}")
    anchor = base.stamps(wall[latest : latest + 1])[0]
    for kind in kinds:
        if not (np.diff(Months(n, kind, int(wall[latest])).index(wall)) > 0).all():
            continue
        yield replace(base, step=_months_step(n, kind, anchor), anchor=base.text(anchor))


def _months_step(n: int, kind: str, anchor: pd.Timestamp) -> str:
    """The pandas offset for every n months."""
    end = {"day": "S", "end": "E", "first working": "S", "last working": "E"}
    if kind not in end:
        week, day = map(int, kind.split()[1:])
        return f"WOM-{week + 1}{['MON', 'TUE', 'WED', 'THU', 'FRI', 'SAT', 'SUN'][day]}"
    business = "B" if kind.endswith("working") else ""
    if n % 12 == 0:
        name = f"Y{end[kind]}-{MONTH_NAMES[anchor.month - 1]}"
    elif n == 3:  # as pandas calls them: by the first start and the last end of a year
        months = "JAN FEB MAR" if end[kind] == "S" else "OCT NOV DEC"
        name = f"Q{end[kind]}-{months.split()[(anchor.month - 1) % 3]}"
    else:
        name = f"M{end[kind]}"
    count = n // 12 if n % 12 == 0 else 1 if n == 3 else n
    return ("" if count == 1 else str(count)) + business + name


def _working_week(days: np.ndarray) -> str | None:
    """The working days of the week, Monday first; None if all days occur."""
    if len(days) < 8 or days[-1] - days[0] < 14:
        return None
    seen = np.isin(np.arange(7), (days + 3) % 7)
    return None if seen.all() or seen.sum() < 4 else "".join(str(int(s)) for s in seen)


def _working_calendar(calendar: Calendar, stamps: pd.Index) -> Calendar:
    """The calendar with the holidays found in the data, if none were given."""
    if calendar.words != "working day":
        return calendar
    wall = replace(calendar, wall=True)
    if wall.holidays or len(stamps) < 3:
        return wall
    missing = missing_days(wall.anchored(stamps), stamps)
    if len(missing) == 0 or len(missing) > HOLIDAYS * len(stamps):
        return wall
    dates = sorted({*missing.astype(str), *_yearly(missing, stamps)})
    return replace(wall, holidays=tuple(dates), inferred=True)


def missing_days(calendar: Calendar, stamps: pd.Index) -> np.ndarray:
    """(m) datetime64[D]: working days without a row, in runs that may be holidays."""
    numbers = calendar.index_of(stamps)
    runs = np.diff(numbers) - 1
    short = np.flatnonzero((runs > 0) & (runs <= HOLIDAY_RUN))
    absent = [np.arange(numbers[i] + 1, numbers[i + 1]) for i in short]
    if not absent:
        return np.zeros(0, "M8[D]")
    days = calendar.clock(calendar.at(np.concatenate(absent))) // DAY
    return np.asarray(days.astype("M8[D]"))


def _yearly(missing: np.ndarray, stamps: pd.Index) -> list[str]:
    """Dates that were missing in every year, at least twice; for some later years too."""
    present = {stamp.strftime("%m-%d") for stamp in stamps}
    dates, counts = np.unique([str(day)[5:] for day in missing], return_counts=True)
    last = stamps[-1].year
    return [
        f"{year}-{date}"
        for date, count in zip(dates, counts, strict=True)
        if count >= 2 and date not in present and date != "02-29"
        for year in range(last, last + YEARS_AHEAD + 1)
    ]


def _centred(calendar: Calendar, stamps: pd.Index) -> Calendar:
    """The calendar with its grid in the middle of the jitter, at the roundest time there."""
    clock, numbers = calendar.clock(stamps), calendar.index_of(stamps)
    off = clock - (calendar.clock(calendar.at(numbers)))
    if not np.any(off) or not calendar.dated:
        return calendar
    scale = 1000 if calendar.unit == "ns" else 1
    first = int(calendar.clock(calendar.at(numbers[:1]))[0])
    anchor = calendar.stamps(np.array([first + _roundest(off, scale, first)]))[0]
    moved = replace(calendar, anchor=calendar.text(anchor))
    return moved if fits(moved, stamps) else calendar
