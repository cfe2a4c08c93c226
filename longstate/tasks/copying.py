"""Tasks that give symbols back: in order, after noise, or by what stood before them.

    selective copying    n data symbols among noise; then n questions: the data in order
    copy                 n symbols, a separator, and the symbols again; n grows with the length
    induction heads      a marked symbol somewhere; after the mark comes again: that symbol

Selective copying and induction heads are those of Gu and Dao (2024, arXiv:2312.00752), smaller; the
copy with growing length is that of Jelassi et al. (2024, arXiv:2402.01032). There the separator is
followed by the model's own output; here by the right one, so that no error leads to another. This
is a reconstruction.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

from longstate.memory import Bits, demand_of_copy
from longstate.tasks._task import Batch, Budget, Task, choose, exactly, whole


@dataclass(frozen=True, kw_only=True)
class SelectiveCopy(Task):
    """Symbols: `alphabet` of data, noise, question.

    Args:
        alphabet: V.
        size: n.
    """

    alphabet: int = 8
    size: int = 8

    def least(self) -> int:
        return 2 * self.size

    def demand(self, length: int) -> Bits:
        return demand_of_copy(self.size, self.alphabet)

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        n, noise = self.size, self.alphabet
        data = whole(self.alphabet, (batch, n), generator)
        places = choose(batch, length - n, n, generator).sort(1).values
        x = torch.full((batch, length), noise)
        x[:, -n:] = noise + 1
        x.scatter_(1, places, data)
        y = torch.zeros(batch, length, dtype=torch.long)
        y[:, -n:] = data
        return Batch(x, y, x == noise + 1)

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.size, dtype=torch.long)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """A register that shifts at data and at questions, and stands still at noise."""
        answer = state[:, 0]
        new = torch.where(x < self.alphabet, x, answer)
        moved = torch.cat([state[:, 1:], new[:, None]], 1)
        return answer, torch.where((x != self.alphabet)[:, None], moved, state)


@dataclass(frozen=True, kw_only=True)
class Copy(Task):
    """Symbols: `alphabet` of data, and the separator. A row of length t has (t + 1) // 2 data.

    Args:
        alphabet: V.
    """

    alphabet: int = 8

    def demand(self, length: int) -> Bits:
        return demand_of_copy((length + 1) // 2, self.alphabet)

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        n = (length + 1) // 2
        data = whole(self.alphabet, (batch, n), generator)
        x = torch.cat([data, torch.full((batch, 1), self.alphabet), data], 1)[:, :length]
        y = torch.zeros_like(x)
        y[:, n:] = data[:, : length - n]
        scored = (torch.arange(length) >= n).expand(batch, length)
        return Batch(x, y, scored)

    def _begin(self, batch: int) -> tuple[Tensor, Tensor]:
        return torch.zeros(batch, 0, dtype=torch.long), torch.zeros(batch, dtype=torch.long)

    def _step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """All symbols so far; and the symbols since the separator, itself included."""
        seen, since = state
        seen = torch.cat([seen, x[:, None]], 1)
        since = since + ((since > 0) | (x == self.alphabet))
        return seen.gather(1, (since - 1).clamp(min=0)[:, None])[:, 0], (seen, since)


@dataclass(frozen=True, kw_only=True)
class Induction(Task):
    """Symbols: `alphabet` of data, and the mark.

    Args:
        alphabet: V.
    """

    alphabet: int = 15

    def least(self) -> int:
        return 4

    def demand(self, length: int) -> Bits:
        return exactly(math.log2(self.alphabet), "keep the marked symbol")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        x = whole(self.alphabet, (batch, length), generator)
        place = whole(length - 2, (batch, 1), generator)
        x.scatter_(1, place, self.alphabet)
        x[:, -1] = self.alphabet
        y = torch.zeros_like(x)
        y[:, -1] = x.gather(1, place + 1)[:, 0]
        scored = (torch.arange(length) == length - 1).expand(batch, length)
        return Batch(x, y, scored)

    def _begin(self, batch: int) -> tuple[Tensor, Tensor]:
        zero = torch.zeros(batch, dtype=torch.long)
        return zero, zero

    def _step(self, x: Tensor, state: tuple[Tensor, Tensor]) -> tuple[Tensor, Any]:
        """The previous symbol, and the one that followed the mark."""
        previous, kept = state
        kept = torch.where(previous == self.alphabet, x, kept)
        return kept, (x, kept)


TASKS: tuple[Task, ...] = (
    SelectiveCopy(
        name="selective_copy",
        why="Whether a layer can choose what to write: data lie among noise at random places, so a "
        "time-invariant layer cannot know how far back they are. Gu and Dao (2024) made it the "
        "test of selection.",
        symbols=10,
        answers=8,
        items=8,
        chance=1 / 8,
        budget=Budget(48, (96, 192), steps=800),
    ),
    Copy(
        name="copy",
        why="How many symbols a state holds: the whole first half is needed, so a fixed state must "
        "fail from some length on, and attention need not (Jelassi et al., 2024). Trained on "
        "lengths up to 33 and tested at twice and four times that.",
        symbols=9,
        answers=8,
        items=17,
        chance=1 / 8,
        budget=Budget(33, (65, 129), steps=800, shortest=5),
    ),
    Induction(
        name="induction",
        why="Look up what followed a mark when it came before: the operation that is behind much "
        "of in-context learning. Selective layers learn it at one length and keep it at others "
        "(Gu and Dao, 2024).",
        symbols=16,
        answers=15,
        chance=1 / 15,
        budget=Budget(64, (128, 512), batch=64),
    ),
)
