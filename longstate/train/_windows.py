"""Windows over a table, as views; and the chronological split.

    rows     |---- training ----|- validation -|---- test ----|
    windows  [window][horizon]   the horizon is completely in its part; the window may start before

In a panel every window and its horizon are rows of one series, and the parts are those of time.

Axes: b batch, w window, h horizon, c targets, p covariates, k known, m calendar.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor

from longstate.errors import InputError
from longstate.models import Calendar, ForecastSpec, Window
from longstate.models._elapsed import from_last_row
from longstate.models._spec import DAY, MOST_ROWS, WEEK, YEAR, calendar_features
from longstate.models._time_text import passed
from longstate.train._long_series import SOME, LongCalendar, any_of
from longstate.train._panel import Panel
from longstate.train._panel_table import ahead
from longstate.train._table import Table


class Batch(NamedTuple):
    """Windows and the rows after them, in the data's own units.

    Args:
        window: the input of the forecast.
        future (b, h, c): true values; gaps hold the last observed value.
        present (b, h, c): False in the gaps.
        rows (b): the first row of each horizon.
    """

    window: Window
    future: Tensor
    present: Tensor
    rows: np.ndarray


class Windows:
    """All windows of a table whose horizon is at positions [first, last), which are the rows of a
    single series. Only the rows of a batch are copied, so the table's arrays may be memory-mapped
    files.

    Args:
        table: the data.
        spec: lengths and columns.
        first, last: positions. `last` None is the end of the table.

    Raises:
        InputError: no window fits.
    """

    def __init__(self, table: Table, spec: ForecastSpec, first: int = 0, last: int | None = None):
        self.table, self.spec, self.places = table, spec, table.places
        last = table.span if last is None else last
        first = max(first, spec.window) if table.panel is None else first
        origins, at = self.places.origins(spec.window, spec.horizon), self.places.position
        inside = (at[origins] >= first) & (at[origins + spec.horizon - 1] < last)
        origins = origins[inside]
        if len(origins) == 0:
            raise InputError(
                f"rows {first} to {last} hold no horizon of {spec.horizon} rows after a window of "
                f"{spec.window}; more data, or a shorter window or horizon, is needed"
            )
        self.origins = self._observed(origins)
        if len(self.origins) == 0:
            raise InputError(f"rows {first} to {last} hold no value of the target")
        self._calendar = _calendar(table, spec)

    def _observed(self, origins: np.ndarray) -> np.ndarray:
        """Without those of windows that have no observed past or future."""
        observed, w, h = self.table.observed, self.spec.window, self.spec.horizon
        if self.table.some is not None:
            later, behind = any_of(observed, origins, h), any_of(observed, origins - w, w)
        else:
            present = np.concatenate([[0], np.cumsum(observed.any(axis=1))])
            later = present[origins + h] > present[origins]
            behind = present[origins] > present[origins - w]
        return origins[later & behind]

    def drawn(self, draw: np.random.Generator, most: int) -> np.ndarray:
        """At most so many origins, in any order. In a long series they are drawn from all rows of
        the part; otherwise no window comes twice."""
        if self.table.some is None:
            return self.origins[draw.permutation(len(self))[:most]]
        first, last = int(self.origins[0]), int(self.origins[-1])
        found = self._observed(draw.integers(first, last + 1, size=most))
        return found if len(found) else self.origins[draw.permutation(len(self))[:most]]

    @classmethod
    def over(cls, table: Table, spec: ForecastSpec) -> "Windows":
        """Those that `at` and `window` are asked for, anywhere in the table."""
        found = cls.__new__(cls)
        found.table, found.spec, found.places = table, spec, table.places
        found.origins, found._calendar = np.zeros(0, np.int64), _calendar(table, spec)
        return found

    def on(self, table: Table) -> "Windows":
        """The same windows on another table of the same rows."""
        found = copy.copy(self)
        found.table, found.places = table, table.places
        return found

    def latest(self, most: int) -> "Windows":
        """The last windows of each series: as many of each as are at most `most` together, but at
        least one."""
        series = self.places.of(self.origins)
        behind = np.cumsum(np.bincount(series))[series] - 1 - np.arange(len(series))
        found = copy.copy(self)
        if len(series) > most:
            found.origins = self.origins[behind < max(1, np.partition(behind, most)[most])]
        return found

    def without(self, others: "Windows") -> "Windows":
        """Those of these windows that are not among the others, of the same table."""
        found = copy.copy(self)
        found.origins = np.setdiff1d(self.origins, others.origins, assume_unique=True)
        return found

    def __len__(self) -> int:
        return len(self.origins)

    def batch(self, indices: np.ndarray) -> Batch:
        return self.at(self.origins[indices])

    def at(self, origins: np.ndarray) -> Batch:
        """The windows that end just before the rows `origins`."""
        t, h = self.table, self.spec.horizon
        return Batch(
            self.window(origins),
            _rows(t.target, origins, h),
            _rows(t.observed, origins, h),
            origins,
        )

    def window(self, origins: np.ndarray) -> Window:
        """The same without the rows after them."""
        t, w, h = self.table, self.spec.window, self.spec.horizon
        starts, units, clock = origins - w, None, origins - w
        if t.panel is not None:
            clock = t.panel.position[starts] - int(t.panel.position.min())
            of = torch.from_numpy(t.panel.of(starts))
            units = None if t.panel.units is None else t.panel.units.each(lambda x: x[of, None])
        return Window(
            target=_rows(t.target, starts, w),
            observed=_rows(t.observed, starts, w),
            covariates=_rows(t.covariates, starts, w),
            known=_rows(t.known, starts, w + h),
            calendar=_relative(_rows(self._calendar, clock, w + h), self.spec),
            units=units,
            static=torch.from_numpy(t.static[starts]) if self.spec.static else None,
            codes=_rows(t.codes, starts, w + h) if self.spec.categories else None,
        )

    @classmethod
    def last(cls, table: Table, spec: ForecastSpec) -> Window:
        """The windows at the end of all series: the input of a forecast of the future."""
        full, firsts = ahead(table, spec.window, spec.horizon)
        return cls.over(full, spec).window(firsts)

    def batches(self, size: int) -> Iterator[Batch]:
        """All windows in order."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))


