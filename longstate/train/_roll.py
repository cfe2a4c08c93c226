"""A forecast beyond the trained horizon: each further piece reads the forecast before it.

    piece j = forecast(window, forecast of pieces 1 ... j-1)

The distance of a quantile from the point in a later piece adds up with that at the end of the piece
before, as for independent errors: d_j(k)^2 = own(k)^2 + d_{j-1}(h)^2, with signs. This is a rule of
thumb (exact for a random walk); no piece but the first is calibrated.

Axes: b batch (1), h horizon, c targets, q quantiles.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from longstate.errors import expect_whole
from longstate.models import Forecast, ForecastModel, ForecastSpec
from longstate.train._table import Table
from longstate.train._windows import Windows

MOST_PIECES = 1000


def pieces_of(spec: ForecastSpec, horizon: int | None) -> int:
    """The number of forecasts that make `horizon` rows.

    Raises:
        InputError: the horizon is not a number of rows, or too long.
    """
    if horizon is None:
        return 1
    expect_whole("horizon", horizon, most=MOST_PIECES * spec.horizon)
    return -(-int(horizon) // spec.horizon)


def roll(
    model: ForecastModel, table: Table, horizon: int | None, method: str | None
) -> tuple[Forecast, list[str]]:
    """The forecast of `horizon` rows (None: as trained) after a table, and notes.

    Raises:
        InputError: see `ForecastModel.checked`.
    """
    spec, now = model.spec, table
    pieces = pieces_of(spec, horizon)
    forecast, lacks = model.checked(Windows.last(now, spec), method)
    found, spread = [forecast], forecast.quantiles - forecast.point[..., None]
    for _ in range(1, pieces):
        now = _grown(now, found[-1].point[0].double().numpy(), spec)
        (point, quantiles), _ = model.checked(Windows.last(now, spec), method)
        own = quantiles - point[..., None]
        spread = _root(_square(own) + _square(spread[:, -1:]))
        found.append(Forecast(point, model.bounded(point[..., None] + spread)))
    notes = [] if lacks is None else [lacks]
    if pieces > 1:
        notes += _remarks(spec, horizon or spec.horizon)
    whole = Forecast(*(torch.cat(x, 1)[:, :horizon] for x in zip(*found, strict=True)))
    return whole, notes


def _square(x: Tensor) -> Tensor:
    return x.abs() * x


def _root(x: Tensor) -> Tensor:
    return x.sign() * x.abs().sqrt()


def _grown(table: Table, point: np.ndarray, spec: ForecastSpec) -> Table:
    """The table after the forecast (h, c) came true."""
    h = len(point)
    times = table.times
    if times is not None and len(times) < table.rows + h:
        times = table.times_ahead(h)
    return replace(
        table,
        target=np.concatenate([table.target[-spec.window :], point]),
        observed=np.concatenate([table.observed[-spec.window :], np.ones(point.shape, dtype=bool)]),
        covariates=np.concatenate(
            [table.covariates[-spec.window :], np.repeat(table.covariates[-1:], h, 0)]
        ),
        known=table.known[max(0, table.rows - spec.window) :],
        times=None if times is None else times[max(0, table.rows - spec.window) :],
    )


def _remarks(spec: ForecastSpec, horizon: int) -> list[str]:
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
