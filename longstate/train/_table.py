"""A regular table of numbers from a data frame.

Rows are evenly spaced in time. Missing rows are added; gaps hold the last observed value (so no
later value is used) and are marked. Rows at the end with empty targets are the future: they hold
the columns that are known in advance.
"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from longstate.errors import InputError, near
from longstate.models import Calendar
from longstate.models._spec import LARGEST
from longstate.models._zones import naive
from longstate.train._time_rows import place_rows
from longstate.train._time_step import Timing

# Kinds of dtypes that pandas would convert to numbers.
NO_NUMBERS = {"c": "complex numbers", "M": "times", "m": "lengths of time"}


@dataclass(frozen=True)
class Columns:
    """The role of each column. `time` None: row numbers are used as times."""

    targets: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    time: str | None = None


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

    def label(self, row: int) -> str:
        """The time of a row as text; the row number without times."""
        if self.calendar is not None and self.times is not None:
            if row < self.rows:
                return self.calendar.text(self.times[row])
            times = self.times_ahead(row - self.rows + 1)
            if times is not None:
                return self.calendar.text(times[row])
        return str(row + self.before)

    def digest(self, rows: int) -> str:
        """A hash of the first `rows` rows."""
        h = hashlib.sha256(repr(self.columns).encode())
        for array in (self.target, self.observed, self.covariates, self.known):
            h.update(np.ascontiguousarray(array[:rows]).tobytes())
        if self.times is not None and self.calendar is not None:
            times = self.times[:rows]
            dated = self.calendar.dated
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
    _check_columns(frame, columns)
    if len(frame) == 0:
        raise InputError("the table has no rows")
    names = [*columns.targets, *columns.covariates, *columns.known]
    values = pd.DataFrame({name: _numbers(frame[name]) for name in names})
    if columns.time is None:
        return _assemble(values, columns, None, None, [])
    placed = place_rows(values, frame[columns.time].reset_index(drop=True), calendar, timing)
    return _assemble(placed.values, columns, placed.times, placed.calendar, list(placed.notes))


def _check_columns(frame: pd.DataFrame, columns: Columns) -> None:
    if not columns.targets:
        raise InputError("no target column was given")
    time = [columns.time] if columns.time is not None else []
    names = [*columns.targets, *columns.covariates, *columns.known, *time]
    for name in names:
        if name not in frame.columns:
            raise InputError(f"there is no column {name!r}; {near(name, frame.columns)}")
        if names.count(name) > 1:
            raise InputError(f"column {name!r} is used for more than one part; give it once")


def _numbers(column: pd.Series) -> np.ndarray:
    kind = NO_NUMBERS.get(getattr(column.dtype, "kind", ""))
    if kind is not None:
        raise InputError(f"column {column.name!r} holds {kind}; numbers were expected")
    numbers = pd.to_numeric(column, errors="coerce")
    bad = numbers.isna() & column.notna()
    if column.dtype == object or pd.api.types.is_string_dtype(column):
        words = column.astype("string").str.strip().str.lower()
        numbers = numbers.mask(words == "true", 1.0).mask(words == "false", 0.0)
        bad = numbers.isna() & column.notna() & ~words.isin(["", "na", "nan", "null", "none"])
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"column {column.name!r} holds {shorten(column.iloc[row])} in line {row + 2}; "
            "a number was expected"
        )
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    for wrong, what in ((np.isinf(values), "is infinite"), (abs(values) > LARGEST, "is too large")):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            size = "" if np.isinf(values[row]) else f" ({values[row]:g})"
            raise InputError(f"column {column.name!r} {what} in line {row + 2}{size}")
    return values


def shorten(value: object) -> str:
    """A cell for a message, shortened and in quotes."""
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "...")


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
        notes.append(f"{rows} rows have a gap in the target; the forecaster skips them.")
    covariates = values[list(columns.covariates)].iloc[: end - start]
    for name in columns.covariates:
        if covariates[name].isna().all():
            raise InputError(f"the covariate column {name!r} is empty")
    known = values[list(columns.known)]
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
        since={str(name): _since(column) for name, column in values.iloc[: end - start].items()},
    )


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
