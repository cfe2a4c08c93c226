"""A nonlinear map of the newest rows to the next one, repeated over the horizon.

    m     = (P y(t-l+1 .. t) - mean) / deviation      Legendre coefficients of the last l rows
    y(t+1) = y(t) + W [1, m, sqrt(2 / f) cos(F m + phase)],     then moved into [low, high]

A deterministic system has such a map: the newest rows are coordinates of its state (Takens 1981),
and few polynomials hold what is smooth in them, as in a state space memory of a sliding window. The
cosines are random features of a Gaussian kernel (Rahimi and Recht 2007), so that W is solved in
closed form. Chaotic systems are forecast in this way in "reservoir computing" (Jaeger and Haas
2004) and its form without a reservoir (Gauthier et al. 2021). Differs from both: memory and
features as above. Everything is in scaled units and in float64, because errors grow as the map is
repeated.

Axes: b batch, w window, h horizon, c targets, l newest rows, k polynomials, f cosines, d = k c.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.models._scale import Float64
from longstate.models._spec import ForecastSpec

COSINES, MOST_LAGS, MOST_ORDER, MOST_TARGETS = 500, 32, 8, 8
FEWEST_LAGS, FEWEST_ROWS = 4, 200


class IteratedMap(Float64):
    """The map. It reads the targets alone, neither covariates nor times.

    Args:
        spec: columns and lengths; `possible` tells whether there is a map for them.
    """

    projection: Tensor
    mean: Tensor
    deviation: Tensor
    frequency: Tensor
    phase: Tensor
    weight: Tensor
    low: Tensor
    high: Tensor
    penalty: Tensor

    def __init__(self, spec: ForecastSpec):
        super().__init__()
        self.horizon = spec.horizon
        c, lags = len(spec.targets), min(MOST_LAGS, spec.window)
        k = min(MOST_ORDER, lags)
        d = k * c

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(*shape, dtype=torch.float64)

        self.register_buffer("projection", zeros(k, lags))
        self.register_buffer("mean", zeros(d))
        self.register_buffer("deviation", torch.ones(d, dtype=torch.float64))
        self.register_buffer("frequency", zeros(d, COSINES))
        self.register_buffer("phase", zeros(COSINES))
        self.register_buffer("weight", zeros(1 + d + COSINES, c))
        self.register_buffer("low", zeros(c))
        self.register_buffer("high", zeros(c))
        self.register_buffer("penalty", zeros(1))

    @staticmethod
    def possible(spec: ForecastSpec) -> bool:
        """Whether rows are evenly spaced, a window has some of them, and targets are few."""
        few = len(spec.targets) <= MOST_TARGETS
        return few and spec.window >= FEWEST_LAGS and not spec.irregular

    @property
    def lags(self) -> int:
        """l: rows that can be read."""
        return self.projection.shape[1]

    def memory(self, rows: Float[Tensor, "b l c"]) -> Float[Tensor, "b d"]:
        """m before it is centred and scaled."""
        return torch.einsum("kl,blc->bkc", self.projection, rows).flatten(1)

    def features(self, memory: Float[Tensor, "b d"]) -> Float[Tensor, "b f"]:
        """1, m and the cosines."""
        m = (memory - self.mean) / self.deviation
        waves = math.sqrt(2 / COSINES) * torch.cos(m @ self.frequency + self.phase)
        return torch.cat([torch.ones_like(m[:, :1]), m, waves], dim=1)

    def forward(self, target: Float[Tensor, "b w c"]) -> Float[Tensor, "b h c"]:
        """The next rows after a window of the scaled targets, float64."""
        rows, found = target[:, -self.lags :], []
        for _ in range(self.horizon):
            step = self.features(self.memory(rows)) @ self.weight
            new = torch.clamp(rows[:, -1] + step, self.low, self.high)
            found.append(new)
            rows = torch.cat([rows[:, 1:], new[:, None]], dim=1)
        return torch.stack(found, dim=1)


def legendre(rows: int, order: int) -> Float[Tensor, "k l"]:
    """The first Legendre polynomials on evenly spaced rows, made orthonormal there."""
    t = torch.linspace(-1, 1, rows, dtype=torch.float64)
    basis = [torch.ones_like(t), t]
    for n in range(1, order - 1):
        basis.append(((2 * n + 1) * t * basis[n] - n * basis[n - 1]) / (n + 1))
    q, r = torch.linalg.qr(torch.stack(basis[:order], dim=1))
    return (q * r.diagonal().sign()).T
