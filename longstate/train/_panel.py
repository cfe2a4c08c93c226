"""The rows of a panel: many series, one after the other in the arrays of one table.

    rows   |padding| past of series 0 |future| |padding| past of series 1 |future| ...
           start   first              end      start   first              end

All series lie on one grid of time. The position of a row is the number of its grid point, from 0 at
the first row of the panel. A single series is a panel of one: its positions are its row numbers.

Axes: n rows, s series, c targets.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from longstate.models._scale import Scale, Units

FEWEST = 3  # rows of the training part from which a series has its own scale


@dataclass(frozen=True)
class Panel:
    """Where the series are.

    Args:
        ids (s): as in the data. names (s): the same as texts.
        starts (s + 1): first row of each series, with padding; the last one is n.
        firsts (s): first row with data. ends (s): the row after the past.
        position (n): of each row, int64; padding may be before 0.
        base: number of position 0 on the grid of the calendar; None without one: then a position is
            the number of a row in its series.
        units (s, c): scale of each series; None until it is known.
    """

    ids: pd.Index
    names: tuple[str, ...]
    starts: np.ndarray
    firsts: np.ndarray
    ends: np.ndarray
    position: np.ndarray
    base: int | None
    units: Units | None = None

    @classmethod
    def of_one(cls, rows: int) -> "Panel":
        """A single series."""
        none, at = np.zeros(1, np.int64), np.arange(rows)
        ends = np.array([rows])
        return cls(pd.Index([""]), ("",), np.array([0, rows]), none, ends, at, None)

    @property
    def span(self) -> int:
        """Number of positions of the past."""
        last = self.position[self.ends - 1]
        return int(last.max()) + 1

    def of(self, rows: np.ndarray) -> np.ndarray:
        """The series of each row."""
        return np.searchsorted(self.starts, rows, side="right") - 1

    def past(self, until: int | None = None) -> np.ndarray:
        """All rows of the past with data, before the position `until`."""
        pairs = zip(self.firsts.tolist(), self.ends.tolist(), strict=True)
        rows = np.concatenate([np.arange(first, end) for first, end in pairs])
        return rows if until is None else rows[self.position[rows] < until]

    def origins(self, window: int, horizon: int) -> np.ndarray:
        """The first rows of all horizons after a window, both within one series."""
        pairs = zip((self.starts[:-1] + window).tolist(), self.ends.tolist(), strict=True)
        return np.concatenate([np.arange(first, end - horizon + 1) for first, end in pairs])

    def usual(self) -> int:
        """Rows of the series of median length."""
        return int(np.median(self.ends - self.firsts))

    def longest(self) -> slice:
        """The rows of the longest series."""
        i = int((self.ends - self.firsts).argmax())
        return slice(int(self.firsts[i]), int(self.ends[i]))

    def position_of(self, share: float, until: int | None = None) -> int:
        """The position before which this share of the rows before the position `until` is."""
        ordered = np.sort(self.position[self.past(until)])
        at = round(len(ordered) * share)
        return int(ordered[at]) if at < len(ordered) else self.span if until is None else until

    def share_before(self, position: int) -> float:
        """The share of the rows before a position."""
        rows = self.position[self.past()]
        return float((rows < position).mean())

    def resized(self, before: int, after: int) -> tuple["Panel", np.ndarray, np.ndarray]:
        """The same series with at least `before` rows of past and `after` rows of future.

        Returns:
            The new panel; and for each of its rows the old row that it holds (n), and whether it
            is this row (n) and no padding.
        """
        s = len(self.names)
        left = np.maximum(0, before - (self.ends - self.starts[:-1]))
        right = np.maximum(0, after - (self.starts[1:] - self.ends))
        sizes = left + np.diff(self.starts) + right
        starts = np.concatenate([[0], np.cumsum(sizes)])
        series = np.repeat(np.arange(s), sizes)
        wanted = np.arange(starts[-1]) - (starts[:-1] + left - self.starts[:-1])[series]
        source = np.clip(wanted, self.starts[series], self.starts[series + 1] - 1)
        moved = starts[:-1] + left - self.starts[:-1]
        panel = replace(
            self,
            starts=starts,
            firsts=self.firsts + moved,
            ends=self.ends + moved,
            position=self.position[source] + wanted - source,
        )
        return panel, source, wanted == source


def fit_units(
    panel: Panel,
    target: np.ndarray,
    transform: str,
    lower: float | None,
    *,
    until: int | None = None,
    strict: bool = False,
    trained: Scale | None = None,
    names: tuple[str, ...] = (),
) -> Units:
    """The scale of each series from its rows before a position, or from all its rows if these are
    fewer than `FEWEST` or constant.

    Args:
        panel: the rows. target (n, c): their values.
        transform, lower: as in `Scale.fit`.
        until: a position; None takes all rows.
        strict: take no row after it, however few are before.
        trained: the scales of a model, which its series `names` keep.

    Returns:
        (s, c)
    """
    place = {} if trained is None else {name: i for i, name in enumerate(names)}
    fresh = [i for i, name in enumerate(panel.names) if name not in place]
    found: list[Units] = []
    for first, end in zip(panel.firsts[fresh], panel.ends[fresh], strict=True):
        rows = np.array(target[first:end])
        if until is not None:
            part = rows[panel.position[first:end] < until]
            few = len(part) < FEWEST or bool((np.ptp(part, axis=0) == 0).any())
            rows = part if len(part) and (strict or not few) else rows
        scale = Scale(target.shape[1], transform)
        scale.fit(torch.from_numpy(rows), lower)
        found.append(scale.units)
    each: list[Any] = [
        None if parts[0] is None else torch.stack(parts) for parts in zip(*found, strict=True)
    ]
    if trained is None:
        return Units(*each)
    at = torch.tensor([place.get(name, 0) for name in panel.names])
    units = trained.units.each(lambda x: x[at])
    for own, new in zip(units, each, strict=False):
        if own is not None and new is not None:
            own[fresh] = new
    return units