def _rows(array: np.ndarray | LongCalendar, starts: np.ndarray, length: int) -> Tensor:
    """(b, length, channels), copied."""
    if isinstance(array, LongCalendar):
        return array.rows(starts, length)
    if array.shape[1] == 0:
        return torch.zeros(len(starts), length, 0, dtype=torch.float64)
    view = sliding_window_view(array, length, axis=0)
    return torch.from_numpy(np.ascontiguousarray(view[starts].transpose(0, 2, 1)))


def _calendar(table: Table, spec: ForecastSpec) -> Any:
    """The features of the times of all rows and of one horizon after them; of all positions of a
    panel. A `LongCalendar` of a long series, otherwise an array."""
    if table.some is not None:
        first = 0
        if table.calendar is not None and table.times is not None:
            first = int(table.calendar.index_of(table.times[:1])[0])
        return LongCalendar(table.calendar, first, spec)
    if table.panel is not None:
        return _panel_calendar(table.panel, table.calendar, spec)
    times = table.times_ahead(spec.horizon) if spec.irregular else None
    if times is not None:
        return passed(times)[:, None]
    return calendar_features(table.wall_clock(spec.horizon), spec.cycles, table.rows + spec.horizon)


def _panel_calendar(panel: Panel, calendar: Calendar | None, spec: ForecastSpec) -> np.ndarray:
    first, last = int(panel.position.min()), int(panel.position.max())
    clock = None
    if panel.base is not None and calendar is not None:
        clock = calendar.wall_clock(calendar.at(panel.base + np.arange(first, last + 1)))
    return calendar_features(clock, spec.cycles, last + 1 - first)


def _relative(calendar: Tensor, spec: ForecastSpec) -> Tensor:
    if spec.calendar is None or not spec.irregular:
        return calendar
    return from_last_row(calendar, spec.window, spec.calendar)


@dataclass(frozen=True)
class Split:
    """The ends of the parts, in positions: training [0, train), validation [train, validation),
    test."""

    train: int
    validation: int
    rows: int


def check_split(split: Sequence[float]) -> None:
    """Raises:
    InputError: these are not three positive shares that add up to 1.
    """
    positive = all(share > 0 for share in split)  # which a nan is not
    if len(split) != 3 or not positive or not abs(sum(split) - 1) <= 1e-6:
        raise InputError(
            "split must be three positive shares of training, validation and test that add up to "
            f"1, such as 0.7,0.1,0.2; got {','.join(f'{s:g}' for s in split)}"
        )


def split_rows(table: Table, spec: ForecastSpec, split: Sequence[float]) -> Split:
    """Chronological split.

    Args:
        table: all rows.
        spec: lengths; each part must hold one horizon, the first a window too.
        split: shares of training, validation and test; they add up to 1.

    Raises:
        InputError: the shares do not add up, or a part is too short.
    """
    check_split(split)
    n = table.span
    at = table.places.position_of
    s = Split(at(split[0]), at(split[0] + split[1]), n)
    parts = (
        ("training", s.train, spec.window + spec.horizon),
        ("validation", s.validation - s.train, spec.horizon),
        ("test", n - s.validation, spec.horizon),
    )
    for name, have, need in parts:
        if have < need:
            raise InputError(
                f"the data has {n} rows, of which the {name} part gets {have}, but a window of "
                f"{spec.window} and a horizon of {spec.horizon} need {need} there; give more "
                "rows, a shorter window or horizon, or other shares of the parts (split, --split)"
            )
    return s


def season_of(table: Table, rows: int) -> int:
    """Rows of the shortest natural cycle (day, week, year) that is longer than the time step; 1 if
    that has more rows than a season may have, as for steps of microseconds, or if times are
    irregular.

    Without times, or with steps of a year or more: the lag with the largest autocovariance of the
    changes in the first `rows` rows.
    """
    seconds = table.step_seconds
    if table.calendar is not None and table.calendar.irregular:
        return 1
    if seconds is not None:
        cycles = [c for cycle in (DAY, WEEK, YEAR) if (c := round(cycle / seconds)) > 1]
        if cycles:
            return next((c for c in cycles if c <= MOST_ROWS), 1)
    rows = rows if table.some is None else min(rows, SOME)
    change = np.diff(table.target[table.places.longest(), 0][:rows])
    if len(change) == 0:
        return 1
    change = change - change.mean()
    lags = range(2, min(len(change) // 3, 1000))
    alike = [float(change[lag:] @ change[:-lag]) / (len(change) - lag) for lag in lags]
    return 1 if not alike or max(alike) <= 0 else int(np.argmax(alike)) + 2


def cycles_of(table: Table, rows: int) -> tuple[str, ...]:
    """The cycles to use as features: longer than the step, and at least twice in `rows` rows."""
    seconds = table.step_seconds
    if seconds is None:
        return ()
    cycles = {"day": DAY, "week": WEEK, "year": YEAR}
    return tuple(n for n, c in cycles.items() if 2 * seconds < c and 2 * c <= rows * seconds)
