"""The training task of a forecaster: batches of windows, and the loss.

    loss = mean (point - y)^2 + mean over levels of pinball(quantile - y),   in scaled units

Gaps in the future are ignored.
"""

import numpy as np
import torch
from torch import Tensor

from longstate.models import Forecast, ForecastModel
from longstate.train._settings import Training
from longstate.train._windows import Batch, Windows

VALIDATION_WINDOWS = 2048
_AT_ONCE = 128  # more of them take longer: larger tensors miss the cache, and their memory is new


class ForecastTask:
    """A `Task` for the loop.

    Args:
        model: the model to train.
        train, validation: windows of the two parts.
        settings: batch size and windows per epoch.
        seed: of the order of the windows.
    """

    def __init__(
        self,
        model: ForecastModel,
        train: Windows,
        validation: Windows,
        settings: Training,
        *,
        seed: int,
    ):
        self.model, self.train, self.validation = model, train, validation
        self.settings, self.seed = settings, seed

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """The rows that the horizons of each batch begin with."""
        draw = np.random.default_rng([self.seed, epoch])
        rows = self.train.drawn(draw, self.settings.windows_per_epoch)
        return np.array_split(rows, max(1, round(len(rows) / self.settings.batch_size)))

    def loss(self, rows: np.ndarray) -> Tensor:
        return forecast_loss(self.model, self.train.at(rows))

    def read(self, rows: np.ndarray) -> Forecast:
        forecast: Forecast = self.model(self.train.at(rows).window)
        return forecast

    def validate(self) -> float:
        """Mean loss over all validation windows, or over evenly spaced ones if there are many."""
        n = len(self.validation)
        indices = np.unique(np.linspace(0, n - 1, min(n, VALIDATION_WINDOWS)).astype(int))
        total = 0.0
        for part in np.array_split(indices, -(-len(indices) // _AT_ONCE)):
            total += float(forecast_loss(self.model, self.validation.batch(part))) * len(part)
        return total / len(indices)


def forecast_loss(model: ForecastModel, batch: Batch) -> Tensor:
    forecast = model.scaled(batch.window)
    y = model.units(batch.window).scale(batch.future)
    weight = batch.present.float() / batch.present.float().mean().clamp_min(1e-9)
    loss = (weight * (forecast.point - y) ** 2).mean()
    if model.spec.quantiles:
        loss = loss + (weight[..., None] * pinball(forecast, y, model.spec.quantiles)).mean()
    return loss


def pinball(forecast: Forecast, y: Tensor, levels: tuple[float, ...]) -> Tensor:
    """(b, h, c, q): level * (y - quantile) above, (level - 1) * (y - quantile) below."""
    level = torch.tensor(levels, dtype=y.dtype)
    over = y[..., None] - forecast.quantiles
    return torch.maximum(level * over, (level - 1) * over)


@torch.no_grad()
def fit_spread(model: ForecastModel, validation: Windows, windows: int = 1024) -> None:
    """Set the initial spread of the quantiles, from the line's errors on the validation part."""
    if not model.spec.quantiles:
        return
    n = len(validation)
    indices = np.unique(np.linspace(0, n - 1, min(n, windows)).astype(int))
    errors = []
    for part in np.array_split(indices, -(-len(indices) // _AT_ONCE)):
        batch = validation.batch(part)
        error = model.units(batch.window).scale(batch.future) - model.scaled_line(batch.window)
        errors.append(torch.where(batch.present, error, torch.nan))
    levels = torch.tensor(model.spec.quantiles)
    spread = torch.nanquantile(torch.cat(errors), levels, dim=0)
    model.spread.copy_(spread.nan_to_num().movedim(0, -1))
