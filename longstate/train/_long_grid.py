"""Put the rows of a file on the grid of a calendar, part by part."""

from typing import Any

import numpy as np
import pandas as pd

from longstate.models import Calendar
from longstate.train._columns import Columns
from longstate.train._time_rows import added_note, beside_note, read_column, read_stamps
from longstate.train._time_step import Timing

MOST_ADDED = 1 << 22  # rows at once; more are no gap but a wrong time


class Grid:
    """What `place_rows` does, for parts of a file.

    Args:
        columns: that are read.
        calendar: even, from the first part; None without times.
        timing: settings of the times.
    """

    def __init__(self, columns: Columns, calendar: Calendar | None, timing: Timing):
        self.columns, self.calendar, self.timing = columns, calendar, timing
        self.lines = self.have = self.beside = self.most = 0
        self.first: int | None = None
        self.last = -1
        self._form: list[str] | None = None

    def placed(self, frame: pd.DataFrame) -> np.ndarray | None:
        """The numbers (n, columns) of the next rows, nan where times are missing; None if a time
        is not on the grid, or far from the others."""
        calendar, time = self.calendar, self.columns.time
        if time is not None and time not in frame.columns:
            frame = frame.rename_axis(time).reset_index()
        values = self.columns.values_of(frame, self.lines + 2).to_numpy()
        lines = self.lines + 2 + np.arange(len(frame))
        self.lines += len(frame)
        if calendar is None or time is None:
            self.have += len(values)
            return values
        stamps = frame[time].reset_index(drop=True)
        kept = ~(stamps.isna().to_numpy() & np.isnan(values).all(axis=1))
        values, stamps, lines = values[kept], stamps[kept].reset_index(drop=True), lines[kept]
        if not len(stamps):
            return values
        if self._form is None:
            self._form = read_column(stamps, None, self.timing, lines)[2]
        index = read_stamps(calendar, stamps, lines)
        numbers = calendar.index_of(index)
        self.first = int(numbers[0]) if self.first is None else self.first
        before = int(numbers[0]) - 1 if not self.have else self.last
        off = calendar.off_grid(index, numbers)
        if off.any() or (np.diff(numbers, prepend=before) <= 0).any():
            return None
        if int(numbers[-1]) - before > len(values) + MOST_ADDED:
            return None
        if calendar.dated:
            moved = np.abs(calendar.clock(index) - calendar.clock(calendar.at(numbers)))
            self.beside += int((moved > 0).sum())
            self.most = max(self.most, int(moved.max()))
        placed = np.full((int(numbers[-1]) - before, values.shape[1]), np.nan)
        placed[numbers - before - 1] = values
        self.have, self.last = self.have + len(values), int(numbers[-1])
        return placed

    @property
    def missing(self) -> int:
        """Rows that were added."""
        return 0 if self.first is None else self.last - self.first + 1 - self.have

    @property
    def sparse(self) -> bool:
        """Whether more rows are missing than present."""
        return self.missing > self.have

    @property
    def notes(self) -> list[str]:
        """Sentences on the times, in the words of `place_rows`."""
        found, calendar = list(self._form or []), self.calendar
        if calendar is not None and self.beside:
            found.append(beside_note(calendar, self.beside, self.most))
        if calendar is not None and self.missing:
            found.append(added_note(calendar, self.missing))
        return found

    @property
    def facts(self) -> dict[str, Any]:
        return {"first": self.first}
