"""Convert data to a data frame with plain column names, and find its time column."""

import re
import warnings
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Protocol

import numpy as np
import pandas as pd

from longstate.errors import InputError, needs
from longstate.models._time_text import LONGEST, read_text
from longstate.train._time_form import find_form

Names = str | int | Sequence[str | int]


class ToPandas(Protocol):
    """A frame or series of polars, pyarrow or another library."""

    def to_pandas(self) -> Any: ...


class Interchange(Protocol):
    """A frame with the dataframe interchange protocol."""

    def __dataframe__(self, nan_as_null: bool = ..., allow_copy: bool = ...) -> Any: ...


Data = pd.DataFrame | pd.Series | np.ndarray | ToPandas | Interchange
# Lower case, letters only. Names that end in date or time are found too.
TIME_NAMES = {
    *("date", "time", "datetime", "timestamp", "ds", "ts", "dt", "day", "week", "month", "quarter"),
    *("year", "period", "when", "stamp", "utc", "lastupdated", "updated", "updatedat", "created"),
    *("createdat", "recordedat", "datum", "zeit", "zeitstempel", "fecha", "horodatage", "epoch"),
    *("unix", "yyyymm", "yyyymmdd"),
}
NO_TIMES = "No column with times was found: the rows are taken as evenly spaced."
SAMPLE = 50


def as_frame(data: Any) -> pd.DataFrame:
    """Convert data to a frame with one text as the name of each column.

    Args:
        data: a frame; a Series or an array of one column; an array (t, c), whose columns get the
            names "0", "1" and so on. Frames and series of other libraries are those that have
            `to_pandas`, as polars and pyarrow, or the dataframe interchange protocol.

    Raises:
        InputError: the data has another type, or two columns have the same name.
    """
    if isinstance(data, pd.Series):
        frame = data.to_frame("value" if data.name is None else data.name)
    elif isinstance(data, np.ndarray) and data.ndim in (1, 2):
        frame = pd.DataFrame(data)
    elif isinstance(data, pd.DataFrame):
        frame = data
    else:
        return as_frame(_converted(data))
    if frame.columns.nlevels > 1:
        raise InputError(
            f"the columns have names in {frame.columns.nlevels} rows, such as {frame.columns[0]}; "
            "one name for each column was expected"
        )
    columns = frame.columns
    if isinstance(columns, pd.MultiIndex):
        columns = columns.get_level_values(0)
    names = pd.Index([str(name) for name in columns])
    if names.has_duplicates:
        twice = names[names.duplicated()][0]
        raise InputError(f"the data has the column {twice!r} twice; one name for each is needed")
    return _without_decimals(frame.set_axis(names, axis=1))


def _without_decimals(frame: pd.DataFrame) -> pd.DataFrame:
    """Decimal numbers, which databases have, as float64."""
    for place, kind in enumerate(frame.dtypes):
        if not pd.api.types.is_object_dtype(kind):
            continue
        values = frame.iloc[:, place].dropna()
        if len(values) and all(isinstance(x, Decimal) for x in values):
            frame = frame.assign(**{frame.columns[place]: frame.iloc[:, place].astype(float)})
    return frame


def _converted(data: Any) -> pd.DataFrame | pd.Series:
    """Data of another library.

    Raises:
        InputError: it is none, or cannot be converted.
    """
    kind = f"{type(data).__module__.split('.')[0]} {type(data).__name__}"
    found = data
    try:
        if hasattr(data, "to_pandas"):
            found = data.to_pandas()
        elif hasattr(data, "__dataframe__"):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pandas recommends Arrow, which needs pyarrow
                found = pd.api.interchange.from_dataframe(data)
    except ImportError:
        raise needs(f"a {kind}", "pyarrow", "parquet") from None
    except Exception as e:
        raise InputError(f"the {kind} cannot be converted to pandas: {e}") from None
    if isinstance(found, pd.DataFrame | pd.Series):
        return found
    if isinstance(data, np.ndarray):
        kind = f"an array of {data.ndim} axes"
    lazy = "; collect() gives the frame of a lazy one" if hasattr(data, "collect") else ""
    raise InputError(
        "the data must be a frame or series of pandas or polars or an array (rows, columns); got "
        f"{kind}{lazy}"
    )


