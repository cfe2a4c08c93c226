"""Convert stamps to grid numbers and back, for each kind of step.

A stamp is an integer count of micro- or nanoseconds since 1970 (elapsed or local time), or a plain
number. `index` gives the number of the nearest grid point, `stamp` the stamp of a number. A grid,
its gaps and the following stamps are then integer arithmetic, so that nothing is allocated before
its length is known.
"""

import re
from dataclasses import dataclass

import numpy as np

DAY = 86_400_000_000  # microseconds
EPOCH = np.datetime64("1600-01-01", "D")  # working days are counted from here
RENAMED = {
    "H": "h", "T": "min", "S": "s", "L": "ms", "U": "us", "N": "ns", "M": "ME", "BM": "BME",
    "Q": "QE", "BQ": "BQE", "A": "YE", "Y": "YE", "BA": "BYE", "AS": "YS", "BAS": "BYS",
}  # fmt: skip


@dataclass(frozen=True)
class Even:
    """Steps of one size from `origin`."""

    size: float
    origin: float

    def index(self, t: np.ndarray) -> np.ndarray:
        half = self.size // 2 if isinstance(self.size, int) else self.size / 2
        return np.floor_divide(t - self.origin + half, self.size).astype(np.int64)

    def stamp(self, k: np.ndarray) -> np.ndarray:
        return np.asarray(self.origin + k * self.size)


@dataclass(frozen=True)
class Skipping:
    """Steps of a day or an even part of it, in the local time of a zone that left out whole days.

    Args:
        size, origin: microseconds.
        days: those left out, in days since 1970, in order.
    """

    size: int
    origin: int
    days: tuple[int, ...]

    def index(self, t: np.ndarray) -> np.ndarray:
        return self._even.index(self._without(np.asarray(t, np.int64)))

    def stamp(self, k: np.ndarray) -> np.ndarray:
        t = self._even.stamp(np.asarray(k, np.int64))
        begins = DAY * (np.array(self.days) - np.arange(len(self.days)))
        return np.asarray(t + DAY * np.searchsorted(begins, t, side="right"))

    @property
    def _even(self) -> Even:
        return Even(self.size, int(self._without(np.array([self.origin]))[0]))

    def _without(self, t: np.ndarray) -> np.ndarray:
        """The time as if these days had taken no time."""
        return np.asarray(t - DAY * np.searchsorted(DAY * np.array(self.days), t, side="right"))


@dataclass(frozen=True)
class Months:
    """Every n months, at the time of day of `origin`.

    Args:
        n: months.
        kind: which day of the month: "day" (that of `origin`, or the last of a shorter month),
            "end", "first working", "last working", or "week w d" (w weeks after the first weekday
            d, where Monday is 0).
        origin: microseconds, on the grid.
    """

    n: int
    kind: str
    origin: int

    def index(self, t: np.ndarray) -> np.ndarray:
        k = np.rint((_month(np.asarray(t, np.int64)) - self._first) / self.n).astype(np.int64)
        near = np.stack([k - 1, k, k + 1])
        off = np.abs(self.stamp(near) - t)
        return np.asarray(np.take_along_axis(near, off.argmin(0)[None], 0)[0])

    def stamp(self, k: np.ndarray) -> np.ndarray:
        days = self._day(np.asarray(self._first + np.asarray(k, np.int64) * self.n))
        return np.asarray(days * DAY + self.origin % DAY)

    @property
    def _first(self) -> int:
        return int(_month(np.array([self.origin]))[0])

    def _day(self, month: np.ndarray) -> np.ndarray:
        """Days since 1970 for months since 1970."""
        first, last = _first_day(month), _first_day(month + 1) - 1
        if self.kind == "day":
            own = self.origin // DAY - int(_first_day(np.array([self._first]))[0])
            return np.minimum(first + own, last)
        if self.kind == "end":
            return last
        if self.kind == "first working":
            return np.busday_offset(first.view("M8[D]"), 0, roll="forward").astype(np.int64)
        if self.kind == "last working":
            return np.busday_offset(last.view("M8[D]"), 0, roll="backward").astype(np.int64)
        _, week, weekday = self.kind.split()
        return first + (int(weekday) - (first + 3)) % 7 + 7 * int(week)  # 1970 began on a Thursday


@dataclass(frozen=True)
class Working:
    """Working days, at one time of the day (in microseconds)."""

    days: np.busdaycalendar
    time: int

    def index(self, t: np.ndarray) -> np.ndarray:
        day = ((np.asarray(t, np.int64) - self.time + DAY // 2) // DAY).astype("M8[D]")
        return np.asarray(np.busday_count(EPOCH, day, busdaycal=self.days), np.int64)

    def stamp(self, k: np.ndarray) -> np.ndarray:
        day = np.busday_offset(EPOCH, k, roll="forward", busdaycal=self.days)
        return np.asarray(day.astype(np.int64) * DAY + self.time)


Rule = Even | Skipping | Months | Working


def _month(t: np.ndarray) -> np.ndarray:
    return t.astype("M8[us]").astype("M8[M]").astype(np.int64)


def _first_day(month: np.ndarray) -> np.ndarray:
    return month.astype("M8[M]").astype("M8[D]").astype(np.int64)


def other_names(step: str) -> list[str]:
    """Names of the same offset in pandas before and since 2.2."""
    found = re.fullmatch(r"(\d*)([A-Za-z]+)(-[A-Z]{3})?", step)
    if found is None:
        return []
    count, name, suffix = found[1], found[2], found[3] or ""
    pairs = [*RENAMED.items(), *((new, old) for old, new in RENAMED.items())]
    return [f"{count}{there}{suffix}" for here, there in pairs if here == name]
