"""A regular table of numbers, made from a data frame or refused in one sentence.

Rows are evenly spaced in time. Missing rows are put in; gaps hold the last value seen (which looks
at nothing later) and are marked. Rows at the end whose targets are empty are the future: they carry
the columns that are known in advance.
"""

import hashlib
import warnings
from dataclasses import dataclass

import numpy as np
import pandas as pd

from longstate.errors import InputError, near

TIME_NAMES = ("date", "time", "datetime", "timestamp", "ds")


@dataclass(frozen=True)
class Columns:
    """Which columns play which part. `time` None: row numbers stand for time."""

    targets: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    time: str | None = None


@dataclass(frozen=True)
class Table:
    """n rows with an observed past, then rows of the future of which only `known` is known.

    Args:
        columns: names, in the order of the arrays' columns.
        target (n, c), covariates (n, p): float64; gaps hold the last value seen.
        observed (n, c): False where the target was missing.
        known (n + future, k): float64.
        times (n + future): datetime64[ms], or None.
        step: pandas offset between rows, or None without times.
        notes: what was found and mended, in sentences.
    """

    columns: Columns
    target: np.ndarray
    observed: np.ndarray
    covariates: np.ndarray
    known: np.ndarray
    times: np.ndarray | None
    step: str | None
    notes: tuple[str, ...]

    @property
    def rows(self) -> int:
        return self.target.shape[0]

    def times_ahead(self, rows: int) -> np.ndarray | None:
        """Times of all n rows and of `rows` rows after them."""
        if self.times is None or self.step is None:
            return None
        past = self.times[: self.rows]
        future = pd.date_range(pd.Timestamp(past[-1]), periods=rows + 1, freq=self.step)[1:]
        return np.concatenate([past, future.to_numpy().astype("datetime64[ms]")])

    def label(self, row: int) -> str:
        """The time of a row in words; the row number where there are no times."""
        times = self.times_ahead(max(0, row - self.rows + 1))
        return str(row) if times is None else str(pd.Timestamp(times[row]))

    def digest(self, rows: int) -> str:
        """A fingerprint of the first `rows` rows."""
        h = hashlib.sha256(repr(self.columns).encode())
        for array in (self.target, self.observed, self.covariates, self.known):
            h.update(np.ascontiguousarray(array[:rows]).tobytes())
        if self.times is not None:
            h.update(self.times[:rows].astype(np.int64).tobytes())
        return h.hexdigest()


def find_time(frame: pd.DataFrame, time: str | None) -> tuple[pd.DataFrame, str | None]:
    """The time column: the one asked for, a date index, or one called date, time, ds..."""
    if time is not None:
        return frame, time
    if isinstance(frame.index, pd.DatetimeIndex):
        name = str(frame.index.name or "time")
        return frame.rename_axis(name).reset_index(), name
    for column in frame.columns:
        if str(column).lower() in TIME_NAMES and not pd.api.types.is_numeric_dtype(frame[column]):
            return frame, str(column)
    return frame, None


def make_table(frame: pd.DataFrame, columns: Columns, *, step: str | None = None) -> Table:
    """Check and clean `frame`.

    Args:
        frame: one row per time step, oldest first.
        columns: which columns are read.
        step: the time step that is expected; None to find it.

    Raises:
        InputError: a column is missing, listed twice or not numeric; dates cannot be read, repeat,
            run backwards or are uneven; a target is empty.
    """
    _check_columns(frame, columns)
    if len(frame) == 0:
        raise InputError("the table has no rows")
    names = [*columns.targets, *columns.covariates, *columns.known]
    values = pd.DataFrame({name: _numbers(frame[name]) for name in names})
    notes: list[str] = []
    times = None
    if columns.time is not None:
        index = _times(frame[columns.time])
        step = _step(index, columns.time, step)
        values, index = _fill_rows(values, index, step, columns.time, notes)
        times = index.to_numpy().astype("datetime64[ms]")
    return _assemble(values, columns, times, step if columns.time else None, notes)


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
    numbers = pd.to_numeric(column, errors="coerce")
    bad = numbers.isna() & column.notna()
    if column.dtype == object or pd.api.types.is_string_dtype(column):
        words = column.astype("string").str.strip().str.lower()
        numbers = numbers.mask(words == "true", 1.0).mask(words == "false", 0.0)
        bad = numbers.isna() & column.notna() & ~words.isin(["", "na", "nan", "null", "none"])
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"column {column.name!r} holds {str(column.iloc[row])!r} in line {row + 2}; "
            "a number was expected"
        )
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    if np.isinf(values).any():
        row = int(np.flatnonzero(np.isinf(values))[0])
        raise InputError(f"column {column.name!r} is infinite in line {row + 2}")
    return values


