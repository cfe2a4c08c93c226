"""The columns of a data frame that a forecaster reads, and their numbers."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from longstate.errors import InputError, near
from longstate.models._spec import LARGEST, Category
from longstate.train._labels import codes_of

# Kinds of dtypes that pandas would convert to numbers.
NO_NUMBERS = {"c": "complex numbers", "M": "times", "m": "lengths of time"}


@dataclass(frozen=True)
class Columns:
    """The role of each column. `time` None: row numbers are used as times.

    Args:
        targets, covariates, known, time: columns.
        id: names the series of a panel. static: numbers that a series has once.
        categories: columns of text.
    """

    targets: tuple[str, ...]
    covariates: tuple[str, ...] = ()
    known: tuple[str, ...] = ()
    time: str | None = None
    # Not in the text of which the digest of a table is made: older runs know theirs.
    id: str | None = field(default=None, repr=False)
    static: tuple[str, ...] = field(default=(), repr=False)
    categories: tuple[Category, ...] = field(default=(), repr=False)

    @property
    def names(self) -> tuple[str, ...]:
        """All columns that are read."""
        more = tuple(name for name in (self.id, self.time) if name is not None)
        texts = tuple(c.column for c in self.categories if c.column != self.id)
        return (*self.targets, *self.covariates, *self.known, *self.static, *texts, *more)

    @property
    def once(self) -> tuple[str, ...]:
        """Columns that a series has once."""
        return (*self.static, *(c.column for c in self.categories if c.role == "static"))

    @property
    def reads_ahead(self) -> bool:
        """Whether a forecast needs rows of the future."""
        return bool(self.known) or any(c.role == "known" for c in self.categories)

    def values_of(self, frame: pd.DataFrame, line: int = 2) -> pd.DataFrame:
        """All numbers, and the codes of the text columns; nan where missing. `line`: of the first
        row in its file, for messages."""
        names = (*self.targets, *self.covariates, *self.known, *self.static)
        values = {name: numbers_of(frame[name], line) for name in names}
        values |= {c.column: codes_of(frame[c.column], c.levels) for c in self.categories}
        return pd.DataFrame(values, index=pd.RangeIndex(len(frame)))


def check_columns(frame: pd.DataFrame, columns: Columns) -> None:
    """Raises:
    InputError: a column is missing or listed twice, or there are no rows.
    """
    if not columns.targets:
        raise InputError("no target column was given")
    names = columns.names
    for name in names:
        if name not in frame.columns:
            raise InputError(f"there is no column {name!r}; {near(name, frame.columns)}")
        if names.count(name) > 1:
            raise InputError(f"column {name!r} is used for more than one part; give it once")
    if len(frame) == 0:
        raise InputError("the table has no rows")


def numbers_of(column: pd.Series, line: int = 2) -> np.ndarray:
    """The numbers of a column, nan where missing. `line`: of the first one, for messages.

    Raises:
        InputError: it holds something else, or a number is infinite or too large.
    """
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
            f"column {column.name!r} holds {shorten(column.iloc[row])} in line {row + line}; "
            "a number was expected"
        )
    values = numbers.to_numpy(dtype=np.float64, na_value=np.nan)
    for wrong, what in ((np.isinf(values), "is infinite"), (abs(values) > LARGEST, "is too large")):
        if wrong.any():
            row = int(np.flatnonzero(wrong)[0])
            size = "" if np.isinf(values[row]) else f" ({values[row]:g})"
            raise InputError(f"column {column.name!r} {what} in line {row + line}{size}")
    return values


def shorten(value: object) -> str:
    """A cell for a message, shortened and in quotes."""
    text = str(value)
    return repr(text if len(text) <= 60 else text[:60] + "...")
