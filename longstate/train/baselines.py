"""What a forecaster must beat: last value, seasonal naive, ridge regression.

Ridge sees exactly what the model sees and is solved in closed form:

    W = argmin |X W - Y|^2 + strength * |W|^2,   columns centred, so the intercept is not penalised

with X the features of `Line` and Y the horizon, both minus the window's last value. One
eigendecomposition of X'X serves every strength; the best on the validation part is kept, and the
calendar is dropped where it does not help there. Only the moments X'X, X'Y, Y'Y are held in
memory, never X.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from longstate.models import ForecastModel
from longstate.train.windows import Batch, Windows

STRENGTHS = tuple(10.0 ** (0.5 * k) for k in range(-18, 1))  # of the mean eigenvalue of X'X


def last_value(windows: Windows, batch: Batch) -> Tensor:
    """(b, h, c) in the data's own units."""
    return batch.window.target[:, -1:].expand_as(batch.future)


def seasonal_naive(windows: Windows, batch: Batch) -> Tensor:
    """(b, h, c): the value one season ago, repeated over the horizon."""
    season = windows.spec.season
    steps = np.arange(windows.spec.horizon)
    rows = batch.rows[:, None] + steps % season - season
    return torch.from_numpy(windows.table.target[np.maximum(rows, 0)])


@dataclass
class Moments:
    """Sums over windows of one target's features and horizon, in float64."""

    n: int
    x: Tensor
    y: Tensor
    xx: Tensor
    xy: Tensor
    yy: Tensor

    @classmethod
    def of(cls, features: int, horizon: int) -> "Moments":
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        return cls(
            0,
            zeros(features),
            zeros(horizon),
            zeros(features, features),
            zeros(features, horizon),
            zeros(horizon),
        )

    def add(self, x: Tensor, y: Tensor) -> None:
        x, y = x.double(), y.double()
        self.n += len(x)
        self.x += x.sum(0)
        self.y += y.sum(0)
        self.xx += x.T @ x
        self.xy += x.T @ y
        self.yy += (y * y).sum(0)

    def error(self, weight: Tensor, bias: Tensor) -> float:
        """Mean squared error of y = x W + bias over the windows summed, without them."""
        s = self.yy + (weight * (self.xx @ weight)).sum(0) + self.n * bias**2
        s = s - 2 * (weight * self.xy).sum(0) - 2 * bias * self.y + 2 * bias * (self.x @ weight)
        return float(s.mean()) / self.n


@torch.no_grad()
def fit_ridge(model: ForecastModel, train: Windows, validation: Windows) -> tuple[float, ...]:
    """Solve for the model's line; returns the strength chosen for each target."""
    seen = [_moments(model, windows) for windows in (train, validation)]
    strengths = []
    for j, (fit, check) in enumerate(zip(*seen, strict=True)):
        strength, weight, bias = _solve(fit, check, model.spec.n_calendar)
        model.line.weight[j], model.line.bias[j] = weight.float(), bias.float()
        strengths.append(strength)
    return tuple(strengths)


def _moments(model: ForecastModel, windows: Windows, size: int = 512) -> list[Moments]:
    c, n, h = model.line.weight.shape
    moments = [Moments.of(n, h) for _ in range(c)]
    for batch in windows.batches(size):
        last, x, scaled = model.normalise(batch.window)
        features = model.line.features(x, scaled)
        y = model.scale(batch.future) - last
        for j in range(c):
            moments[j].add(features[j], y[..., j])
    return moments


def _solve(fit: Moments, check: Moments, calendar: int) -> tuple[float, Tensor, Tensor]:
    """Strength, weight and bias. The last `calendar` features stay only if they help on `check`."""
    n = len(fit.x)
    best: tuple[float, float, Tensor, Tensor] | None = None
    for kept in {n, n - calendar}:
        mean_x, mean_y = fit.x[:kept] / fit.n, fit.y / fit.n
        xx = fit.xx[:kept, :kept] - fit.n * torch.outer(mean_x, mean_x)
        xy = fit.xy[:kept] - fit.n * torch.outer(mean_x, mean_y)
        values, vectors = torch.linalg.eigh(xx)
        values, rotated = values.clamp_min(0), vectors.T @ xy
        unit = float(values.mean()) or 1.0
        for strength in STRENGTHS:
            solved = vectors @ (rotated / (values + strength * unit)[:, None])
            weight = torch.nn.functional.pad(solved, (0, 0, 0, n - kept))
            bias = mean_y - mean_x @ solved
            error = check.error(weight, bias)
            if best is None or error < best[0]:
                best = (error, strength, weight, bias)
    assert best is not None
    return best[1:]
