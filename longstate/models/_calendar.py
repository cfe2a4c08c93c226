"""The calendar of a series: its time step, its time zone, and the format of its times.

It is found once, in training, and saved with the run; later commands read times with it. It is
plain data that JSON can hold. Stamps are a pandas index (dates in `zone` or without a zone, or
numbers). Each stamp has a number on the grid, an integer: `index_of(stamps)`, `at(numbers)`.
"""

import math
import warnings
from dataclasses import dataclass, replace
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from longstate.errors import InputError
from longstate.models._steps import DAY, Even, Months, Rule, Skipping, Working, other_names
from longstate.models._zones import localize, naive, skipped_days

if TYPE_CHECKING:
    import pandas as pd

ROWS, STAMPS = "rows", "stamps"
HOLIDAY_RUN = 7
"""Longest run of holidays; a longer run of missing working days is a gap."""
# Name of a pandas offset class -> number of months, and which day of the month.
MONTHS = {
    f"{prefix}{period}{end}": (n, kind)
    for prefix, kinds in (("", ("day", "end")), ("Business", ("first working", "last working")))
    for period, n in (("Month", 1), ("Quarter", 3), ("Year", 12))
    for end, kind in zip(("Begin", "End"), kinds, strict=True)
} | {
    f"B{period}{end}": (n, f"{which} working")
    for period, n in (("Quarter", 3), ("Year", 12))
    for end, which in (("Begin", "first"), ("End", "last"))
}
UNITS = (
    ("week", 7 * DAY * 1000), ("day", DAY * 1000), ("hour", 3600 * 10**9), ("minute", 60 * 10**9),
    ("second", 10**9), ("millisecond", 10**6), ("microsecond", 1000), ("nanosecond", 1),
)  # fmt: skip


