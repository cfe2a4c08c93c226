"""Forecast after the last row of every series. A single series is a panel of one.

Axes: s series, h horizon, c targets.
"""

import warnings

import numpy as np
import pandas as pd
import torch

from longstate.errors import InputError
from longstate.models import Forecast, ForecastModel, ForecastSpec
from longstate.models._remarks import missing_rows, unseen_columns
from longstate.train._forecast_frame import check_reach, forecast_frame, remarks
from longstate.train._origin import Origin, origin_remarks
from longstate.train._panel_table import named
from longstate.train._roll import pieces_of, roll, rolled
from longstate.train._table import Table

FEWEST = 2  # observed rows of the window


def forecast_table(
    table: Table,
    model: ForecastModel,
    method: str | None = None,
    horizon: int | None = None,
    origin: Origin | None = None,
) -> pd.DataFrame:
    """See `FittedForecaster.predict`.

    Args:
        table: of the rows up to `origin`; of a panel with the scale of each series.
        model: in evaluation mode.
        method, horizon, origin: as there.

    Returns:
        The frame of `forecast_frame`. Its notes are warnings too, but for those of the table.

    Raises:
        InputError: no series can be forecast, or a forecast is not finite.
    """
    spec, pieces = model.spec, pieces_of(model.spec, horizon)
    which, lacks = (_one if table.panel is None else _some)(table, spec, pieces)
    forecast = roll(model, table, which, horizon, method)
    _check_finite(forecast, table, which)
    notes = [*([] if origin is None else origin_remarks(table, origin)), *lacks]
    notes += [*rolled(spec, horizon or spec.horizon), *unseen_columns(spec, table.since)]
    notes += remarks(table, model)
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return forecast_frame(table, spec, forecast, which, notes)


def _one(table: Table, spec: ForecastSpec, pieces: int) -> tuple[np.ndarray, list[str]]:
    """The one series, and remarks on its window."""
    check_reach(table, spec, pieces)
    lacks = missing_rows(int(_seen(table, spec.window)[0]), spec.window)
    return np.zeros(1, np.int64), [] if lacks is None else [lacks]


def _some(table: Table, spec: ForecastSpec, pieces: int) -> tuple[np.ndarray, list[str]]:
    """The series that can be forecast, and remarks on them and on the others."""
    notes, need = [], pieces * spec.horizon
    seen, reaches = _seen(table, spec.window), _reaches(table, need)
    for lacking, why in (
        (seen < FEWEST, f"have fewer than {FEWEST} values in the window"),
        ((seen >= FEWEST) & ~reaches, f"lack the {need} rows of the future"),
    ):
        if lacking.any():
            notes.append(f"{_named(table, np.flatnonzero(lacking))} {why}; they are not forecast.")
    able = (seen >= FEWEST) & reaches
    if not able.any():
        raise InputError(f"no series can be forecast: {' '.join(notes)}")
    gaps = (2 * seen < spec.window) & able
    if gaps.any():
        notes.append(
            f"{_named(table, np.flatnonzero(gaps))} have fewer than half of the {spec.window} rows "
            "that a forecast reads."
        )
    return np.flatnonzero(able), notes


def _named(table: Table, series: np.ndarray) -> str:
    return named([table.places.names[i] for i in series])


def _seen(table: Table, window: int) -> np.ndarray:
    """(s): rows with a value in the last window of each series."""
    places = table.places
    count = np.concatenate([[0], np.cumsum(table.observed.any(axis=1))])
    return count[places.ends] - count[np.maximum(places.starts[:-1], places.ends - window)]


def _reaches(table: Table, rows: int) -> np.ndarray:
    """(s): whether the columns that are known in advance reach so many rows of the future."""
    places = table.places
    if not table.columns.reads_ahead:
        return np.ones(len(places.names), dtype=bool)
    empty = np.concatenate([[0], np.cumsum(np.isnan(table.known).any(axis=1))])
    last = np.minimum(places.ends + rows, places.starts[1:])
    return (places.ends + rows <= last) & (empty[last] == empty[places.ends])


def _check_finite(forecast: Forecast, table: Table, which: np.ndarray) -> None:
    wrong = torch.zeros(len(which), dtype=torch.bool)
    for part in forecast:
        wrong |= ~torch.isfinite(part).flatten(1).all(1)
    if not wrong.any():
        return
    rows = np.isin(table.places.of(np.arange(table.rows)), which[wrong.numpy()])
    of = "" if table.panel is None else f" of {_named(table, which[wrong.numpy()])}"
    raise InputError(
        f"the forecast{of} is not finite; the largest number in its input is "
        f"{np.abs(table.target[rows]).max():g}"
    )
