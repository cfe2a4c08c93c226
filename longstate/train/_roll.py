"""Forecasts after the last rows, also beyond the trained horizon: each further piece reads the
forecast before it.

    piece j = forecast(window, forecast of pieces 1 ... j-1)

The distance of a quantile from the point in a later piece adds up with that at the end of the piece
before, as for independent errors: d_j(k)^2 = own(k)^2 + d_{j-1}(h)^2, with signs. This is a rule of
thumb (exact for a random walk); no piece but the first is calibrated.

Axes: s series (1 where there is no panel), h horizon, c targets, q quantiles.
"""

import numpy as np
import torch
from torch import Tensor

from longstate.errors import expect_whole
from longstate.models import Forecast, ForecastModel, ForecastSpec
from longstate.train._panel_table import ahead
from longstate.train._table import Table
from longstate.train._windows import Windows

MOST_PIECES = 1000
BATCH = 256


def pieces_of(spec: ForecastSpec, horizon: int | None) -> int:
    """The number of forecasts that make `horizon` rows.

    Raises:
        InputError: the horizon is not a number of rows, or too long.
    """
    if horizon is None:
        return 1
    expect_whole("horizon", horizon, most=MOST_PIECES * spec.horizon)
    return -(-int(horizon) // spec.horizon)


@torch.no_grad()
def roll(
    model: ForecastModel,
    table: Table,
    which: np.ndarray,
    horizon: int | None = None,
    method: str | None = None,
) -> Forecast:
    """The forecasts of `horizon` rows (None: as trained) after the past of some series.

    Args:
        model: in evaluation mode.
        table: with a window for each of them, and the known columns of all pieces.
        which (s): their numbers.
        horizon: of all pieces together.
        method: see `ForecastModel.chosen`.

    Raises:
        InputError: there is no such method.
    """
    spec = model.spec
    h, rows = spec.horizon, pieces_of(spec, horizon) * spec.horizon
    full, firsts = ahead(table, spec.window, rows)
    firsts = firsts[which]
    if rows > h:
        _hold(full, firsts, rows)
    windows = Windows.over(full, spec)
    found = [_batches(model, windows, firsts, method)]
    spread = found[0].quantiles - found[0].point[..., None]
    for start in range(h, rows, h):
        before = firsts[:, None] + np.arange(start - h, start)
        full.target[before] = found[-1].point.double().numpy()
        full.observed[before] = True
        point, quantiles = _batches(model, windows, firsts + start, method)
        own = quantiles - point[..., None]
        spread = _root(_square(own) + _square(spread[:, -1:]))
        found.append(Forecast(point, model.bounded(point[..., None] + spread)))
    return Forecast(*(torch.cat(x, 1)[:, :horizon] for x in zip(*found, strict=True)))


def _batches(
    model: ForecastModel, windows: Windows, origins: np.ndarray, method: str | None
) -> Forecast:
    parts = np.array_split(origins, -(-len(origins) // BATCH))
    found = [model.chosen(windows.window(part), method) for part in parts]
    return Forecast(*(torch.cat(x) for x in zip(*found, strict=True)))


def _hold(table: Table, firsts: np.ndarray, rows: int) -> None:
    """What is known up to now keeps its last value in the rows after it."""
    later, last = firsts[:, None] + np.arange(rows), firsts[:, None] - 1
    table.covariates[later] = table.covariates[last]
    for j, one in enumerate(table.columns.categories):
        if one.role == "covariate":
            table.codes[later, j] = table.codes[last, j]


def _square(x: Tensor) -> Tensor:
    return x.abs() * x


def _root(x: Tensor) -> Tensor:
    return x.sign() * x.abs().sqrt()


def rolled(spec: ForecastSpec, horizon: int) -> list[str]:
    """Sentences on a forecast of more rows than trained."""
    if horizon <= spec.horizon:
        return []
    found = [
        f"The forecaster was trained for {spec.horizon} rows; each later part of the {horizon} "
        "reads the forecast before it."
    ]
    if spec.quantiles:
        found.append(
            f"Bands after row {spec.horizon} are widened by a rule of thumb (as for independent "
            "errors) and are not calibrated."
        )
    if spec.covariates:
        names = ", ".join(map(repr, spec.covariates))
        found.append(f"After row {spec.horizon} the last value of {names} stands for later ones.")
    return found
