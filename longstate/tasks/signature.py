"""Words of the signature of a path: iterated integrals of a random walk, after every step.

    S^i   = integral of dX^i
    S^ij  = integral of S^i dX^j
    S^ijk = integral of S^ij dX^k             along the straight lines between the points

The task of Cirone et al. (2024, arXiv:2402.19047): walks whose steps are rounded normal numbers, in
two dimensions for the word 12 and in three for 123. Differs from the paper: the word is asked for
after every step, and walks and integrals are divided by powers of the square root of the length
that they are expected to reach, not by the largest of a data set.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from longstate.memory import Bits
from longstate.tasks._task import Batch, Budget, Task, about


@dataclass(frozen=True, kw_only=True)
class SignatureWord(Task):
    """The word 1 2 ... n of a walk in n dimensions. Inputs are the steps.

    Args:
        letters: n, 2 or 3.
    """

    letters: int

    def demand(self, length: int) -> Bits:
        return about(self.letters, f"integrate a word of {self.letters} letters")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        """Level by level, by cumulative sums: the integral over a line is a Taylor polynomial."""
        shape = batch, length, self.letters
        dx = self._scaled(torch.randn(shape, generator=generator, dtype=torch.float64).round())
        levels = [torch.ones(batch, length, dtype=torch.float64)]  # before each step, from level 0
        for n in range(1, self.letters + 1):
            added, power = torch.zeros(batch, length, dtype=torch.float64), 1.0
            product = torch.ones(batch, length, dtype=torch.float64)
            for k in range(1, n + 1):
                product, power = product * dx[..., n - k], power * k
                added = added + levels[n - k] * product / power
            after = added.cumsum(1)
            levels.append(after - added)
        scored = (torch.arange(length) > 0).expand(batch, length)
        return Batch(dx, self._sized(after)[..., None], scored)

    def _scaled(self, dx: Tensor) -> Tensor:
        return dx / self.budget.length**0.5

    def _sized(self, y: Tensor) -> Tensor:
        """Of a size near 1 at the end of a training row."""
        return y * (2.0 if self.letters == 2 else 4.0)

    def _begin(self, batch: int) -> Tensor:
        first = torch.zeros(batch, self.letters + 1, dtype=torch.float64)
        first[:, 0] = 1
        return first

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A dense linear recurrence: the exponential of a nilpotent matrix with the step in it."""
        move = torch.linalg.matrix_exp(torch.diag_embed(x, offset=1))
        moved = (state[:, None] @ move)[:, 0]
        return self._sized(moved[:, -1:]), moved


TASKS: tuple[Task, ...] = (
    SignatureWord(
        name="signature_12",
        why="A product of one channel's past with another's present, added up. Two linear layers "
        "without a nonlinearity find nothing of it; one selective layer finds much.",
        features=2,
        answers=1,
        answer="numbers",
        letters=2,
        budget=Budget(32, (64, 128), shortest=8),
    ),
    SignatureWord(
        name="signature_123",
        why="The word of three letters separates dense transitions from diagonal ones: random "
        "features of one diagonal layer explain about half of it, of two stacked ones or of one "
        "dense layer nearly all (Cirone et al., 2024).",
        features=3,
        answers=1,
        answer="numbers",
        letters=3,
        budget=Budget(32, (64, 128), steps=800, shortest=8),
    ),
)
