"""The last rows of a series, kept by a forecaster so that new ones can be added."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from longstate.errors import InputError, near
from longstate.models import ForecastSpec
from longstate.train._frame import Data
from longstate.train._read_table import named, table_of
from longstate.train._table import Table


@dataclass(frozen=True)
class Recent:
    """The rows that the next forecast reads.

    Args:
        spec: columns and window.
        past: rows with a target, and those between; about `spec.window` of them.
        ahead: later rows, with the columns that are known in advance.
        left: number of rows that were there before and are no longer needed.
        read: the table of both; None without rows.
    """

    spec: ForecastSpec
    past: pd.DataFrame
    ahead: pd.DataFrame
    left: int = 0
    read: Table | None = None

    @classmethod
    def nothing(cls, spec: ForecastSpec) -> "Recent":
        empty = pd.DataFrame(columns=list(spec.columns))
        return cls(spec, empty, empty)

    @property
    def table(self) -> Table:
        if self.read is None:
            raise InputError("there are no rows to forecast from; update gives them")
        return self.read

    def updated(self, rows: Data) -> "Recent":
        """With later rows.

        Raises:
            InputError: they cannot be used, or do not follow.
        """
        spec, names = self.spec, list(self.spec.columns)
        new = named(rows, spec)
        for name in names:
            if name not in new.columns:
                raise InputError(f"the rows have no column {name!r}; {near(name, new.columns)}")
        new = new[names].reset_index(drop=True)
        seen = np.flatnonzero(new[list(spec.targets)].notna().any(axis=1))
        count = int(seen[-1]) + 1 if len(seen) else 0
        past = _joined(self.past, new[:count])
        start = _start(past, spec)
        past, left = past[start:], self.left + start
        ahead = new[count:] if count < len(new) else self.ahead[count:]
        try:
            table = table_of(_joined(past, ahead), spec)
        except InputError as e:
            kept = len(past) - count
            raise InputError(f"{e} (of {kept} rows that are kept, and the new ones)") from None
        return Recent(spec, past, ahead, left, replace(table, before=table.before + left))

    def after(self, rows: int) -> "Recent":
        """The same, where so many rows of the data came before."""
        read = None if self.read is None else replace(self.read, before=self.read.before + rows)
        return replace(self, left=self.left + rows, read=read)


def _joined(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    both = [x for x in (a, b) if len(x)]
    return pd.concat(both, ignore_index=True) if both else a


def _start(past: pd.DataFrame, spec: ForecastSpec) -> int:
    """The first row that is needed: every target has a value there, and every other column there or
    later, before the window."""
    begin = max(0, len(past) - spec.window)
    values = past[: begin + 1]
    starts = [values[list(spec.targets)].notna().all(axis=1)]
    starts += [values[name].notna() for name in (*spec.covariates, *spec.known)]
    found = [np.flatnonzero(start) for start in starts]
    return min(int(rows[-1]) if len(rows) else 0 for rows in found)
