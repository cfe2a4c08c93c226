"""A regular table of numbers from a data frame.

Rows are evenly spaced in time. Missing rows are added; gaps hold the last observed value (so no
later value is used) and are marked. Rows at the end with empty targets are the future: they hold
the columns that are known in advance.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Calendar
from longstate.models._calendar import seconds
from longstate.models._time_text import shown
from longstate.models._zones import naive
from longstate.train._columns import Columns, check_columns
from longstate.train._long_series import PIECE, LongSeries
from longstate.train._panel import Panel
from longstate.train._time_rows import place_rows
from longstate.train._time_step import Timing


@dataclass(frozen=True)
class Table:
    """n rows of the past, then rows of the future with only the columns in `known`.

    Args:
        columns: names, in the order of the arrays' columns.
        target (n, c), covariates (n, p): float64; gaps hold the last observed value.
        observed (n, c): False where the target was missing.
        known (n + future, k): float64.
        times (n + future): stamps of `calendar`, or None.
        calendar: step and format of the times, or None without times.
        notes: sentences about corrections.
        before: number of rows of the data before the first complete one; they are left out.
        since: number of rows of the past after the last value of each column.
        static (n, a): numbers that a series has once. codes (n + future, e): of the text columns.
        panel: where the series are, if there are many. All arrays have its rows then, which are
            those of the past and of the future; `times` is None, as its positions tell them.
        some: rows that stand for all, if the arrays are memory-mapped files; see `_long_series`.
    """

    columns: Columns
    target: np.ndarray
    observed: np.ndarray
    covariates: np.ndarray
    known: np.ndarray
    times: pd.Index | None
    calendar: Calendar | None
    notes: tuple[str, ...]
    before: int = 0
    since: dict[str, int] = field(default_factory=dict)
    static: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    codes: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    panel: Panel | None = None
    some: np.ndarray | None = None

    @property
    def places(self) -> Panel:
        """Where the series are; a single series is a panel of one."""
        if self.some is not None:
            return LongSeries.of_rows(self.rows, self.some)
        return self.panel or Panel.of_one(self.rows)

    @property
    def span(self) -> int:
        """Number of positions of the past; the rows of a single series."""
        return self.rows if self.panel is None else self.panel.span

    @property
    def rows(self) -> int:
        return self.target.shape[0]

    def times_ahead(self, rows: int) -> pd.Index | None:
        """Times of all n rows and of `rows` rows after them; None if these are unknown."""
        calendar = self.calendar
        if self.times is None or calendar is None or not (calendar.even or calendar.irregular):
            return None
        # irregular times of later rows are those in the data, as far as there are any
        given = self.rows + (min(self.ahead, rows) if calendar.irregular else 0)
        times, more = self.times[:given], self.rows + rows - given
        return times.append(calendar.next(times[-1], more)) if more else times

    @property
    def ahead(self) -> int:
        """Times of rows of the future in the data."""
        return 0 if self.times is None else len(self.times) - self.rows

    def wall_clock(self, ahead: int) -> np.ndarray | None:
        """Local times at `times_ahead`; None if times are not dates."""
        times = self.times_ahead(ahead)
        return None if times is None or self.calendar is None else self.calendar.wall_clock(times)

    @property
    def step_seconds(self) -> float | None:
        """Time between rows; the mean where months differ. None if it is not known."""
        calendar = self.calendar
        if calendar is None or self.rows < 2 or not calendar.even or not calendar.dated:
            return None
        if self.times is None:
            return None if self.panel is None else seconds(calendar)
        length = self.times[self.rows - 1] - self.times[0]
        return float(length.total_seconds()) / (self.rows - 1)

    def moment(self, position: int) -> str | None:
        """The time of a position as text; None without times."""
        if self.panel is None:
            return None if self.times is None else self.label(position)
        stamps = self.stamps(np.array([position]))
        return None if stamps is None or self.calendar is None else shown(self.calendar, stamps[0])

    def stamps(self, positions: np.ndarray) -> pd.Index | None:
        """The times of these positions, also of later ones; None if they are unknown."""
        if self.panel is None:
            times = self.times_ahead(max(0, int(positions.max(initial=0)) + 1 - self.rows))
            return None if times is None else times[positions]
        if self.panel.base is None or self.calendar is None:
            return None
        return self.calendar.at(self.panel.base + positions)

    def label(self, row: int) -> str:
        """The time of a row as text; the row number without times."""
        if self.panel is not None:
            position = int(self.panel.position[row])
            return self.moment(position) or str(position)
        if self.calendar is not None and self.times is not None:
            if row < self.rows:
                return shown(self.calendar, self.times[row])
            times = self.times_ahead(row - self.rows + 1)
            if times is not None:
                return shown(self.calendar, times[row])
        return str(row + self.before)

    def digest(self, rows: int) -> str:
        """A hash of the first `rows` rows; of the rows before this position in a panel."""
        h = hashlib.sha256(repr(self.columns).encode())
        if self.panel is not None:
            at = self.panel.past(rows)
            h.update(repr((self.panel.names, self.panel.base)).encode())
            for array in (self.panel.of(at), self.panel.position[at], self.target[at]):
                h.update(np.ascontiguousarray(array).tobytes())
            for array in (self.observed, self.covariates, self.known, self.static, self.codes):
                h.update(np.ascontiguousarray(array[at]).tobytes())
            return h.hexdigest()
        pieces = [slice(at, min(at + PIECE, rows)) for at in range(0, rows, PIECE)]
        for array in (self.target, self.observed, self.covariates, self.known):
            for piece in pieces:
                h.update(np.ascontiguousarray(array[piece]).tobytes())
        if self.times is not None and self.calendar is not None:
            for piece in pieces:
                times, dated = self.times[piece], self.calendar.dated
                clock = naive(times, False).as_unit("ms").asi8 if dated else np.asarray(times)
                h.update(clock.tobytes())
        return h.hexdigest()


def make_table(
    frame: pd.DataFrame,
    columns: Columns,
    *,
    calendar: Calendar | None = None,
    timing: Timing = Timing(),  # noqa: B008
) -> Table:
    """Check and clean `frame`.

    Args:
        frame: one row per time step, oldest first.
        columns: which columns are read.
        calendar: that of training; None to find it.
        timing: settings of the times, used to find the calendar.

    Raises:
        InputError: a column is missing, listed twice or not numeric; dates cannot be read, repeat,
            run backwards or are uneven; a target is empty.
    """
    check_columns(frame, columns)
    values = columns.values_of(frame)
    if columns.time is None:
        return _assemble(values, columns, None, None, [])
    placed = place_rows(values, frame[columns.time].reset_index(drop=True), calendar, timing)
    return _assemble(placed.values, columns, placed.times, placed.calendar, list(placed.notes))


def _assemble(
    values: pd.DataFrame,
    columns: Columns,
    times: pd.Index | None,
    calendar: Calendar | None,
    notes: list[str],
) -> Table:
    target = values[list(columns.targets)].to_numpy()
    for name, column in zip(columns.targets, target.T, strict=True):
        if np.isnan(column).all():
            raise InputError(f"the target column {name!r} is empty")
    seen = np.flatnonzero(~np.isnan(target).any(axis=1))
    if len(seen) == 0:
        raise InputError("no row has a value for every target")
    # Before the first complete row there is no last value; after the last one is the future.
    start, end = int(seen[0]), int(np.flatnonzero(~np.isnan(target).all(axis=1))[-1]) + 1
    values = values.iloc[start:]
    observed = ~np.isnan(target[start:end])
    if not observed.all():
        rows = int((~observed.all(axis=1)).sum())
        notes.append(gap_note(rows))
    covariates = values[list(columns.covariates)].iloc[: end - start]
    for name in columns.covariates:
        if covariates[name].isna().all():
            raise InputError(f"the covariate column {name!r} is empty")
    known = values[list(columns.known)]
    texts = [c.column for c in columns.categories]
    return Table(
        columns=columns,
        target=values[list(columns.targets)].iloc[: end - start].ffill().to_numpy(),
        observed=observed,
        covariates=covariates.ffill().bfill().to_numpy(),
        known=_known(known, end - start),
        times=None if times is None else times[start:],
        calendar=calendar,
        notes=tuple(notes),
        before=start,
        since={
            str(name): _since(column)
            for name, column in values.iloc[: end - start].items()
            if name not in texts
        },
        codes=values[texts].fillna(0).to_numpy().astype(np.int64),
    )


def gap_note(rows: int) -> str:
    """A sentence on rows without a target."""
    return f"{rows} rows have a gap in the target; the forecaster skips them."


def _since(column: pd.Series) -> int:
    """Number of rows after the last value."""
    found = np.flatnonzero(column.notna())
    return len(column) - 1 - int(found[-1]) if len(found) else len(column)


def _known(known: pd.DataFrame, past: int) -> np.ndarray:
    """Known columns: gaps in the past are filled; the future ends at the first row with a gap."""
    if known.shape[1] == 0:
        return np.zeros((len(known), 0))
    for name in known.columns:
        if known[name].iloc[:past].isna().all():
            raise InputError(f"the known column {name!r} is empty")
    future = known.iloc[past:]
    gaps = np.flatnonzero(future.isna().any(axis=1))
    end = int(gaps[0]) if len(gaps) else len(future)
    filled = known.iloc[:past].ffill().bfill()
    return np.concatenate([filled.to_numpy(), future.iloc[:end].to_numpy()])
