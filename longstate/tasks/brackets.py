"""Bounded Dyck: k kinds of brackets, at most m deep. Before each closing bracket: its kind.

Hewitt et al. (2020, arXiv:2010.07515); here with the sizes of Sarrof et al. (2024,
arXiv:2405.17394), k = 8 and m = 10, and shorter rows. A bracket opens or closes with equal
probability where both are possible; this is a reconstruction.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from longstate.memory import Bits, demand_of_brackets
from longstate.tasks._task import Batch, Budget, Task, whole


@dataclass(frozen=True, kw_only=True)
class Brackets(Task):
    """Symbols: opening brackets 0 ... k - 1, then closing ones.

    Args:
        kinds: k.
        depth: m.
    """

    kinds: int = 8
    depth: int = 10

    def demand(self, length: int) -> Bits:
        return demand_of_brackets(min(self.depth, length), self.kinds)

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        """One symbol more than the row, so that the last one also has a successor."""
        x = whole(self.kinds, (batch, length + 1), generator)
        coin = torch.rand(batch, length + 1, generator=generator) < 0.5
        stack, depth = self._begin(batch)
        top = torch.zeros(batch, length, dtype=torch.long)
        for t in range(length + 1):
            opens = (depth == 0) | (coin[:, t] & (depth < self.depth))
            x[:, t] = torch.where(opens, x[:, t], self.kinds + _top(stack, depth))
            stack, depth = self._moved(x[:, t], stack, depth)
            if t < length:
                top[:, t] = _top(stack, depth)
        return Batch(x[:, :-1], top, x[:, 1:] >= self.kinds)

    def _begin(self, batch: int) -> tuple[Tensor, Tensor]:
        stack = torch.zeros(batch, self.depth, dtype=torch.long)
        return stack, torch.zeros(batch, dtype=torch.long)

    def _step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple]:
        """A stack: the kinds by depth, and the depth."""
        state = self._moved(x, *state)
        return _top(*state), state

    def _moved(self, x: Tensor, stack: Tensor, depth: Tensor) -> tuple[Tensor, Tensor]:
        opens = x < self.kinds
        here = (torch.arange(self.depth) == depth[:, None]) & opens[:, None]
        return torch.where(here, x[:, None], stack), depth + 2 * opens.long() - 1


def _top(stack: Tensor, depth: Tensor) -> Tensor:
    return stack.gather(1, (depth - 1).clamp(min=0)[:, None])[:, 0]


TASKS: tuple[Task, ...] = (
    Brackets(
        name="dyck",
        why="Nested structure with a limit: which bracket must close next needs the kinds of all "
        "that are open. Two layers of a selective model can do it with as little memory as "
        "possible (Sarrof et al., 2024).",
        symbols=16,
        answers=8,
        budget=Budget(64, (128, 256), steps=800),
    ),
)
