"""The word problem of A5, the even permutations of five things: the product of all so far.

Merrill et al., "The Illusion of State in State-Space Models", 2024, arXiv:2404.08819; Cirone et
al., 2024, arXiv:2402.19047, with words of 3 to 20. Here the product is asked for after every
symbol.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import permutations

import torch
from torch import Generator, Tensor

from longstate.memory import Bits
from longstate.tasks._task import Batch, Budget, Task, exactly, whole


@cache
def even_permutations() -> Tensor:
    """The 60 even permutations of 0 ... 4, in the order of the dictionary: (60, 5)."""
    even = [
        p
        for p in permutations(range(5))
        if sum(p[i] > p[j] for i in range(5) for j in range(i + 1, 5)) % 2 == 0
    ]
    return torch.tensor(even)


@cache
def products() -> Tensor:
    """The table (60, 60): entry i, j is the number of the permutation i after the permutation j."""
    all_ = even_permutations()
    composed = all_[:, None].expand(60, 60, 5).gather(2, all_[None].expand(60, 60, 5))
    power = 5 ** torch.arange(5)
    number = torch.zeros(5**5, dtype=torch.long)
    number[(all_ * power).sum(1)] = torch.arange(60)
    return number[(composed * power).sum(2)]


@dataclass(frozen=True, kw_only=True)
class GroupWord(Task):
    """Symbols and answers are the numbers of the permutations."""

    def demand(self, length: int) -> Bits:
        return exactly(math.log2(60), "keep a product in A5")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        x, table = whole(60, (batch, length), generator), products()
        y = x.clone()
        for t in range(1, length):
            y[:, t] = table[x[:, t], y[:, t - 1]]
        scored = (torch.arange(length) > 0).expand(batch, length)  # the first is its own answer
        return Batch(x, y, scored)

    def _begin(self, batch: int) -> Tensor:
        return torch.eye(5).expand(batch, 5, 5)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A dense linear recurrence: permutation matrices of size 5 as transitions."""
        moves = (
            torch.nn.functional.one_hot(even_permutations(), 5).float().mT
        )  # sends e_j to e_p(j)
        state = moves[x] @ state
        likeness = (moves.flatten(1) @ state.flatten(1).T).T  # 5 at the right one
        return likeness.argmax(1), state


TASKS: tuple[Task, ...] = (
    GroupWord(
        name="a5",
        why="The smallest group whose products cannot be computed in parallel at bounded depth, if "
        "a common conjecture holds. One layer with dense transitions does all lengths; diagonal "
        "layers and attention need more depth for longer words (Merrill et al., 2024; Cirone et "
        "al., 2024).",
        symbols=60,
        answers=60,
        chance=1 / 60,
        budget=Budget(12, (20, 40), steps=1000, batch=64, shortest=3),
    ),
)
