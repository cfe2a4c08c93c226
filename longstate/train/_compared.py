"""The forecasts of a backtest beside the truth, and their errors.

Axes: b windows, h horizon, c targets, q quantiles, s series.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from longstate.models import ForecastModel, ForecastSpec
from longstate.models._time_text import present
from longstate.train._forecast_frame import ids_of, times_of
from longstate.train._scaling import row_units
from longstate.train._table import Table

BY_SERIES = ("series", "target", "method", "values", "mae", "rmse", "scaled", "held")


class Compared(NamedTuple):
    """Forecasts in the data's own units, and what came.

    Args:
        rows (b): of the table, the first of each horizon.
        points: "model" and simple methods -> (b, h, c).
        quantiles (b, h, c, q): of the model.
        truth (b, h, c): nan in gaps.
    """

    rows: np.ndarray
    points: dict[str, np.ndarray]
    quantiles: np.ndarray
    truth: np.ndarray

    @classmethod
    def of_all(cls, parts: Sequence["Compared"]) -> "Compared":
        """One after the other."""
        rows, points, quantiles, truth = zip(*parts, strict=True)
        together = {name: np.concatenate([p[name] for p in points]) for name in points[0]}
        return cls(np.concatenate(rows), together, *map(np.concatenate, (quantiles, truth)))


def forecasts_of(compared: Compared, table: Table, spec: ForecastSpec) -> pd.DataFrame:
    """One row for each window and step; see `Backtest`."""
    h, places = spec.horizon, table.places
    series = np.repeat(places.of(compared.rows), h)
    first, steps = places.position[compared.rows], np.arange(h)
    columns = ids_of(table, spec, series)
    columns["origin"] = np.repeat(_times(table, spec, first - 1)[1], h)
    name, times = _times(table, spec, (first[:, None] + steps).ravel())
    columns |= {name: times, "step": np.tile(steps + 1, len(first))}
    for j, target in enumerate(spec.targets):
        columns[target] = compared.points["model"][:, :, j].ravel()
        for k, level in enumerate(spec.quantiles):
            columns[f"{target}_q{level:g}"] = compared.quantiles[:, :, j, k].ravel()
        columns[f"{target}_actual"] = compared.truth[:, :, j].ravel()
    return pd.DataFrame(columns)


def _times(table: Table, spec: ForecastSpec, positions: np.ndarray) -> tuple[str, Any]:
    """Name and values of the column with the times of positions in the data, also where rows are
    counted and times are labels."""
    if table.times is not None and table.calendar is not None:
        return str(spec.time), pd.Index(present(table.calendar, table.times))[positions]
    return next(iter(times_of(table, spec, positions).items()))


def scores_of(
    compared: Compared, table: Table, model: ForecastModel
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """`Backtest.scores` and `Backtest.series`."""
    places, shape = table.places, compared.truth.shape
    scale = row_units(model, table).unit.numpy()
    units = scale[compared.rows] if scale.ndim > 1 else scale[None]  # (b, c) or (1, c)
    series = np.broadcast_to(places.of(compared.rows)[:, None], shape[:2])
    scores, by_series = [], [pd.DataFrame(columns=list(BY_SERIES))]
    for j, target in enumerate(model.spec.targets):
        seen = ~np.isnan(compared.truth[:, :, j])
        for method, points in compared.points.items():
            error = points[:, :, j] - compared.truth[:, :, j]
            scaled = (error / units[:, j : j + 1])[seen]
            held = _inside(compared)[:, :, j] if method == "model" else np.full(shape[:2], np.nan)
            error, held, of = error[seen], held[seen], series[seen]
            shown = error if table.panel is None else scaled
            names = {"target": target, "method": method}
            mae, rmse = float(np.abs(shown).mean()), float(np.sqrt((shown**2).mean()))
            scores.append({**names, "mae": mae, "rmse": rmse, "held": float(held.mean())})
            if table.panel is None:
                continue
            columns = {"mae": np.abs(error), "rmse": error**2, "scaled": scaled**2, "held": held}
            each = pd.DataFrame(columns).groupby(of)
            found = each.mean().assign(values=each.size(), **names)
            found[["rmse", "scaled"]] **= 0.5
            by_series.append(found.assign(series=table.panel.ids[found.index])[list(BY_SERIES)])
    filled = by_series[1:] or by_series
    return pd.DataFrame(scores), pd.concat(filled, ignore_index=True)


def _inside(compared: Compared) -> np.ndarray:
    """(b, h, c): whether the truth is in the widest band; nan where there is no band."""
    if compared.quantiles.shape[-1] < 2:
        return np.full(compared.truth.shape, np.nan)
    low, high = compared.quantiles[..., 0], compared.quantiles[..., -1]
    return ((low <= compared.truth) & (compared.truth <= high)).astype(float)