def _times(column: pd.Series) -> pd.DatetimeIndex:
    if pd.api.types.is_numeric_dtype(column):
        raise InputError(
            f"the time column {column.name!r} holds numbers such as {column.iloc[0]}; dates such "
            "as 2024-01-31 12:00 were expected"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pandas warns about guessing; what it cannot read is NaT
        times = pd.to_datetime(column, errors="coerce", utc=True)
    if times.isna().any():
        row = int(np.flatnonzero(times.isna())[0])
        raise InputError(
            f"the time column {column.name!r} holds {str(column.iloc[row])!r} in line {row + 2}; "
            "a date such as 2024-01-31 12:00 was expected, written the same way in every line"
        )
    return pd.DatetimeIndex(times).tz_localize(None)


def _step(times: pd.DatetimeIndex, name: str, expected: str | None) -> str:
    gaps = np.diff(times.to_numpy())
    zero = gaps.dtype.type(0)
    for wrong, what in ((gaps == zero, "repeats the time of"), (gaps < zero, "is earlier than")):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0]) + 1
            raise InputError(
                f"the time column {name!r} must go forward: line {row + 2} ({times[row]}) {what} "
                f"line {row + 1}"
            )
    usual = _guess_step(times, gaps)
    if expected is not None and usual is not None and usual != expected:
        raise InputError(f"the time column {name!r} has a step of {usual}; {expected} was expected")
    found = expected or usual
    if found is None or _misfit(times, found) is not None:
        row = 1 if found is None else int(_misfit(times, found) or 1)
        even = "an even time step" if found is None else f"a time step of {found}"
        raise InputError(
            f"the time column {name!r} is uneven: line {row + 2} ({times[min(row, len(times) - 1)]}"
            f") does not fit {even}"
        )
    return found


def _guess_step(times: pd.DatetimeIndex, gaps: np.ndarray) -> str | None:
    if len(times) < 3:
        return None
    sizes, counts = np.unique(gaps, return_counts=True)
    if len(sizes) > 1:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pandas announces that it will return an offset
            calendar = pd.infer_freq(times)  # months, quarters, working days
        if calendar is not None:
            return str(getattr(calendar, "freqstr", calendar))
    return pd.tseries.frequencies.to_offset(pd.Timedelta(sizes[counts.argmax()])).freqstr


def _misfit(times: pd.DatetimeIndex, step: str) -> int | None:
    """The first row that does not lie on the grid of `step`; None when all do."""
    grid = pd.date_range(times[0], times[-1], freq=step)
    off = ~times.isin(grid)
    return int(np.flatnonzero(off)[0]) if off.any() else None


def _fill_rows(
    values: pd.DataFrame, times: pd.DatetimeIndex, step: str, name: str, notes: list[str]
) -> tuple[pd.DataFrame, pd.DatetimeIndex]:
    grid = pd.date_range(times[0], times[-1], freq=step)
    missing = len(grid) - len(times)
    if missing == 0:
        return values, times
    if missing > len(times):
        raise InputError(
            f"the time column {name!r} has {len(times)} rows where its step of {step} from "
            f"{times[0]} to {times[-1]} makes {len(grid)}; more rows are missing than present"
        )
    notes.append(f"{missing} missing rows (step {step}) were put in as gaps.")
    return values.set_axis(times).reindex(grid).reset_index(drop=True), grid


def _assemble(
    values: pd.DataFrame,
    columns: Columns,
    times: np.ndarray | None,
    step: str | None,
    notes: list[str],
) -> Table:
    target = values[list(columns.targets)].to_numpy()
    for name, column in zip(columns.targets, target.T, strict=True):
        if np.isnan(column).all():
            raise InputError(f"the target column {name!r} is empty")
    seen = np.flatnonzero(~np.isnan(target).any(axis=1))
    if len(seen) == 0:
        raise InputError("no row has a value for every target")
    # Before the first complete row there is no last value to hold; after the last is the future.
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
        step=step,
        notes=tuple(notes),
    )


def _known(known: pd.DataFrame, past: int) -> np.ndarray:
    """Past gaps are filled; the future ends at the first row with a gap."""
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
