"""Multi-query associative recall: pairs of key and value, then keys whose values are asked for.

Arora et al., "Zoology", 2023, arXiv:2312.04927. Differs from the paper: keys and values have
alphabets of their own, and every query is scored with nothing between them, because dense questions
make it learnable in minutes.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from longstate.memory import Bits, demand_of_recall
from longstate.tasks._task import Batch, Budget, Task, choose, whole


@dataclass(frozen=True, kw_only=True)
class Recall(Task):
    """A row is 2 p samples of pairs, then queries: `keys` symbols of keys, then those of values.

    Args:
        pairs: p.
        keys: K, number of keys.
        values: V, number of values.
    """

    pairs: int
    keys: int
    values: int

    def least(self) -> int:
        return 2 * self.pairs + 1

    def demand(self, length: int) -> Bits:
        return demand_of_recall(self.pairs, self.keys, self.values)

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        context = 2 * self.pairs
        keys = choose(batch, self.keys, self.pairs, generator)
        values = whole(self.values, (batch, self.pairs), generator)
        pairs = torch.stack([keys, self.keys + values], 2).flatten(1)
        asked = whole(self.pairs, (batch, length - context), generator)
        x = torch.cat([pairs, keys.gather(1, asked)], 1)
        y = torch.cat([torch.zeros_like(pairs), values.gather(1, asked)], 1)
        scored = (torch.arange(length) >= context).expand(batch, length)
        return Batch(x, y, scored)

    def _begin(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, self.keys, self.values), torch.zeros(batch, self.keys)

    def _step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, tuple]:
        """A sum of outer products of one-hot keys and values, and the last key."""
        table, key = state
        both = torch.nn.functional.one_hot(x, self.keys + self.values).float()
        query, value = both[:, : self.keys], both[:, self.keys :]
        table = table + key[:, :, None] * value[:, None]
        return (query[:, None] @ table)[:, 0].argmax(1), (table, query)


_WHY = (
    "Recall from context is where language models with a fixed state fall behind attention, and "
    "the number of pairs that a layer recalls follows the size of its state (Arora et al., 2023)."
)
TASKS: tuple[Task, ...] = (
    Recall(
        name="recall",
        why=f"{_WHY} Four pairs of eight keys and eight values.",
        pairs=4,
        keys=8,
        values=8,
        symbols=16,
        answers=8,
        items=4,
        chance=1 / 8,
        budget=Budget(20, (40, 80), steps=1000),
    ),
    Recall(
        name="recall_6",
        why=f"{_WHY} Six pairs of sixteen keys and sixteen values.",
        pairs=6,
        keys=16,
        values=16,
        symbols=32,
        answers=16,
        items=6,
        chance=1 / 16,
        budget=Budget(24, (48, 96), steps=1500, batch=64),
    ),
)
