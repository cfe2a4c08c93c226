"""The baselines of a forecaster: last value, seasonal naive, ridge regression.

Ridge has exactly the inputs of the model and is solved in closed form:

    W = argmin |X W - Y|^2 + strength * sum_i lag_i^fading |W_i|^2

with X the features of `Line` and Y the horizon, both minus the window's last value; columns are
centred, so the intercept is not penalised. The ridge baseline has fading 0: all lags have the same
penalty. In the model's line the penalty may grow with the lag, as in a state space whose memory
decays. Strength and fading are those with the smallest error on the validation part, and the
calendar is dropped if it does not help there. One eigendecomposition of X'X is used for all
strengths; only the moments X'X, X'Y, Y'Y are in memory, never X.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.models import ForecastModel
from longstate.train._windows import Batch, Windows

STRENGTHS = tuple(10.0 ** (0.5 * k) for k in range(-18, 3))  # of the mean eigenvalue of X'X
FADINGS = (0.75, 1.5)


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
        """Mean squared error of y = x W + bias over the summed windows, from the moments.

        Args:
            weight (f, h): for the first f features; the others have weight 0.
            bias (h): added.
        """
        f = len(weight)
        s = self.yy + (weight * (self.xx[:f, :f] @ weight)).sum(0) + self.n * bias**2
        s = s - 2 * (weight * self.xy[:f]).sum(0) - 2 * bias * (self.y - self.x[:f] @ weight)
        return float(s.mean()) / self.n


class Solution(NamedTuple):
    """One ridge regression, and its mean squared error on the validation part."""

    error: float
    strength: float
    fading: float
    weight: Tensor
    bias: Tensor


@torch.no_grad()
def fit_ridge(model: ForecastModel, train: Windows, validation: Windows) -> tuple[Solution, ...]:
    """Solve for the model's ridge and its line; returns the line's solution for each target."""
    seen = [_moments(model, windows) for windows in (train, validation)]
    lags = model.line.lags()
    lines = []
    for j, (fit, check) in enumerate(zip(*seen, strict=True)):
        choices = [
            _solve(fit, check, lags[:kept], fading)
            for kept in {len(lags), len(lags) - model.spec.n_calendar}
            for fading in (0.0, *FADINGS)
        ]
        line = min(choices, key=_error)
        ridge = min((s for s in choices if s.fading == 0), key=_error)
        for module, found in ((model.ridge, ridge), (model.line, line)):
            module.weight[j].zero_()
            module.weight[j, : len(found.weight)] = found.weight.float()
            module.bias[j] = found.bias.float()
        lines.append(line)
    return tuple(lines)


def _error(solution: Solution) -> float:
    return solution.error


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


def _solve(fit: Moments, check: Moments, lags: Tensor, fading: float) -> Solution:
    """The best strength on `check`, with the first `len(lags)` features."""
    n, shrink = len(lags), lags ** (-fading / 2)
    mean_x, mean_y = fit.x[:n] / fit.n, fit.y / fit.n
    xx = fit.xx[:n, :n] - fit.n * torch.outer(mean_x, mean_x)
    xy = fit.xy[:n] - fit.n * torch.outer(mean_x, mean_y)
    # A penalty of lag^p on a weight equals a plain penalty after scaling the feature down.
    values, vectors = torch.linalg.eigh(shrink[:, None] * xx * shrink)
    values, rotated = values.clamp_min(0), vectors.T @ (shrink[:, None] * xy)
    unit = float(values.mean()) or 1.0
    best: Solution | None = None
    for strength in STRENGTHS:
        weight = shrink[:, None] * (vectors @ (rotated / (values + strength * unit)[:, None]))
        bias = mean_y - mean_x @ weight
        error = check.error(weight, bias)
        if best is None or error < best.error:
            best = Solution(error, strength, fading, weight, bias)
    assert best is not None
    return best
