"""Tasks on real numbers that need a window of the past: a delay, NARMA-10, and padding by noise.

    delay      y_t = u_{t-k}                                   u_t Gaussian
    NARMA-10   y_t = .3 y_{t-1} + .05 y_{t-1} (y_{t-1} + ... + y_{t-10}) + 1.5 u_{t-10} u_{t-1} + .1
                                                               u_t uniform on [0, 1/2]
    padded     n numbers, then noise, then n questions: give the numbers back in order

NARMA-10 is Atiya and Parlos (2000) in its usual form; rows that leave [-1, 1] are drawn again,
because the recurrence can diverge. "Padded" is a reconstruction of the experiment of HOPE (Yu et
al., 2024, arXiv:2405.13975), who pad images with noise: here numbers, and the noise has the
distribution of the numbers, so that only a flag tells them apart.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from longstate.memory import Bits
from longstate.tasks._task import NUMBER_BITS, Batch, Budget, Task, about, at_least


@dataclass(frozen=True, kw_only=True)
class Delay(Task):
    """Repeat the input of `lag` samples ago.

    Args:
        lag: k.
    """

    lag: int = 16

    def least(self) -> int:
        return self.lag + 1

    def demand(self, length: int) -> Bits:
        task = f"repeat {self.lag} Gaussian numbers with 1 % of their variance as error"
        return at_least(self.lag * NUMBER_BITS, task)

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        u = torch.randn(batch, length, 1, generator=generator)
        scored = (torch.arange(length) >= self.lag).expand(batch, length)
        return Batch(u, u.roll(self.lag, 1), scored)

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.lag)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A shift register: a nilpotent linear system with `lag` states."""
        return state[:, :1], torch.cat([state[:, 1:], x], 1)


@dataclass(frozen=True, kw_only=True)
class Narma(Task):
    """NARMA of order 10; targets are 10 (y - 0.4). In float64, so that the oracle is exact."""

    def least(self) -> int:
        return 12

    def demand(self, length: int) -> Bits:
        return about(20, "compute NARMA-10")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        u, y = _narma(batch, length, generator)
        while (wild := ~(y.abs() <= 1).all(1)).any():
            u[wild], y[wild] = _narma(int(wild.sum()), length, generator)
        scored = (torch.arange(length) >= 10).expand(batch, length)
        return Batch(u[..., None], _units(y)[..., None], scored)

    def _begin(self, batch: int) -> tuple[Tensor, Tensor]:
        zero = torch.zeros(batch, 10, dtype=torch.float64)
        return zero, zero

    def _step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """The last ten inputs and outputs, newest last."""
        u, y = state
        last = y[:, -1]
        new = 0.3 * last + 0.05 * last * y.sum(1) + 1.5 * u[:, 0] * u[:, -1] + 0.1
        u, y = torch.cat([u[:, 1:], x], 1), torch.cat([y[:, 1:], new[:, None]], 1)
        return _units(new)[:, None], (u, y)


def _units(y: Tensor) -> Tensor:
    """The outputs as targets: near 0, and of a size near 1."""
    return 10 * (y - 0.4)


def _narma(batch: int, length: int, generator: Generator) -> tuple[Tensor, Tensor]:
    u = torch.rand(batch, length, generator=generator, dtype=torch.float64) / 2
    y = torch.zeros(batch, length + 10, dtype=torch.float64)  # ten zeros before the first sample
    past = torch.cat([torch.zeros(batch, 10, dtype=torch.float64), u], 1)
    for t in range(10, length + 10):
        mean = y[:, t - 10 : t].sum(1)
        y[:, t] = 0.3 * y[:, t - 1] + 0.05 * y[:, t - 1] * mean
        y[:, t] += 1.5 * past[:, t - 10] * past[:, t - 1] + 0.1
    return u, y[:, 10:]


@dataclass(frozen=True, kw_only=True)
class Padded(Task):
    """Features: the number, 1 where it counts, 1 where one is asked for.

    Args:
        size: n.
    """

    size: int = 8

    def least(self) -> int:
        return 2 * self.size

    def demand(self, length: int) -> Bits:
        task = f"repeat {self.size} Gaussian numbers with 1 % of their variance as error"
        return at_least(self.size * NUMBER_BITS, task)

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        n = self.size
        x = torch.zeros(batch, length, 3)
        x[:, :-n, 0] = torch.randn(batch, length - n, generator=generator)
        x[:, :n, 1] = 1
        x[:, -n:, 2] = 1
        y = torch.zeros(batch, length, 1)
        y[:, -n:, 0] = x[:, :n, 0]
        return Batch(x, y, x[..., 2] == 1)

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.size)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A register that shifts only at numbers that count, and turns at questions."""
        answer = state[:, :1]
        new = torch.where(x[:, 1:2] == 1, x[:, :1], answer)
        moved = torch.cat([state[:, 1:], new], 1)
        return answer, torch.where((x[:, 1] + x[:, 2])[:, None] == 1, moved, state)


TASKS: tuple[Task, ...] = (
    Delay(
        name="delay",
        why="The simplest use of memory: repeat the input of 16 samples ago. A linear system with "
        "16 states does it exactly; diagonal systems with real decays need huge weights "
        "(Ran-Milo et al., 2024, arXiv:2410.14067), oscillating ones do not.",
        features=1,
        answers=1,
        answer="numbers",
        items=16,
        gaussian=True,
        chance=0.0,
        budget=Budget(64, (128, 256)),
    ),
    Narma(
        name="narma10",
        why="The standard test of reservoir computing: a product of inputs ten samples apart, "
        "added up by a nonlinear recurrence. It needs a window and a nonlinearity.",
        features=1,
        answers=1,
        answer="numbers",
        budget=Budget(64, (128, 256)),
    ),
    Padded(
        name="noise_padded",
        why="What a state keeps while nothing of interest happens: eight numbers, then noise that "
        "looks the same, then questions. A fixed decay loses them as the noise gets longer; a "
        "layer that can stop writing, or that does not decay, keeps them.",
        features=3,
        answers=1,
        answer="numbers",
        items=8,
        gaussian=True,
        chance=0.0,
        budget=Budget(48, (96, 192)),
    ),
)