@dataclass(frozen=True)
class Calendar:
    """Everything that is known about the times of a series.

    Args:
        step: a pandas offset such as "h", "30min", "D", "7D", "MS", "QE-DEC", "B"; "rows" if one
            row is one step and the times are ignored; "stamps" if the times are irregular and the
            time between rows is read; a number if times are numbers.
        form: format of the times: "dates" (date values), a `strptime` format, "int " and such a
            format for integers such as 1950, "unix s" (ms, us, ns), "period " and pandas' name of
            the period, "number", or "mixed".
        zone: name of the time zone, or a fixed offset; None for times without a zone.
        anchor: a stamp on the grid. None: the first stamp of the data.
        wall: whether steps follow local time instead of elapsed time. Matters with a zone only.
        holidays: days without work, as "2024-12-25"; for the step "B".
        weekdays: which days are working days, Monday first; for the step "B".
        inferred: whether the holidays were found in the data. If so, later working days without a
            row are holidays too.
        usual: median time between rows, in seconds if times are dates; for the step "stamps".
    """

    step: str
    form: str = "dates"
    zone: str | None = None
    anchor: str | None = None
    wall: bool = False
    holidays: tuple[str, ...] = ()
    weekdays: str = "1111100"
    inferred: bool = False
    usual: float | None = None

    @property
    def even(self) -> bool:
        """Whether stamps lie on a grid, so that missing and following stamps are known."""
        return self.step not in (ROWS, STAMPS)

    @property
    def irregular(self) -> bool:
        """Whether the time between rows is read."""
        return self.step == STAMPS

    @property
    def dated(self) -> bool:
        return self.form != "number"

    @property
    def unit(self) -> str:
        return "ns" if self.dated and self.even and _nanoseconds(self.step) % 1000 else "us"

    @property
    def words(self) -> str:
        """The step in words, to follow the word "every"."""
        if not self.even or not self.dated:
            return "row" if not self.even else self.step
        size = _nanoseconds(self.step)
        if size:
            unit, one = next((u, o) for u, o in UNITS if size % o == 0 and (u, size) != ("week", 0))
            return unit if size == one else f"{size // one} {unit}s"
        months = _months(self.step)
        if months is None:
            return "working day"
        n, kind = months
        unit, n = (
            ("year", n // 12) if n % 12 == 0 else ("quarter", n // 3) if n == 3 else ("month", n)
        )
        day = {"end": ", at its end", "day": ""}.get(kind, f", on its {kind} day")
        day = ", on one weekday" if kind.startswith("week") else day
        return (unit if n == 1 else f"{n} {unit}s") + day

    @property
    def length(self) -> str | None:
        """A step of constant length, in the notation of pandas; None for other steps."""
        from pandas import Timedelta
        from pandas.tseries.frequencies import to_offset

        size = _nanoseconds(self.step) if self.even and self.dated else 0
        return str(to_offset(Timedelta(size)).freqstr) if size else None

    def anchored(self, stamps: "pd.Index") -> "Calendar":
        """This calendar, with the first of `stamps` as its anchor if it has none."""
        if self.anchor is not None or not self.even:
            return self
        return replace(self, anchor=self.text(stamps[0]))

    def index_of(self, stamps: "pd.Index") -> np.ndarray:
        """(n) int64: the number of the nearest grid point of each stamp."""
        clock = self.clock(stamps)
        numbers = _rule(self).index(clock)
        if not self.wall or self.zone is None:
            return numbers
        # A skipped local time is the next valid one, which can be nearer to the next point.
        moved = (self._settled(numbers) != clock) & (self._settled(numbers - 1) == clock)
        return numbers - moved

    def _settled(self, numbers: np.ndarray) -> np.ndarray:
        """The clock at these numbers, where a skipped local time is the next valid one."""
        if not self.wall or self.zone is None:
            return _rule(self).stamp(numbers)
        return self.clock(self.at(numbers))

    def off_grid(self, stamps: "pd.Index", numbers: np.ndarray) -> np.ndarray:
        """(n) bool: whether a stamp is off the grid by more than a tenth of a step or an hour."""
        here, there = self.clock(stamps), self._settled(numbers)
        steps = np.abs(_rule(self).stamp(numbers + 1) - _rule(self).stamp(numbers))
        most = steps / 10
        if self.dated:
            most = np.minimum(most, DAY / 24 * (1000 if self.unit == "ns" else 1))
        return np.asarray(np.abs(here - there) > most)

    def at(self, numbers: np.ndarray) -> "pd.Index":
        """The stamps of these numbers."""
        return self.stamps(_rule(self).stamp(np.asarray(numbers, np.int64)))

    def next(self, stamp: Any, n: int) -> "pd.Index":
        """The n stamps after `stamp`; at the usual interval if stamps are irregular."""
        import pandas as pd

        if self.usual is not None:
            one = pd.Timedelta(self.usual, "s") if self.dated else self.usual
            return pd.Index([stamp + k * one for k in range(1, n + 1)])
        last = int(self.index_of(pd.Index([stamp]))[0])
        return self.at(np.arange(last + 1, last + 1 + n))

    def clock(self, stamps: "pd.Index") -> np.ndarray:
        """Numbers unchanged; dates as int64 counts of `unit` since 1970, in elapsed time or, with
        `wall`, in local time."""
        if not self.dated:
            return np.asarray(stamps)
        return naive(stamps, self.wall).as_unit(self.unit).asi8

    def stamps(self, clock: np.ndarray) -> "pd.Index":
        """The inverse of `clock`. A local time that occurs twice in autumn is the first one; a time
        that is skipped in spring is the next valid one."""
        import pandas as pd

        if not self.dated:  # 0.3 and not 0.30000000000000004
            step = abs(float(self.step)) if self.even else 1.0
            largest = float(np.abs(clock).max(initial=step))
            digits = 10 - math.floor(math.log10(step)), 15 - math.ceil(math.log10(largest))
            return pd.Index(np.round(clock, min(digits)))
        index = pd.DatetimeIndex(np.asarray(clock, np.int64).view(f"M8[{self.unit}]"))
        if self.zone is None:
            return index
        if not self.wall:
            return index.tz_localize("UTC").tz_convert(self.zone)
        return localize(index, self.zone)

    def wall_clock(self, stamps: "pd.Index") -> np.ndarray | None:
        """Local times, datetime64[ms]; None if times are not dates."""
        if not self.dated:
            return None
        return np.asarray(naive(stamps, True).as_unit("ms").to_numpy())

    def text(self, stamp: Any) -> str:
        """A stamp as exact text, the same for every `form`; for saved files."""
        return str(stamp.item() if isinstance(stamp, np.generic) else stamp)

    def untext(self, text: str) -> Any:
        """The inverse of `text`."""
        import pandas as pd

        if not self.dated:
            number = float(text)
            return int(number) if number.is_integer() else number
        try:
            stamp = pd.Timestamp(text)
        except ValueError:  # offsets before 1900 have seconds
            stamp = pd.Timestamp(datetime.fromisoformat(text))
        if self.zone is None or stamp.tz is None:
            return stamp
        return stamp.tz_convert(self.zone)


@lru_cache(maxsize=64)
def _offset(step: str) -> Any:
    from pandas.tseries.frequencies import to_offset

    offset = None
    for name in (step, *other_names(step)):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                offset = to_offset(name)
            break
        except ValueError:
            continue
    if offset is None or offset.n < 1:
        raise InputError(
            f"the step {step!r} is not known; give a pandas offset such as h, 30min, D, 7D, MS, "
            "QS, YS or B, or rows, or stamps"
        )
    return offset


def _nanoseconds(step: str) -> int:
    """Length of a step of constant length; 0 for months and working days."""
    from pandas import Timedelta, offsets

    offset = _offset(step)
    if isinstance(offset, offsets.Day | offsets.Week):
        return offset.n * (7 if isinstance(offset, offsets.Week) else 1) * DAY * 1000
    return Timedelta(offset).value if isinstance(offset, offsets.Tick) else 0


def _months(step: str) -> tuple[int, str] | None:
    offset = _offset(step)
    if type(offset).__name__ == "WeekOfMonth":
        return offset.n, f"week {offset.week} {offset.weekday}"
    n, kind = MONTHS.get(type(offset).__name__, (0, ""))
    return (n * offset.n, kind) if n else None


@lru_cache(maxsize=256)
def _rule(calendar: Calendar) -> Rule:
    """The arithmetic of an anchored calendar."""
    import pandas as pd

    if not calendar.even or calendar.anchor is None:
        raise InputError("the times have no step, because rows are counted instead of time")
    anchor = calendar.untext(calendar.anchor)
    if not calendar.dated:
        step = float(calendar.step)
        return Even(int(step) if step.is_integer() else step, anchor)
    origin = int(calendar.clock(pd.DatetimeIndex([anchor]))[0])
    size = _nanoseconds(calendar.step)
    skipped = skipped_days(calendar.zone) if calendar.wall else ()
    if size and skipped and calendar.unit == "us" and DAY * 1000 % size == 0:
        return Skipping(size // 1000, origin, skipped)
    if size:
        return Even(size if calendar.unit == "ns" else size // 1000, origin)
    months = _months(calendar.step)
    if months is not None:
        return Months(*months, origin)
    offset = _offset(calendar.step)
    if type(offset).__name__ in ("BusinessDay", "CustomBusinessDay") and offset.n == 1:
        holidays = [*np.array(calendar.holidays, "M8[D]"), *np.array(skipped, "M8[D]")]
        days = np.busdaycalendar(calendar.weekdays, holidays)
        return Working(days, origin % DAY)
    raise InputError(f"the step {calendar.step!r} is not supported; the step 'rows' counts rows")


def seconds(calendar: Calendar) -> float | None:
    """Mean length of a step, in seconds; None if steps are not times."""
    if not calendar.even or not calendar.dated:
        return None
    size = _nanoseconds(calendar.step)
    if size:
        return size / 1e9
    months = _months(calendar.step)
    if months is not None:
        return months[0] * 365.2425 / 12 * 86400
    return 7 * 86400 / max(1, calendar.weekdays.count("1"))
