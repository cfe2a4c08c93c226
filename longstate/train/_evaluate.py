"""Score a model and its baselines.

Errors are summed, so that memory does not grow with the number of windows, but for a few numbers of
each; see `WindowErrors`.

Axes: b batch, h horizon, c targets, q quantiles.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.models import Forecast, ForecastModel
from longstate.models._choice import PARTS, Choice
from longstate.train._bands import Band
from longstate.train._baselines import last_value, seasonal_naive
from longstate.train._evaluation import (
    Coverage,
    Drawn,
    Example,
    ForecastEvaluation,
    Score,
    SeriesScore,
)
from longstate.train._examples import examples_of, picked
from longstate.train._folds import independent
from longstate.train._forecast_task import pinball
from longstate.train._residuals import autocorrelation
from longstate.train._scaling import check_size
from longstate.train._window_errors import WindowErrors
from longstate.train._windows import Batch, Windows

MOST = 1 << 16
"""Windows that are scored. Neighbours overlap, and the last ones are nearest to use."""
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
    wanted = set(_methods(choice)) - points.keys()
    new = {name: part for name, part in zip(PARTS, parts.points, strict=True) if name in wanted}
    points |= {name: model.raw(part, batch.window) for name, part in new.items()}
    return _Forecasts(points, quantiles, model.unscaled(before, batch.window).quantiles)


def _methods(choice: Choice) -> tuple[str, ...]:
    return ("model", *(name for name in PARTS if name != "map" or choice.map is not None))


class _Sums:
    """Running sums over windows and targets, per step of the horizon; per series and per target.

    Args:
        model: in evaluation mode.
        series: names. count: number of windows without a common row.
    """

    def __init__(self, model: ForecastModel, series: tuple[str, ...], count: float):
        spec = model.spec
        horizon, levels = spec.horizon, len(spec.quantiles)

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        self.model, self.independent, self.each = model, count, WindowErrors()
        self.methods = OLD_METHODS if model.choice is None else _methods(model.choice)
        self.names, self.values = series, zeros(len(series), len(spec.targets))
        self.by_series = {m: zeros(*self.values.shape) for m in self.methods}
        self.count = zeros(horizon)
        self.squared = {m: zeros(horizon) for m in self.methods}
        self.absolute = {m: zeros(horizon) for m in self.methods}
        self.naive = dict.fromkeys(self.methods, 0.0)  # absolute errors over those of the naive one
        self.relative = dict.fromkeys(self.methods, 0.0)
        self.below, self.pinball = zeros(horizon, levels), zeros(horizon, levels)
        self.inside, self.inside_before = zeros(horizon, levels), zeros(horizon, levels)

    def add(self, windows: Windows, batch: Batch) -> None:
        model, y, present = self.model, batch.future, batch.present.double()
        found, unit = _forecasts(model, windows, batch), model.units(batch.window).unit
        self.count += present.sum((0, 2))
        series = torch.from_numpy(windows.places.of(batch.rows))
        self.values.index_add_(0, series, present.sum(1))
        errors = {method: (found.points[method] - y) / unit for method in self.methods}
        self.each.add(errors, present)
        for method, error in errors.items():
            point = found.points[method]
            squared = present * error**2
            self.squared[method] += squared.sum((0, 2))
            self.by_series[method].index_add_(0, series, squared.sum(1))
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
        if method == "model" and self.pinball.shape[1]:
            crps = 2 * float(self.pinball.sum()) / self.pinball.shape[1] / count
        return Score(
            method,
            mse=float(squared.sum()) / count,
            mae=mae,
            mse_by_step=tuple((squared / self.count).tolist()),
            mae_by_step=tuple((absolute / self.count).tolist()),
            mase=None if self.model.choice is None else self.naive[method] / count,
            smape=self.relative[method] / count,
            crps=mae if crps is None else crps,
            noise=None if method == "model" else self.each.noise(method, self.independent),
        )

    def listed(self, names: tuple[str, ...], axis: int) -> tuple[SeriesScore, ...]:
        """Scores of the series or of the targets, the largest error of the model first.

        Args:
            names: of the series or of the targets.
            axis: of `by_series` to sum over.
        """
        values = self.values.sum(axis)
        sums = {method: one.sum(axis) for method, one in self.by_series.items()}
        simple = [m for m in self.methods if m not in ("model", "network")]
        best = min(simple, key=lambda m: float(self.squared[m].sum()))
        found = [
            SeriesScore(
                names[i],
                int(values[i]),
                float(sums["model"][i] / values[i]),
                best,
                float(sums[best][i] / values[i]),
            )
            for i in torch.nonzero(values).flatten().tolist()
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
        by_step = (self.inside / self.count[:, None]).T.tolist()
        inside, before = self.inside.sum(0) / count, self.inside_before.sum(0) / count
        return tuple(
            Band(
                levels[-1 - i] - levels[i],
                float(inside[i]),
                float(before[i]),
                self.independent,
                tuple(by_step[i]),
            )
            for i in range(len(levels) // 2)
        )


def _inside(quantiles: Tensor, y: Tensor, present: Tensor) -> Tensor:
    """(h, q): how many values are between each quantile and its opposite one."""
    y = y[..., None]
    inside = (quantiles <= y) & (y <= quantiles.flip(-1))
    return (present[..., None] * inside).sum((0, 2))


@torch.no_grad()
def evaluate(model: ForecastModel, windows: Windows, *, examples: int = 4) -> ForecastEvaluation:
    """Score all windows, or the last `MOST` of them.

    Args:
        model: put into evaluation mode.
        windows: windows that were not used for training.
        examples: number of windows to return as examples, evenly spaced; and of the worst.

    Raises:
        InputError: a value is too large to be scored.
    """
    model.eval()
    spec, every = model.spec, windows
    windows = every.latest(MOST)
    sums = _Sums(model, windows.places.names, independent([windows], len(windows)))
    check_size(model, windows.table, windows.table.span)
    for batch in windows.batches(128):
        sums.add(windows, batch)
    spread = np.unique(np.linspace(0, len(windows) - 1, examples).round().astype(int))
    at = windows.places.position[windows.origins]
    first = int(windows.origins[at.argmin()])
    last = int(windows.origins[at.argmax()]) + spec.horizon - 1
    series = () if windows.table.panel is None else sums.listed(windows.places.names, 1)
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
        notes=(*windows.table.notes, *_left_out(windows, len(every))),
        examples=tuple(e for i in spread for e in _examples(model, windows, int(i))),
        bands=sums.bands(),
        series=series,
        columns=sums.listed(spec.targets, 0) if len(spec.targets) > 1 else (),
        worst=tuple(_examples(model, windows, i)[j] for i, j in sums.each.worst(windows, examples)),
        drawn=_drawn(model, windows, series),
        residuals=autocorrelation(sums.each.first, windows, spec.season),
    )


def _left_out(windows: Windows, every: int) -> tuple[str, ...]:
    """A sentence if not all windows are scored."""
    n = len(windows)
    if n == every:
        return ()
    if windows.table.panel is None:
        return (f"Scored on the last {n:,} of {every:,} windows.",)
    most = np.bincount(windows.places.of(windows.origins)).max()
    return (f"Scored on the last {most:,} windows of each series, {n:,} of {every:,}.",)


def _examples(model: ForecastModel, windows: Windows, index: int) -> tuple[Example, ...]:
    """One per target."""
    batch = windows.batch(np.array([index]))
    points, quantiles, _ = _forecasts(model, windows, batch)
    return examples_of(windows, batch, points, quantiles)


def _drawn(
    model: ForecastModel, windows: Windows, series: tuple[SeriesScore, ...]
) -> tuple[Drawn, ...]:
    """The last window of some series."""
    names, of = windows.places.names, windows.places.of(windows.origins)
    last = {names[s]: i for i, s in enumerate(of)}  # the origins are in order
    return tuple(
        Drawn(name, why, _examples(model, windows, last[name])[0])
        for name, why in picked([one.name for one in series]).items()
    )
