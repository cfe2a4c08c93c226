"""Score a model and its baselines.

Memory does not grow with the number of windows, because errors are summed.

Axes: b batch, h horizon, c targets, q quantiles.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.models import Forecast, ForecastModel
from longstate.models._choice import PARTS, Choice
from longstate.train._baselines import last_value, seasonal_naive
from longstate.train._evaluation import (
    Band,
    Coverage,
    Example,
    ForecastEvaluation,
    Score,
    SeriesScore,
)
from longstate.train._forecast_task import pinball
from longstate.train._scaling import check_size
from longstate.train._windows import Batch, Windows

OLD_METHODS = ("model", "last value", "seasonal naive", "ridge")  # where there is no choice


class _Forecasts(NamedTuple):
    """The forecasts of one batch in the data's own units.

    Args:
        points: method -> (b, h, c).
        quantiles (b, h, c, q): of the model. raw (b, h, c, q): before they were calibrated.
    """

    points: dict[str, Tensor]
    quantiles: Tensor
    raw: Tensor


def _forecasts(model: ForecastModel, windows: Windows, batch: Batch) -> _Forecasts:
    """By what was fitted to the training part."""
    points = {
        "model": torch.empty(0),
        "last value": last_value(windows, batch),
        "seasonal naive": seasonal_naive(windows, batch),
    }
    choice = model.choice
    if choice is None:
        point, quantiles = model(batch.window)
        points |= {
            "model": point,
            "ridge": model.raw(model.scaled_ridge(batch.window), batch.window),
        }
        return _Forecasts(points, quantiles, quantiles)
    fitted = choice.fitted(model)
    parts = choice.parts(model, batch.window, fitted)
    chosen = choice.of_parts(parts, fitted, None)
    point, quantiles = model.unscaled(chosen, batch.window)
    before = Forecast(chosen.point, (chosen.point[..., None] + parts.offsets).sort(dim=-1).values)
    points["model"] = point
    new = {name: part for name, part in zip(PARTS, parts.points, strict=True) if name not in points}
    points |= {name: model.raw(part, batch.window) for name, part in new.items()}
    return _Forecasts(points, quantiles, model.unscaled(before, batch.window).quantiles)


def _methods(choice: Choice) -> tuple[str, ...]:
    return ("model", *(name for name in PARTS if name != "map" or choice.map is not None))


class _Sums:
    """Running sums over windows and targets, per step of the horizon; and per series."""

    def __init__(self, model: ForecastModel, series: tuple[str, ...]):
        spec = model.spec
        horizon, levels = spec.horizon, len(spec.quantiles)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        self.model = model
        self.methods = OLD_METHODS if model.choice is None else _methods(model.choice)
        self.names, self.values = series, zeros(len(series))
        self.by_series = {m: zeros(len(series)) for m in self.methods}
        self.count = zeros(horizon)
        self.squared = {m: zeros(horizon) for m in self.methods}
        self.absolute = {m: zeros(horizon) for m in self.methods}
        self.naive = dict.fromkeys(self.methods, 0.0)  # absolute errors over those of the naive one
        self.relative = dict.fromkeys(self.methods, 0.0)
        self.below, self.pinball = zeros(horizon, levels), zeros(horizon, levels)
        self.inside, self.inside_before = zeros(levels), zeros(levels)

    def add(self, windows: Windows, batch: Batch) -> None:
        model, y, present = self.model, batch.future, batch.present.double()
        found, unit = _forecasts(model, windows, batch), model.units(batch.window).unit
        self.count += present.sum((0, 2))
        series = torch.from_numpy(windows.places.of(batch.rows))
        self.values.index_add_(0, series, present.sum((1, 2)))
        for method in self.methods:
            point = found.points[method]
            error = (point - y) / unit
            squared = present * error**2
            self.squared[method] += squared.sum((0, 2))
            self.by_series[method].index_add_(0, series, squared.sum((1, 2)))
            self.absolute[method] += (present * error.abs()).sum((0, 2))
            if model.choice is not None:
                self.naive[method] += float(
                    (present * error.abs() / model.choice.naive_error).sum()
                )
            size = (y.abs() + point.abs()).clamp_min(1e-300)
            self.relative[method] += float((present * 200 * (point - y).abs() / size).sum())
        if model.spec.quantiles:
            weight = present[..., None]
            self.below += (weight * (y[..., None] <= found.quantiles)).sum((0, 2))
            forecast = Forecast(found.points["model"], found.quantiles)
            loss = pinball(forecast, y, model.spec.quantiles) / unit[:, None]
            self.pinball += (weight * loss).sum((0, 2))
            self.inside += _inside(found.quantiles, y, present)
            self.inside_before += _inside(found.raw, y, present)

    def score(self, method: str) -> Score:
        squared, absolute = self.squared[method], self.absolute[method]
        count = float(self.count.sum())
        mae, crps = float(absolute.sum()) / count, None
        if method == "model" and len(self.inside):
            crps = 2 * float(self.pinball.sum()) / len(self.inside) / count
        return Score(
            method,
            mse=float(squared.sum()) / count,
            mae=mae,
            mse_by_step=tuple((squared / self.count).tolist()),
            mae_by_step=tuple((absolute / self.count).tolist()),
            mase=None if self.model.choice is None else self.naive[method] / count,
            smape=self.relative[method] / count,
            crps=mae if crps is None else crps,
        )

    def series(self) -> tuple[SeriesScore, ...]:
        """The largest error of the model first."""
        simple = [m for m in self.methods if m not in ("model", "network")]
        best = min(simple, key=lambda m: float(self.squared[m].sum()))
        seen = torch.nonzero(self.values).flatten().tolist()
        found = [
            SeriesScore(
                self.names[i],
                int(self.values[i]),
                float(self.by_series["model"][i] / self.values[i]),
                best,
                float(self.by_series[best][i] / self.values[i]),
            )
            for i in seen
        ]
        return tuple(sorted(found, key=lambda one: -one.mse))

    def coverage(self, i: int, level: float) -> Coverage:
        return Coverage(
            level,
            observed=float(self.below[:, i].sum() / self.count.sum()),
            observed_by_step=tuple((self.below[:, i] / self.count).tolist()),
            pinball=float(self.pinball[:, i].sum() / self.count.sum()),
        )

    def bands(self) -> tuple[Band, ...]:
        levels, count = self.model.spec.quantiles, float(self.count.sum())
        inside, before = self.inside / count, self.inside_before / count
        return tuple(
            Band(levels[-1 - i] - levels[i], float(inside[i]), float(before[i]))
            for i in range(len(levels) // 2)
        )


def _inside(quantiles: Tensor, y: Tensor, present: Tensor) -> Tensor:
    """(q): how many values are between each quantile and its opposite one."""
    y = y[..., None]
    inside = (quantiles <= y) & (y <= quantiles.flip(-1))
    return (present[..., None] * inside).sum((0, 1, 2))


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
    sums = _Sums(model, windows.places.names)
    check_size(model, windows.table, windows.table.span)
    for batch in windows.batches(128):
        sums.add(windows, batch)
    picked = np.unique(np.linspace(0, len(windows) - 1, examples).round().astype(int))
    at = windows.places.position[windows.origins]
    first = int(windows.origins[at.argmin()])
    last = int(windows.origins[at.argmax()]) + spec.horizon - 1
    return ForecastEvaluation(
        targets=spec.targets,
        horizon=spec.horizon,
        window=spec.window,
        season=spec.season,
        windows=len(windows),
        first=windows.table.label(first),
        last=windows.table.label(last),
        scores=tuple(sums.score(m) for m in sums.methods),
        quantiles=tuple(sums.coverage(i, level) for i, level in enumerate(spec.quantiles)),
        notes=windows.table.notes,
        examples=tuple(e for i in picked for e in _examples(model, windows, int(i))),
        bands=sums.bands(),
        series=() if windows.table.panel is None else sums.series(),
    )


def _examples(model: ForecastModel, windows: Windows, index: int) -> list[Example]:
    """One per target."""
    batch = windows.batch(np.array([index]))
    spec, origin = model.spec, int(batch.rows[0])
    points, quantiles, _ = _forecasts(model, windows, batch)
    kept = min(spec.window, 2 * spec.horizon)
    past = torch.where(batch.window.observed, batch.window.target, torch.nan)[0, -kept:]
    truth = torch.where(batch.present, batch.future, torch.nan)[0]
    rows = range(origin - kept, origin + spec.horizon)
    places = windows.places
    of = places.names[int(places.of(batch.rows)[0])]
    return [
        Example(
            target=f"{name} of {of}" if windows.table.panel else name,
            times=tuple(windows.table.label(row) for row in rows),
            past=tuple(past[:, j].tolist()),
            truth=tuple(truth[:, j].tolist()),
            forecasts={m: tuple(p[0, :, j].tolist()) for m, p in points.items()},
            quantiles={
                level: tuple(quantiles[0, :, j, k].tolist())
                for k, level in enumerate(spec.quantiles)
            },
        )
        for j, name in enumerate(spec.targets)
    ]
