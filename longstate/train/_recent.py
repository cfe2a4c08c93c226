"""The last rows of every series, kept by a forecaster so that new ones can be added.

Axes: n rows, in the order of the series and then of time.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pandas as pd

from longstate.errors import InputError, near
from longstate.models import ForecastSpec
from longstate.models._time_text import read
from longstate.train._frame import Data
from longstate.train._labels import as_texts
from longstate.train._read_table import named, table_of
from longstate.train._table import Table


@dataclass(frozen=True)
class Recent:
    """The rows that the next forecast reads.

    Args:
        spec: columns and window.
        past: rows with a target, and those between; about `spec.window` of each series.
        ahead: later rows, with the columns that are known in advance.
        left: number of rows of each series that were there before and are no longer needed.
    """

    spec: ForecastSpec
    past: pd.DataFrame
    ahead: pd.DataFrame
    left: dict[str, int] = field(default_factory=dict)

    @classmethod
    def nothing(cls, spec: ForecastSpec) -> "Recent":
        empty = pd.DataFrame(columns=list(spec.columns))
        return cls(spec, empty, empty)

    @cached_property
    def table(self) -> Table:
        """The table of all rows.

        Raises:
            InputError: they cannot be used.
        """
        table = table_of(_joined(self.past, self.ahead), self.spec)
        if table.panel is None:
            return replace(table, before=table.before + self.left.get("", 0))
        if table.panel.base is not None:
            return table
        panel = table.panel
        left = np.array([self.left.get(name, 0) for name in panel.names])
        position = panel.position + np.repeat(left, np.diff(panel.starts))
        return replace(table, panel=replace(panel, position=position))

    def check(self) -> None:
        """Raise InputError if the rows cannot be used."""
        if not len(self.past):
            raise InputError("there are no rows to forecast from; update gives them")
        try:
            self.table  # noqa: B018
        except InputError as e:
            raise InputError(f"{e} (of the rows that are kept, and the new ones)") from None

    def updated(self, rows: Data) -> "Recent":
        """With later rows of some series; new series begin.

        Raises:
            InputError: a column is missing, or they do not follow. `check` tells the rest.
        """
        spec, names = self.spec, list(self.spec.columns)
        new = named(rows, spec)
        for name in names:
            if name not in new.columns:
                raise InputError(f"the rows have no column {name!r}; {near(name, new.columns)}")
        given = np.repeat([False, True], [len(self.past), len(new)])
        every = _joined(self.past, new[names].reset_index(drop=True))
        codes, ids = _series(every, spec)
        order = _order(every, codes, spec)
        if order is not None:
            every, codes = every.iloc[order].reset_index(drop=True), codes[order]
        given = (np.arange(len(every)) if order is None else order) >= len(self.past)
        self._check_follows(every, given, codes)
        for name in (*spec.static, *(c.column for c in spec.categories if c.role == "static")):
            every[name] = every[name].groupby(codes).ffill()
        filled = [every[name].notna().to_numpy() for name in spec.targets]
        seen = np.any(filled, axis=0)
        past = ~given | (np.arange(len(every)) <= _last(seen, codes, len(ids))[codes])
        filled = [np.all(filled, axis=0)]
        filled += [every[name].notna().to_numpy() for name in (*spec.covariates, *spec.known)]
        needed = past.copy()
        needed[past] = _needed([rows[past] for rows in filled], codes[past], len(ids), spec.window)
        gone = np.bincount(codes[past & ~needed], minlength=len(ids)).tolist()
        left = self.left | {n: self.left.get(n, 0) + k for n, k in zip(ids, gone, strict=True)}
        later = self.ahead[_later(self.ahead, every, given, codes, ids, spec)]
        return Recent(spec, every[needed], _joined(every[~past], later), left)

    def _check_follows(self, every: pd.DataFrame, given: np.ndarray, codes: np.ndarray) -> None:
        """Raise InputError if a new row is before a row that is kept."""
        wrong = np.flatnonzero(given[:-1] & ~given[1:] & (codes[:-1] == codes[1:]))
        if len(wrong):
            row, (id, time) = int(wrong[0]), (str(self.spec.id), str(self.spec.time))
            last = every[time][~given & (codes == codes[row])].iloc[-1]
            raise InputError(
                f"series {str(every[id].iloc[row])!r} has a new row at {every[time].iloc[row]}, "
                f"which does not come after its last one, at {last}"
            )

    def after(self, rows: int) -> "Recent":
        """The same, where so many rows of a single series came before."""
        left = self.left.get("", 0) + rows
        return replace(self, left=self.left | {"": left}) if rows else self


def _joined(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    both = [x for x in (a, b) if len(x)]
    return pd.concat(both, ignore_index=True) if both else a


def _series(frame: pd.DataFrame, spec: ForecastSpec) -> tuple[np.ndarray, list[str]]:
    """(n): the number of the series of each row; and the ids as texts. All are of one series
    without a panel."""
    if spec.id is None:
        return np.zeros(len(frame), np.int64), [""]
    codes, ids = pd.factorize(as_texts(frame[spec.id]).fillna(""))
    return codes, list(ids)


def _order(frame: pd.DataFrame, codes: np.ndarray, spec: ForecastSpec) -> np.ndarray | None:
    """(n): rows by series and then by time; None for a single series, which is in order."""
    if spec.id is None:
        return None
    if spec.calendar is None:
        return np.argsort(codes, kind="stable")
    return np.lexsort((pd.Series(_stamps(frame, spec)).rank().to_numpy(), codes))


def _stamps(frame: pd.DataFrame, spec: ForecastSpec) -> pd.Index:
    assert spec.calendar is not None
    return read(spec.calendar, frame[str(spec.time)].reset_index(drop=True))


def _last(rows: np.ndarray, codes: np.ndarray, series: int) -> np.ndarray:
    """(series): the last of these rows in each series, which have this number; -1 without one."""
    last = np.full(series, -1)
    np.maximum.at(last, codes[rows], np.flatnonzero(rows))
    return last


def _needed(filled: list[np.ndarray], codes: np.ndarray, series: int, window: int) -> np.ndarray:
    """(n): whether a row is not before the first that is needed: every target has a value there,
    and every other column there or later, before the window.

    Args:
        filled (n): whether all targets have a value; and each other column.
        codes (n): of the series, in order.
    """
    rows = np.arange(len(codes))
    first = np.searchsorted(codes, np.arange(series))[codes]
    before = first + np.bincount(codes, minlength=series)[codes] - rows >= window
    least = np.full(len(codes), len(codes))
    for has in filled:
        last = _last(before & has, codes, series)[codes]
        least = np.minimum(least, np.where(last < 0, first, last))
    return rows >= least


def _later(
    ahead: pd.DataFrame,
    every: pd.DataFrame,
    given: np.ndarray,
    codes: np.ndarray,
    ids: list[str],
    spec: ForecastSpec,
) -> np.ndarray:
    """(m): whether rows of the future are after all other rows of their series.

    Args:
        ahead: these rows. every: the others; `given` are new ones among them, `codes` and `ids`
            tell their series.
    """
    if not len(ahead):
        return np.zeros(0, dtype=bool)
    own, names = _series(ahead, spec)
    at = pd.Index(ids).get_indexer(pd.Index(names))[own]  # -1 where there are no other rows
    if spec.calendar is None:  # as many rows of the future have come
        came = np.bincount(codes[given], minlength=len(ids))
        return np.asarray((at < 0) | (ahead.groupby(own).cumcount().to_numpy() >= came[at]))
    last = _stamps(every, spec)[_last(np.ones(len(codes), dtype=bool), codes, len(ids))]
    return np.asarray((at < 0) | (_stamps(ahead, spec) > last[at]))
