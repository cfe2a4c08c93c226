"""Forecast from an earlier row: the data as it was known then."""

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from longstate.errors import InputError
from longstate.models import Calendar, ForecastSpec
from longstate.models._time_text import LONGEST, read, read_one, shown
from longstate.train._labels import as_texts
from longstate.train._panel import Panel
from longstate.train._panel_table import named
from longstate.train._table import Table

Origin = str | int | Any
"""The last row that a forecast reads: its time, or its number from 0. In a panel of times a time,
else the number of the row in each series."""

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
            row that is not later is taken, of each series of a panel.

    Raises:
        InputError: the origin cannot be read, or lies before the first row or after the last.
    """
    past = _past(frame, spec, origin)
    if not spec.reads_ahead:
        return frame[past]
    texts = (one.column for one in spec.categories if one.role == "covariate")
    hidden = [name for name in (*spec.targets, *spec.covariates, *texts) if name in frame]
    return frame.assign(**{name: frame[name].where(past) for name in hidden})


def later_series(frame: pd.DataFrame, kept: pd.DataFrame, spec: ForecastSpec) -> tuple[str, ...]:
    """A sentence on the series of a frame of which `until` kept no row."""
    if spec.id is None:
        return ()
    every, have = (pd.Index(as_texts(one[spec.id]).dropna().unique()) for one in (frame, kept))
    late = [str(name) for name in every.difference(have, sort=False)]
    return (f"{named(late)} begin after the origin; they are not forecast.",) if late else ()


def origin_remarks(table: Table, origin: Origin) -> list[str]:
    """Sentences on a forecast from an origin: where it begins if that is another row, and what it
    is worth."""
    places = table.places
    ends = places.position[places.ends - 1]
    row, found = int(places.ends[ends.argmax()]) - 1, []
    label = table.label(row).replace("T", " ")
    stamps = table.stamps(ends.max(keepdims=True)) if table.times is None else table.times[[row]]
    if stamps is None or table.calendar is None:
        same = str(origin).strip() == str(table.before + int(ends.max()))
    else:
        counted = table.panel is None and isinstance(origin, int | np.integer)
        same = counted or _stamp(table.calendar, origin) == stamps[0]
    if not same:
        found = [f"The forecast begins after {label}, the last row with a value up to {origin}."]
    early = [places.names[i] for i in np.flatnonzero(ends < ends.max())]
    if early:
        found.append(
            f"{named(early)} have no value at {label}; their forecasts begin after their own last "
            "one."
        )
    return [*found, FITTED_LATER]


def cut(table: Table, until: int, series: Collection[str] | None = None) -> Table:
    """The rows before a position, for a training on them; those of some series alone, if names are
    given."""
    if table.panel is not None:
        return _cut_panel(table, table.panel, until, series)
    rows = until
    return replace(
        table,
        target=table.target[:rows],
        observed=table.observed[:rows],
        covariates=table.covariates[:rows],
        known=table.known[:rows],
        times=None if table.times is None else table.times[:rows],
    )


def _cut_panel(table: Table, panel: Panel, until: int, series: Collection[str] | None) -> Table:
    rows = panel.past(until)
    if series is not None:
        wanted = np.array([name in series for name in panel.names])
        rows = rows[wanted[panel.of(rows)]]
    kept, counts = np.unique(panel.of(rows), return_counts=True)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return replace(
        table,
        target=table.target[rows],
        observed=table.observed[rows],
        covariates=table.covariates[rows],
        known=table.known[rows],
        static=table.static[rows],
        codes=table.codes[rows],
        panel=replace(
            panel,
            ids=panel.ids[kept],
            names=tuple(panel.names[i] for i in kept),
            starts=starts,
            firsts=starts[:-1],
            ends=starts[1:],
            position=panel.position[rows],
            units=None if panel.units is None else panel.units.each(lambda x: x[kept]),
        ),
    )


def _past(frame: pd.DataFrame, spec: ForecastSpec, origin: Origin) -> np.ndarray:
    """(n): whether a row is not later than the origin."""
    timed = spec.time is not None and spec.time in frame.columns and spec.calendar is not None
    counted = isinstance(origin, int | np.integer) and spec.id is None
    if isinstance(origin, bool) or not timed or counted:
        row = np.arange(len(frame))
        if spec.id is not None:
            codes = pd.factorize(as_texts(frame[spec.id]))[0]
            row = pd.Series(row).groupby(codes).cumcount().to_numpy()
        return np.asarray(row <= _number(origin, int(row.max(initial=-1)) + 1))
    assert spec.calendar is not None
    stamp, column = _stamp(spec.calendar, origin), frame[str(spec.time)]
    stamps = read(spec.calendar, column.reset_index(drop=True))
    found = ~pd.isna(stamps)
    past = np.asarray(stamps <= stamp) | ~found  # the table says what is wrong with the others
    if found.any() and (not past[found].any() or (stamps[found] < stamp).all()):
        early = past[found].any()
        time = shown(spec.calendar, stamps[found].max() if early else stamps[found].min())
        where = "after the last" if early else "before the first"
        raise InputError(f"the origin {origin} lies {where} row, {time.replace('T', ' ')}")
    return past


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
