"""A single series with more rows than memory has room for: some of them stand for all.

Its columns are memory-mapped files. What reads all rows of a table in memory reads `some` here, one
of each of `SOME` intervals, with the least and the largest value of every column among them; and
windows begin at one row of each of `WINDOWS` intervals. A row is drawn from its interval by a fixed
seed, since even distances could meet the same time of day again and again.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from longstate.models import Calendar, ForecastSpec
from longstate.models._spec import calendar_features
from longstate.train._panel import Panel

SOME = 1 << 20
WINDOWS = 1 << 18
PIECE = 1 << 16
"""Rows in memory at once, of a column that is read as a whole."""


class RowNumbers:
    """The position of each row: its number, without an array of them."""

    def __getitem__(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows)


@dataclass(frozen=True)
class LongSeries(Panel):
    """A panel of one such series.

    Args:
        some: rows that stand for all, in order.
    """

    some: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @classmethod
    def of_rows(cls, rows: int, some: np.ndarray) -> "LongSeries":
        one = Panel.of_one(1)
        both, at = np.array([0, rows]), RowNumbers()
        return cls(one.ids, one.names, both, one.firsts, both[1:], at, None, None, some)  # type: ignore[arg-type]

    @property
    def span(self) -> int:
        return int(self.ends[0])

    def past(self, until: int | None = None) -> np.ndarray:
        return self.some if until is None else self.some[self.some < until]

    def origins(self, window: int, horizon: int) -> np.ndarray:
        return one_of_each(window, self.span - horizon + 1, WINDOWS, np.random.default_rng(0))

    def position_of(self, share: float, until: int | None = None) -> int:
        end = self.span if until is None else until
        return min(round(end * share), end)

    def share_before(self, position: int) -> float:
        return position / self.span


def one_of_each(first: int, end: int, count: int, draw: np.random.Generator) -> np.ndarray:
    """Numbers of [first, end), in order: one of each of `count` equal intervals, or all."""
    size = max(0, end - first)
    if size <= count:
        return np.arange(first, first + size)
    edges = first + size * np.arange(count + 1) // count
    return edges[:-1] + (draw.random(count) * np.diff(edges)).astype(np.int64)


def any_of(flags: np.ndarray, starts: np.ndarray, length: int) -> np.ndarray:
    """Whether there is any True in flags[start : start + length], for each start."""
    view = np.lib.stride_tricks.sliding_window_view(flags, length, axis=0)
    parts = np.array_split(starts, -(-len(starts) // 2048)) if len(starts) else []
    found = [view[part].any(axis=(1, 2)) for part in parts]
    return np.concatenate([np.zeros(0, bool), *found])


class LongCalendar:
    """Features of the times of rows, computed when they are needed.

    Args:
        calendar: even; None without times. first: number of row 0 on its grid.
        spec: the cycles.
    """

    def __init__(self, calendar: Calendar | None, first: int, spec: ForecastSpec):
        self.calendar, self.first, self.cycles = calendar, first, spec.cycles

    def rows(self, starts: np.ndarray, length: int) -> Tensor:
        """(b, length, m) from each of the rows `starts` (b) on."""
        at = (starts[:, None] + np.arange(length)).ravel()
        clock = None
        if self.calendar is not None and self.cycles:
            clock = self.calendar.wall_clock(self.calendar.at(self.first + at))
        found = calendar_features(clock, self.cycles, len(at))
        return torch.from_numpy(found.reshape(len(starts), length, -1))