def names_of(names: Names) -> tuple[str, ...]:
    """Names of columns as texts, as in `as_frame`."""
    if isinstance(names, str) or not isinstance(names, Iterable):
        return (str(names),)
    return tuple(str(name) for name in names)


def only_column(frame: pd.DataFrame, time: str | None) -> str:
    """The one column that can be the target.

    Raises:
        InputError: there are several.
    """
    names = [n for n in frame.columns if n != time and pd.api.types.is_numeric_dtype(frame[n])]
    if len(names) != 1:
        raise InputError(f"target must name a column; there are {len(names)} columns of numbers")
    return str(names[0])


def find_time(
    frame: pd.DataFrame, time: str | None, used: tuple[str, ...] = ()
) -> tuple[pd.DataFrame, str | None, tuple[str, ...]]:
    """Find the time column: the given one, an index of times, or one with such a name or content.

    Args:
        frame: from `as_frame`.
        time: the given column.
        used: columns with another role.

    Returns:
        The frame with the time as a column, its name, and notes.
    """
    name = None if frame.index.name is None else str(frame.index.name)
    if time is not None:
        if time not in frame.columns and time == name:
            return frame.rename_axis(time).reset_index(), time, ()
        return frame, time, ()
    if _holds_times(frame.index.to_series(), name):
        name = name or "time"
        return frame.drop(columns=name, errors="ignore").rename_axis(name).reset_index(), name, ()
    free = [c for c in frame.columns if c not in used]
    named = [c for c in free if is_time_name(c)]
    for column in named:
        if not pd.api.types.is_numeric_dtype(frame[column]) or _is_count_of_time(frame[column]):
            return frame, column, () if column.lower() in ("date", "time") else (_taken(column),)
    written = [c for c in free if c not in named and _holds_times(frame[c], c)]
    if len(written) == 1:
        return frame, written[0], (_taken(written[0]),)
    if named:
        return frame, None, (f"{NO_TIMES} Column {named[0]!r} holds numbers; time can name it.",)
    return frame, None, (NO_TIMES,)


def _taken(column: str) -> str:
    return f"Column {column!r} is taken as the time."


def is_time_name(name: str) -> bool:
    """Whether this is a common name of a time column."""
    letters = re.sub(r"[^a-z]", "", name.lower())
    return letters in TIME_NAMES or letters.endswith(("date", "time", "timestamp"))


def _has_time_word(name: str) -> bool:
    """Whether a name like `MESS_DATUM`, `DateKey` or `time_ms` has such a word."""
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)
    return is_time_name(name) or any(word.lower() in TIME_NAMES for word in words)


def _is_count_of_time(values: pd.Series) -> bool:
    """Whether numbers are years, days such as 20240131, or seconds since 1970."""
    return find_form(values).form != "number" and bool(values.is_monotonic_increasing)


def _holds_times(values: pd.Series, name: str | None) -> bool:
    """Whether a column holds dates, periods, or text of which every sampled row is a date."""
    if isinstance(values.dtype, pd.PeriodDtype | pd.DatetimeTZDtype):
        return True
    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        return True
    if pd.api.types.is_numeric_dtype(values.dtype):
        return name is not None and _has_time_word(name) and _is_count_of_time(values)
    values = values.dropna()  # of empty rows
    if len(values) == 0 or isinstance(values.dtype, pd.CategoricalDtype):
        return False
    text = values.iloc[np.unique(np.linspace(0, len(values) - 1, SAMPLE).astype(int))]
    text = text.astype("string").str.strip()
    if text.isna().any() or (text.str.len() > LONGEST).any() or not text.str.contains(r"\d").all():
        return False
    if text.str.fullmatch(r"[-+]?[\d.]+").any():
        return False
    form = find_form(text).form
    return form != "mixed" and not read_text(form, text).isna().any()
