"""Score a model and its baselines.

Memory does not grow with the number of windows, because errors are summed.

Axes: b batch, h horizon, c targets, q quantiles.
"""

import numpy as np
import torch
from torch import Tensor

from longstate.models import ForecastModel
from longstate.train._baselines import last_value, seasonal_naive
from longstate.train._evaluation import Coverage, Example, ForecastEvaluation, Score
from longstate.train._forecast_task import check_size, pinball
from longstate.train._windows import Batch, Windows

METHODS = ("model", "last value", "seasonal naive", "ridge")


class _Sums:
    """Running sums over windows and targets, per step of the horizon."""

    def __init__(self, horizon: int, levels: int):
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        self.count = zeros(horizon)
        self.squared = {m: zeros(horizon) for m in METHODS}
        self.absolute = {m: zeros(horizon) for m in METHODS}
        self.below = zeros(horizon, levels)
        self.pinball = zeros(horizon, levels)


@torch.no_grad()
def evaluate(model: ForecastModel, windows: Windows, *, examples: int = 4) -> ForecastEvaluation:
    """Score all windows.

    Args:
        model: put into evaluation mode.
        windows: windows that were not used for training.
        examples: number of windows to return as examples, evenly spaced.

    Raises:
        InputError: a value is too large to be scored.
    """
    model.eval()
    spec = model.spec
    sums = _Sums(spec.horizon, len(spec.quantiles))
    check_size(model, windows.table, windows.table.rows)
    for batch in windows.batches(128):
        _add(sums, model, windows, batch)
    picked = np.unique(np.linspace(0, len(windows) - 1, examples).round().astype(int))
    first, last = int(windows.origins[0]), int(windows.origins[-1]) + spec.horizon - 1
    return ForecastEvaluation(
        targets=spec.targets,
        horizon=spec.horizon,
        window=spec.window,
        season=spec.season,
        windows=len(windows),
        first=windows.table.label(first),
        last=windows.table.label(last),
        scores=tuple(_score(sums, m) for m in METHODS),
        quantiles=tuple(_coverage(sums, i, level) for i, level in enumerate(spec.quantiles)),
        notes=windows.table.notes,
        examples=tuple(e for i in picked for e in _examples(model, windows, int(i))),
    )


def _add(sums: _Sums, model: ForecastModel, windows: Windows, batch: Batch) -> None:
    y = batch.future
    present = batch.present.double()
    forecast, unit = model(batch.window), model.scale.unit
    points = {
        "model": forecast.point,
        "last value": last_value(windows, batch),
        "seasonal naive": seasonal_naive(windows, batch),
        "ridge": model.raw(model.scaled_ridge(batch.window)),
    }
    sums.count += present.sum((0, 2))
    for method, point in points.items():
        error = (point - y) / unit
        sums.squared[method] += (present * error**2).sum((0, 2))
        sums.absolute[method] += (present * error.abs()).sum((0, 2))
    if model.spec.quantiles:
        weight = present[..., None]
        sums.below += (weight * (y[..., None] <= forecast.quantiles)).sum((0, 2))
        loss = pinball(forecast, y, model.spec.quantiles) / unit[:, None]
        sums.pinball += (weight * loss).sum((0, 2))


def _score(sums: _Sums, method: str) -> Score:
    squared, absolute = sums.squared[method], sums.absolute[method]
    return Score(
        method,
        mse=float(squared.sum() / sums.count.sum()),
        mae=float(absolute.sum() / sums.count.sum()),
        mse_by_step=tuple((squared / sums.count).tolist()),
        mae_by_step=tuple((absolute / sums.count).tolist()),
    )


def _coverage(sums: _Sums, i: int, level: float) -> Coverage:
    return Coverage(
        level,
        observed=float(sums.below[:, i].sum() / sums.count.sum()),
        observed_by_step=tuple((sums.below[:, i] / sums.count).tolist()),
        pinball=float(sums.pinball[:, i].sum() / sums.count.sum()),
    )


def _examples(model: ForecastModel, windows: Windows, index: int) -> list[Example]:
    """One per target."""
    batch = windows.batch(np.array([index]))
    spec, origin = model.spec, int(batch.rows[0])
    forecast = model(batch.window)
    ridge = model.raw(model.scaled_ridge(batch.window))
    points = {
        "model": forecast.point,
        "last value": last_value(windows, batch),
        "seasonal naive": seasonal_naive(windows, batch),
        "ridge": ridge,
    }
    kept = min(spec.window, 2 * spec.horizon)
    past = torch.where(batch.window.observed, batch.window.target, torch.nan)[0, -kept:]
    truth = torch.where(batch.present, batch.future, torch.nan)[0]
    rows = range(origin - kept, origin + spec.horizon)
    return [
        Example(
            target=name,
            times=tuple(windows.table.label(row) for row in rows),
            past=tuple(past[:, j].tolist()),
            truth=tuple(truth[:, j].tolist()),
            forecasts={m: tuple(p[0, :, j].tolist()) for m, p in points.items()},
            quantiles={
                level: tuple(forecast.quantiles[0, :, j, k].tolist())
                for k, level in enumerate(spec.quantiles)
            },
        )
        for j, name in enumerate(spec.targets)
    ]
