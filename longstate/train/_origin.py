"""Forecast from an earlier row: the data as it was known then."""

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Calendar, ForecastSpec
from longstate.models._time_text import LONGEST, read, read_one, shown
from longstate.train._table import Table

Origin = str | int | Any
"""The last row that a forecast reads: its time, or its number from 0."""

FITTED_LATER = (
    "The forecaster may have been fitted to rows after this origin; a backtest gives forecasts "
    "from the rows before their origins alone."
)


def until(frame: pd.DataFrame, spec: ForecastSpec, origin: Origin) -> pd.DataFrame:
    """The rows up to `origin`; where columns are known in advance, the later rows with these
    columns alone.

    Args:
        frame: with the names of `spec`.
        spec: columns and calendar.
        origin: a time, if there are times and it is no integer; else the number of a row. The last
            row that is not later is taken.

    Raises:
        InputError: the origin cannot be read, or lies before the first row or after the last.
    """
    last = _row(frame, spec, origin)
    if not spec.known:
        return frame.iloc[: last + 1]
    past = np.arange(len(frame)) <= last
    hidden = [name for name in spec.targets if name in frame]  # they end the past of a table
    return frame.assign(**{name: frame[name].where(past) for name in hidden})


def origin_remarks(table: Table, origin: Origin) -> list[str]:
    """Sentences on a forecast from an origin: where it begins if that is another row, and what it
    is worth."""
    label = table.label(table.rows - 1)
    if isinstance(origin, int | np.integer) or table.calendar is None or table.times is None:
        same = str(origin).strip() == str(table.before + table.rows - 1) or table.times is not None
    else:
        same = _stamp(table.calendar, origin) == table.times[table.rows - 1]
    found = [] if same else [
        f"The forecast begins after {label.replace('T', ' ')}, the last row with a value up to "
        f"{origin}."
    ]  # fmt: skip
    return [*found, FITTED_LATER]


def cut(table: Table, rows: int) -> Table:
    """The first rows of a table, for a training on them."""
    return replace(
        table,
        target=table.target[:rows],
        observed=table.observed[:rows],
        covariates=table.covariates[:rows],
        known=table.known[:rows],
        times=None if table.times is None else table.times[:rows],
    )


def _row(frame: pd.DataFrame, spec: ForecastSpec, origin: Origin) -> int:
    timed = spec.time is not None and spec.time in frame.columns and spec.calendar is not None
    if isinstance(origin, bool) or not timed or isinstance(origin, int | np.integer):
        return _number(origin, len(frame))
    assert spec.calendar is not None
    stamp, column = _stamp(spec.calendar, origin), frame[str(spec.time)]
    stamps = read(spec.calendar, column.reset_index(drop=True))
    found = np.flatnonzero(~pd.isna(stamps))
    rows = found[np.asarray(stamps[found] <= stamp)]
    if len(found) and (len(rows) == 0 or (stamps[found] < stamp).all()):
        where, edge = ("before the first", 0) if len(rows) == 0 else ("after the last", -1)
        time = shown(spec.calendar, stamps[found[edge]])
        raise InputError(f"the origin {origin} lies {where} row, {time.replace('T', ' ')}")
    return int(rows[-1]) if len(rows) else len(frame) - 1  # the table says what is wrong with it


def _number(origin: Origin, rows: int) -> int:
    try:
        number = -1 if isinstance(origin, bool | float) else int(origin)
    except (TypeError, ValueError):
        number = -1
    if not 0 <= number < rows:
        raise InputError(
            f"the origin must be the number of a row, from 0 to {rows - 1}, or a time where the "
            f"data has times; got {str(origin)[:60]!r}"
        )
    return number


def _stamp(calendar: Calendar, origin: Origin) -> Any:
    text = str(origin)
    stamp = read_one(calendar, text) if len(text) <= LONGEST else None
    if stamp is None and calendar.dated:
        stamp = read_one(replace(calendar, form="dates"), text)
    if stamp is None:
        raise InputError(
            f"the origin {text[:60]!r} is no time; write it as in the data, or as 2024-01-31 12:00"
        )
    return stamp
