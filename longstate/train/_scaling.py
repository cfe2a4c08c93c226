"""The scales of a model, from the training part, and checks of values against them.

Axes: n rows, c targets.
"""

import numpy as np
import torch

from longstate.errors import InputError
from longstate.models import ForecastModel
from longstate.models._scale import Scale, Units
from longstate.train._table import Table
from longstate.train._windows import Windows

FAR = 1e9  # multiple of the usual distance from the median; other values would lose all digits
OVERFLOW = 1e15  # largest scaled value, so that squares stay finite in float32


def row_units(model: ForecastModel, table: Table) -> Units:
    """The scale of the targets in each row: (n, c) in a panel, otherwise (c)."""
    if table.panel is None or table.panel.units is None:
        return model.scale.units
    series = torch.from_numpy(table.panel.of(np.arange(table.rows)))
    return table.panel.units.each(lambda x: x[series])


def pairs(table: Table, lag: int, until: int) -> np.ndarray:
    """The rows before a position that have a row `lag` rows before them in the same series."""
    places = table.places
    rows = places.past(until)
    return rows[rows - lag >= places.firsts[places.of(rows)]]


def _scaled_columns(
    model: ForecastModel, table: Table
) -> list[tuple[Scale, np.ndarray, tuple[str, ...]]]:
    """Scale, values and names of every column of numbers; targets are the first."""
    columns = table.columns
    found = [
        (model.scale, table.target, columns.targets),
        (model.covariate_scale, table.covariates, columns.covariates),
        (model.known_scale, table.known, columns.known),
    ]
    if columns.static:
        found.append((model.static_scale, table.static, columns.static))
    return found


@torch.no_grad()
def fit_scale(model: ForecastModel, windows: Windows, until: int) -> tuple[str, ...]:
    """Set the model's scales from the rows before a position; returns the names of constant
    columns.

    Raises:
        InputError: one value is so far from the others that they would lose all digits.
    """
    table = windows.table
    rows, constant = table.places.past(until), []
    for scale, values, names in _scaled_columns(model, table):
        part = np.array(values[rows], dtype=np.float64)
        if scale is model.scale and table.panel is not None:
            assert table.panel.units is not None
            scale.take(table.panel.units)
            own = row_units(model, table).each(lambda x: x[rows])
            scaled = own.scale(torch.from_numpy(part)).any(0).tolist()
            constant += [n for n, moves in zip(names, scaled, strict=True) if not moves]
            continue
        for name, column in zip(names, part.T, strict=True):
            _check_spread(table, rows, name, column)
        if scale is model.scale and scale.transform != "none":
            scale.fit(torch.from_numpy(part), model.spec.lower)
        else:
            scale.set(torch.from_numpy(part.mean(0)), torch.from_numpy(part.std(0)))
        constant += [n for n, column in zip(names, part.T, strict=True) if np.ptp(column) == 0]
    return tuple(constant)


def _check_spread(table: Table, rows: np.ndarray, name: str, values: np.ndarray) -> None:
    far = np.abs(values - np.median(values))
    row, usual = int(far.argmax()), far[far > 0]
    if len(usual) and far[row] > FAR * np.median(usual):
        raise InputError(
            f"column {name!r} is {values[row]:g} at {table.label(int(rows[row]))}, "
            f"{far[row]:.2g} from the median where {np.median(usual):.2g} is usual; correct it, or "
            "leave it empty"
        )


@torch.no_grad()
def check_size(model: ForecastModel, table: Table, until: int) -> None:
    """Check that the squares of the values before a position do not overflow.

    Raises:
        InputError: names the column and the row.
    """
    rows = table.places.past(until)
    for scale, values, names in _scaled_columns(model, table):
        if not names:
            continue
        units = scale.units
        if scale is model.scale:
            units = row_units(model, table).each(lambda x: x if x.dim() < 2 else x[rows])
        scaled = units.scale(torch.from_numpy(np.array(values[rows]))).abs().nan_to_num(torch.inf)
        at, column = divmod(int(scaled.argmax()), len(names))
        row = int(rows[at])
        if float(scaled[at, column]) > OVERFLOW:
            raise InputError(
                f"column {names[column]!r} is {values[row, column]:g} at {table.label(row)}: "
                f"{float(scaled[at, column]):.2g} times the spread of the training part; correct "
                "it, or leave it empty"
            )
