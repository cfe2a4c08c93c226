"""Residual forecasting of Lorenz-63: what a known model misses, from the one variable in sight.

    x' = sigma (y - x)     y' = x (rho - z) - y     z' = x y - beta z
                                                                       sigma 10, rho 28, beta 8/3

Only x is seen. The known model is x' = -sigma x, and the task is the rest of x', sigma y, at every
sample, from the past of x. It is the setting with hidden variables of Levine and Stuart (2021,
arXiv:2107.06658), in reconstruction. The truth is the explicit Euler map with step 0.02, and not a
finer solution, because then the oracle is exact: three samples of x give y and z, and the map gives
the next ones.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from longstate.memory import Bits
from longstate.tasks._task import Batch, Budget, Task, about

SIGMA, RHO, BETA, STEP = 10.0, 28.0, 8 / 3, 0.02
_BEFORE = 500  # steps until a row begins, so that it is on the attractor
_X, _Y = 8.0, 9.0  # units of x and y, about their standard deviations


def step(state: Tensor) -> Tensor:
    """The Euler map of (..., 3)."""
    x, y, z = state.unbind(-1)
    rate = torch.stack([SIGMA * (y - x), x * (RHO - z) - y, x * y - BETA * z], -1)
    return state + STEP * rate


@dataclass(frozen=True, kw_only=True)
class Residual(Task):
    """Input x, target y, both in units near their standard deviations."""

    def least(self) -> int:
        return 4

    def demand(self, length: int) -> Bits:
        return about(2, "follow the two hidden variables of Lorenz-63")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        state = torch.randn(batch, 3, generator=generator, dtype=torch.float64)
        state = state + torch.tensor([0.0, 0.0, 25.0], dtype=torch.float64)
        for _ in range(_BEFORE):
            state = step(state)
        rows = []
        for _ in range(length):
            rows.append(state)
            state = step(state)
        x, y, _ = torch.stack(rows, 1).unbind(-1)
        scored = (torch.arange(length) >= 2).expand(batch, length)
        return Batch(x[..., None] / _X, y[..., None] / _Y, scored)

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, 2, dtype=torch.float64)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Solve the map for what is hidden: y and z two samples ago, then forward to now."""
        x0, x1 = state.unbind(1)
        x2 = x[:, 0] * _X
        y0, y1 = ((b - a) / (STEP * SIGMA) + a for a, b in ((x0, x1), (x1, x2)))
        near_zero = torch.where(x0 == 0, 1.0, x0)
        z0 = RHO - ((y1 - y0) / STEP + y0) / near_zero
        now = step(step(torch.stack([x0, y0, z0], 1)))
        return now[:, 1:2] / _Y, torch.stack([x1, x2], 1)


TASKS: tuple[Task, ...] = (
    Residual(
        name="lorenz63",
        why="What a layer is for in a physical model: learn the part that the equations miss from "
        "the past of what is measured. Two variables are hidden, and the past of the third one "
        "determines them.",
        features=1,
        answers=1,
        answer="numbers",
        budget=Budget(64, (128, 256)),
    ),
)
