"""Sums over windows from which linear regressions are solved and scored, without the windows.

Neighbouring windows overlap, so that of very many windows a part tells as much as all.

Axes: f features, h horizon.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from longstate.models import ForecastModel
from longstate.train._long_series import WINDOWS, one_of_each
from longstate.train._windows import Windows


@dataclass
class Moments:
    """Sums over windows of one target's features and horizon, in float64."""

    n: float
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

    def __add__(self, other: "Moments") -> "Moments":
        return Moments(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def __mul__(self, times: float) -> "Moments":
        return Moments(*(getattr(self, f.name) * times for f in fields(self)))

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


def sums_of(model: ForecastModel, windows: Windows, size: int = 512) -> list[Moments]:
    """Of all windows, for each target. Of more than `WINDOWS` one of each of so many equal parts
    is read, and counts for all of its part."""
    c, n, h = model.line.weight.shape
    moments = [Moments.of(n, h) for _ in range(c)]
    chosen = one_of_each(0, len(windows), WINDOWS, np.random.default_rng(0))
    for start in range(0, len(chosen), size):
        batch = windows.batch(chosen[start : start + size])
        last, x, scaled = model.normalise(batch.window)
        features = model.line.features(x, scaled)
        y = model.units(batch.window).scale(batch.future) - last
        for j in range(c):
            moments[j].add(features[j], y[..., j])
    times = len(windows) / max(1, len(chosen))
    return [one * times for one in moments]


def total(moments: list[Moments]) -> Moments:
    """The sum over targets."""
    return sum(moments[1:], moments[0])
