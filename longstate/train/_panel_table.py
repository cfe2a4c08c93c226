"""The table of a panel from a long frame; and from a wide one.

Axes: n rows, s series, c targets, p covariates, k known, a static numbers, e text columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Calendar, ForecastSpec
from longstate.models._scale import Scale
from longstate.train._columns import Columns, check_columns, numbers_of
from longstate.train._panel import Panel, fit_units
from longstate.train._panel_rows import PanelRows, place_panel
from longstate.train._table import Table
from longstate.train._time_step import Timing

ID, TIME, VALUE = "unique_id", "ds", "y"
MOST_NAMES = 3  # in a sentence


def named(names: Sequence[str]) -> str:
    """The number of series and the names of some: "2 series ('a', 'b')"."""
    few = ", ".join(map(repr, names[:MOST_NAMES])) + (", ..." if len(names) > MOST_NAMES else "")
    return f"{len(names):,} series ({few})"


def melt(frame: pd.DataFrame, series: Sequence[str]) -> pd.DataFrame:
    """The long frame of a wide one: each of the columns `series` becomes one series; the others,
    also those that are known in advance, are repeated for each.

    Raises:
        InputError: a column is missing, or one of the new names is taken.
    """
    check_columns(frame, Columns(tuple(series)))
    others = [name for name in frame.columns if name not in series]
    for name in (ID, VALUE):
        if name in others:
            raise InputError(f"a wide frame cannot have a column {name!r}; rename it")
    parts = [frame[others].assign(**{ID: name, VALUE: numbers_of(frame[name])}) for name in series]
    return pd.concat(parts, ignore_index=True)


def make_panel(
    frame: pd.DataFrame,
    columns: Columns,
    *,
    calendar: Calendar | None = None,
    timing: Timing = Timing(),  # noqa: B008
) -> Table:
    """Check and clean a long frame.

    Args:
        frame: one row for each series and time, in any order.
        columns: which are read; `id` names the series.
        calendar: that of training; None to find it.
        timing: settings of the times, used to find the calendar.

    Raises:
        InputError: a column is missing or not numeric; see also `place_panel`.
    """
    assert columns.id is not None
    check_columns(frame, columns)
    frame = frame.reset_index(drop=True)
    rows = place_panel(frame, columns.id, columns.time, calendar, timing)
    values = columns.values_of(frame).iloc[rows.order].reset_index(drop=True)
    for name in (*columns.targets, *columns.covariates, *columns.known):
        if values[name].isna().all():
            raise InputError(f"the column {name!r} is empty")
    for name in columns.once:
        missing = values[name] == 0 if name not in columns.static else values[name].isna()
        values[name] = _once(values[name].mask(missing), name, rows)
    first, end, notes = _pasts(rows, values[list(columns.targets)].to_numpy())
    grid = _Grid.of(rows, first, end, columns.reads_ahead)
    laid = pd.DataFrame(grid.lay(values.to_numpy()), columns=values.columns)
    observed = laid[list(columns.targets)].notna().to_numpy()
    notes = [_size(grid), *notes]
    if rows.calendar is not None and _follow(first[grid.kept], end[grid.kept]):
        notes.append(
            "No two series have a time in common. If they are the parts of one series, join them "
            "into one table."
        )
    gaps = int((~observed[grid.past]).any(axis=1).sum())
    if gaps:
        notes.append(f"{gaps:,} rows have a gap in the target; the forecaster skips them.")
    base = int(grid.number.min()) if rows.calendar and rows.calendar.even else None
    return Table(
        columns=columns,
        target=_held(laid[list(columns.targets)], grid),
        observed=observed,
        covariates=_held(laid[list(columns.covariates)], grid),
        known=_held(laid[list(columns.known)], grid, ahead=False),
        times=None,
        calendar=rows.calendar,
        notes=(*rows.notes, *notes),
        static=_held(laid[list(columns.static)], grid),
        codes=_codes(laid, columns, grid),
        panel=Panel(
            ids=rows.ids[grid.kept],
            names=tuple(str(name) for name in rows.ids[grid.kept]),
            starts=grid.starts,
            firsts=grid.starts[:-1],
            ends=grid.ends,
            position=grid.number - (base or 0),
            base=base,
        ),
    )


def _size(grid: "_Grid") -> str:
    rows = grid.ends - grid.starts[:-1]
    least, most = f"{rows.min():,}", f"{rows.max():,}"
    return f"{len(rows):,} series of {least if least == most else f'{least} to {most}'} rows."


def _follow(first: np.ndarray, end: np.ndarray) -> bool:
    """Whether several spans of rows follow each other."""
    order = np.argsort(first)
    return len(first) > 1 and bool((end[order][:-1] <= first[order][1:]).all())


def _once(column: pd.Series, name: str, rows: PanelRows) -> pd.Series:
    """The one value of each series, in all its rows."""
    groups = column.groupby(rows.series)
    different = np.flatnonzero((groups.nunique() > 1).to_numpy())
    if len(different):
        raise InputError(
            f"the static column {name!r} changes within series {str(rows.ids[different[0]])!r}; a "
            "static column has one value for each series"
        )
    return groups.transform("first")


def _pasts(rows: PanelRows, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """The grid number of the first complete row of each series, and that after the last with any
    target; both 0 for series without a value."""
    s, notes = len(rows.ids), []
    missing = np.isnan(target)
    first = np.full(s, np.iinfo(np.int64).max)
    end = np.full(s, np.iinfo(np.int64).min)
    whole, some = ~missing.any(axis=1), ~missing.all(axis=1)
    np.minimum.at(first, rows.series[whole], rows.number[whole])
    np.maximum.at(end, rows.series[some], rows.number[some] + 1)
    empty = first >= end
    if empty.all():
        raise InputError("no series has a row with a value of every target")
    if empty.any():
        names = [str(x) for x in rows.ids[empty]]
        notes.append(f"{named(names)} have no value of the target; they are left out.")
        first[empty] = end[empty] = 0
    return first, end, notes


@dataclass(frozen=True)
class _Grid:
    """The rows of the table: every step of each series that is kept.

    Args:
        kept: numbers of these series in the data.
        starts (s + 1), ends (s): as in `Panel`.
        series (n), number (n), past (n): series and grid number of each row, and whether it is of
            the past.
        source, place: rows of the data, and where they are in the table.
    """

    kept: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    series: np.ndarray
    number: np.ndarray
    past: np.ndarray
    source: np.ndarray
    place: np.ndarray

    @classmethod
    def of(cls, rows: PanelRows, first: np.ndarray, end: np.ndarray, ahead: bool) -> "_Grid":
        """From the first row of each series to its last one, or to the end of its past."""
        last = end.copy()
        if ahead:
            np.maximum.at(last, rows.series, rows.number + 1)
            last[end <= first] = 0
        kept = np.flatnonzero(end > first)
        sizes = last - first
        starts = np.concatenate([[0], np.cumsum(sizes)])
        inside = (rows.number >= first[rows.series]) & (rows.number < last[rows.series])
        source = np.flatnonzero(inside)
        series = rows.series[source]
        place = starts[series] + rows.number[source] - first[series]
        starts = np.concatenate([[0], np.cumsum(sizes[kept])])
        of_row = np.repeat(np.arange(len(kept)), sizes[kept])
        number = np.arange(len(of_row)) - starts[of_row] + first[kept][of_row]
        past = number < end[kept][of_row]
        ends = starts[:-1] + (end - first)[kept]
        return cls(kept, starts, ends, of_row, number, past, source, place)

    def lay(self, values: np.ndarray) -> np.ndarray:
        """Rows of the data as rows of the table; nan where there is none."""
        out = np.full((len(self.series), values.shape[1]), np.nan)
        out[self.place] = values[self.source]
        return out


def _held(values: pd.DataFrame, grid: _Grid, *, ahead: bool = True) -> np.ndarray:
    """Gaps hold the last value of the series; before the first one that; and the mean of all series
    where a series has none. Without `ahead` gaps of the future stay."""
    if not values.shape[1]:
        return np.zeros(values.shape)
    filled = values.groupby(grid.series).ffill()
    filled = filled.fillna(filled.groupby(grid.series).bfill()).fillna(values.mean())
    if not ahead:
        filled = filled.where(grid.past[:, None], values)
    return filled.to_numpy()


def _codes(laid: pd.DataFrame, columns: Columns, grid: _Grid) -> np.ndarray:
    """Codes (n, e) of the text columns; 0 in gaps, but for those that a series has once."""
    found = laid[[one.column for one in columns.categories]].copy()
    for one in columns.categories:
        if one.role == "static":
            found[one.column] = found.groupby(grid.series)[one.column].transform("first")
    return found.fillna(0).to_numpy().astype(np.int64)


def resized(table: Table, before: int, after: int) -> Table:
    """The table with at least `before` rows of past and `after` rows of future in each series:
    padding holds the first and the last value, and is not observed. A single series stays as it is.
    """
    if table.panel is None:
        return table
    panel, source, inside = table.panel.resized(before, after)
    return replace(
        table,
        target=table.target[source],
        observed=table.observed[source] & inside[:, None],
        covariates=table.covariates[source],
        known=table.known[source],
        static=table.static[source],
        codes=table.codes[source],
        panel=panel,
    )


def ahead(table: Table, window: int, rows: int) -> tuple[Table, np.ndarray]:
    """The last `window` rows of each series, or more, and `rows` later ones that are not observed,
    of which the times are known; and the first of these in each series (s).

    Columns that are known in advance must be there for them.
    """
    if table.panel is not None:
        full = resized(table, window, rows)
        return full, full.places.ends
    n, begin = table.rows, max(0, table.rows - window)
    at, times = np.arange(begin, n + rows), table.times_ahead(rows)
    held, codes = np.minimum(at, n - 1), table.codes
    full = replace(
        table,
        target=table.target[held],
        observed=table.observed[held] & (at < n)[:, None],
        covariates=table.covariates[held],
        known=table.known[begin:],
        times=None if times is None else times[begin:],
        codes=codes[np.minimum(at, len(codes) - 1)] if codes.size else codes,
    )
    return full, np.array([n - begin])


def with_units(
    table: Table,
    spec: ForecastSpec,
    until: int | None = None,
    trained: Scale | None = None,
    *,
    strict: bool = False,
) -> Table:
    """The table with the scale of each series: that of training, or from its rows before a
    position. A single series stays as it is: its scale is the model's.

    Args:
        table: of a panel. spec: names the series of training, and the transform.
        until: a position; None takes all rows.
        trained: the scales of the model.
        strict: take no row after the position, however few are before.
    """
    if table.panel is None:
        return table
    panel = table.panel
    units = fit_units(
        panel,
        table.target,
        spec.transform,
        spec.lower,
        until=until,
        strict=strict,
        trained=trained,
        names=spec.series,
    )
    return replace(table, panel=replace(panel, units=units))
