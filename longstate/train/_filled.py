"""Columns of a table, written part by part with gaps filled as `make_table` fills them.

A gap holds the last value before it, or the first one of its column. Rows before the first one with
all targets are left out, and rows after the last one with any target are the future.
"""

from pathlib import Path
from typing import IO, Any

import numpy as np

from longstate.train._columns import Columns


class Filled:
    """Writes the columns of one series.

    Args:
        columns: their roles; parts have targets, covariates and known columns in this order.
        files: open files "target", "observed", "covariates" and "known".
    """

    def __init__(self, columns: Columns, files: dict[str, IO[bytes]]):
        self.names = (*columns.targets, *columns.covariates, *columns.known)
        self._ends = np.cumsum([len(columns.targets), len(columns.covariates), len(columns.known)])
        self._files = files
        self.rows = self.before = self.later = self.gaps = self.known_later = 0
        size = len(self.names)
        self._first, self._last = np.full(size, -1), np.full(size, -1)
        self._least, self._most = np.full(size, np.inf), np.full(size, -np.inf)
        self._at = np.zeros((2, size), np.int64)  # rows of the least and the largest values
        self._carried, self._begun = np.full(size, np.nan), np.full(size, np.nan)
        self._waiting: list[np.ndarray] = []  # after the last row with a target

    def add(self, values: np.ndarray) -> None:
        """The next rows (n, columns), nan where there is no value."""
        some = np.flatnonzero(~np.isnan(values[:, : self._ends[0]]).all(axis=1))
        if len(some) == 0:
            self._waiting.append(values)
            return
        end = int(some[-1]) + 1
        self._write(np.concatenate([*self._waiting, values[:end]]))
        self._waiting = [values[end:]]

    def end(self) -> bool:
        """Write what is known of the future. Returns whether every column has a value."""
        if not self.rows or (self._last < 0).any():
            return False
        later = np.concatenate([np.zeros((0, len(self.names))), *self._waiting])
        self.later = self.known_later = len(later)
        known = later[:, self._ends[1] :]
        gaps = np.flatnonzero(np.isnan(known).any(axis=1))
        if len(gaps):
            self.known_later = int(gaps[0])
        self._files["known"].write(np.ascontiguousarray(known[: self.known_later]).tobytes())
        return True

    def fill_beginnings(self, folder: Path) -> None:
        """Put the first value of a column in front of it."""
        first, second, third = (int(end) for end in self._ends)
        for name, start, end in (("covariates", first, second), ("known", second, third)):
            if end > start and (self._first[start:end] > 0).any():
                rows = self.rows + (self.known_later if name == "known" else 0)
                shape = (rows, end - start)
                whole = np.memmap(folder / name, np.float64, mode="r+", shape=shape)
                for j in range(start, end):
                    whole[: self._first[j], j - start] = self._begun[j]
                whole.flush()

    def facts(self) -> dict[str, Any]:
        """Numbers that are kept beside the files."""
        since = self.rows - 1 - self._last
        return {
            "rows": self.rows,
            "before": self.before,
            "later": self.later,
            "known_later": self.known_later,
            "since": dict(zip(self.names, since.tolist(), strict=True)),
            "extremes": sorted(set(self._at.ravel().tolist())),
        }

    def _write(self, values: np.ndarray) -> None:
        c, p, _ = self._ends
        if not self.rows:
            whole = np.flatnonzero(~np.isnan(values[:, :c]).any(axis=1))
            start = int(whole[0]) if len(whole) else len(values)
            self.before += start
            values = values[start:]
        if not len(values):
            return
        have = ~np.isnan(values)
        self._note(values, have)
        self.gaps += int((~have[:, :c].all(axis=1)).sum())
        at = np.maximum.accumulate(np.where(have, np.arange(len(values))[:, None], -1), axis=0)
        filled = np.take_along_axis(values, np.maximum(at, 0), axis=0)
        filled = np.where(at < 0, self._carried, filled)
        self._carried = filled[-1].copy()
        parts = {
            "target": filled[:, :c],
            "observed": have[:, :c],
            "covariates": filled[:, c:p],
            "known": filled[:, p:],
        }
        for name, part in parts.items():
            self._files[name].write(np.ascontiguousarray(part).tobytes())
        self.rows += len(values)

    def _note(self, values: np.ndarray, have: np.ndarray) -> None:
        """First and last values, and the rows of the least and the largest."""
        for j, (column, there) in enumerate(zip(values.T, have.T, strict=True)):
            rows = np.flatnonzero(there)
            if not len(rows):
                continue
            if self._last[j] < 0:
                self._first[j], self._begun[j] = self.rows + rows[0], column[rows[0]]
            self._last[j] = self.rows + rows[-1]
            low, high = rows[column[rows].argmin()], rows[column[rows].argmax()]
            if column[low] < self._least[j]:
                self._least[j], self._at[0, j] = column[low], self.rows + low
            if column[high] > self._most[j]:
                self._most[j], self._at[1, j] = column[high], self.rows + high
