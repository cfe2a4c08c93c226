"""Languages that need counters: after every symbol, the set of all that may come next.

    a^n b^n, a^n b^n c^n, a^n b^n c^n d^n
    Dyck-1 and Shuffle-k        k kinds of brackets, each balanced, in any order
    Boolean-k                   expressions before their arguments: operators of 1 to k arguments

Those of Bhattamishra et al. (2020, arXiv:2009.11264) and Sarrof et al. (2024, arXiv:2405.17394),
trained on lengths to 50 and tested to 150. The distribution of rows is a reconstruction: a bracket
opens or closes with equal probability where both are possible; n is uniform up to the longest that
fits; expressions of Boolean-k rarely end early, and some do not end within the row.
"""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from longstate.memory import Bits
from longstate.tasks._task import Batch, Budget, Task, exactly, whole


@dataclass(frozen=True, kw_only=True)
class Powers(Task):
    """a^n b^n ... with `letters` letters. After the word come blanks, which are not scored.

    Args:
        letters: 2 or more.
    """

    letters: int

    def least(self) -> int:
        return self.letters

    def demand(self, length: int) -> Bits:
        """The counts in the first letter, in the last, and pairs of counts in those between."""
        n = length // self.letters
        states = n + 1 + (self.letters - 2) * n * (n + 1) // 2 + n
        return exactly(math.log2(states), f"follow {self.name} to n = {n}")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        n = 1 + whole(length // self.letters, (batch, 1), generator)
        x = (torch.arange(length) // n).clamp(max=self.letters)
        y = torch.zeros(batch, length, self.letters + 1, dtype=torch.bool)
        done = torch.arange(1, length + 1)  # symbols so far
        y[..., 0] = done <= n  # while there are only a's, another one may follow
        y[..., 1] = done < 2 * n
        for i in range(2, self.letters):
            y[..., i] = (done >= i * n) & (done < (i + 1) * n)
        y[..., self.letters] = done == self.letters * n
        return Batch(x, y, done <= self.letters * n)

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.letters, dtype=torch.long)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The count of each letter."""
        count = state + (x[:, None] == torch.arange(self.letters))
        n = count[:, :1]
        begun = (count > 0).sum(1)[:, None]  # letters that were seen
        here = torch.arange(self.letters)
        more = (here == begun - 1) & (count < n)  # the current letter is not complete
        following = (here == begun) & (count.gather(1, (begun - 1).clamp(min=0)) == n)
        first = (here == 0) & (begun == 1)
        end = (count == n).all(1, keepdim=True)
        return torch.cat([more | following | first, end], 1), count


@dataclass(frozen=True, kw_only=True)
class Shuffle(Task):
    """Symbols: `kinds` opening brackets, then the closing ones. All kinds are counted apart.

    Args:
        kinds: k.
    """

    kinds: int

    def demand(self, length: int) -> Bits:
        states = math.comb(length + self.kinds, self.kinds)
        return exactly(math.log2(states), f"follow {self.name} for {length} symbols")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        kind = whole(self.kinds, (batch, length), generator)
        coin = torch.rand(batch, length, generator=generator) < 0.5
        open_, rows, y = self._begin(batch), [], []
        for t in range(length):
            here = kind[:, t, None]
            closes = coin[:, t] & (open_.gather(1, here)[:, 0] > 0)
            rows.append(kind[:, t] + self.kinds * closes)
            change = 1 - 2 * closes.long()
            open_ = open_.scatter_add(1, here, change[:, None])
            y.append(self._legal(open_))
        scored = torch.ones(batch, length, dtype=torch.bool)
        return Batch(torch.stack(rows, 1), torch.stack(y, 1), scored)

    def _legal(self, open_: Tensor) -> Tensor:
        some = open_ > 0
        return torch.cat([torch.ones_like(some), some, ~some.any(1, keepdim=True)], 1)

    def _begin(self, batch: int) -> Tensor:
        return torch.zeros(batch, self.kinds, dtype=torch.long)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The number of open brackets of each kind: a sum of plus and minus ones."""
        into = torch.cat([torch.eye(self.kinds), -torch.eye(self.kinds)]).long()
        state = state + into[x]
        return self._legal(state), state


@dataclass(frozen=True, kw_only=True)
class Boolean(Task):
    """Symbols: 0 and 1, operators of 1 to `arity` arguments, blank. All that counts is how many
    expressions are still missing: a value gives one, an operator of m arguments needs m - 1 more.

    Args:
        arity: k.
    """

    arity: int

    def demand(self, length: int) -> Bits:
        states = 2 + length * (self.arity - 1)  # none to the most that can be missing
        return exactly(math.log2(states), f"follow {self.name} for {length} symbols")

    def _draw(self, batch: int, length: int, generator: Generator) -> Batch:
        coin = torch.rand(batch, length, generator=generator)
        value, arity = (
            whole(2, (batch, length), generator),
            whole(self.arity, (batch, length), generator),
        )
        missing, rows, y, scored = self._begin(batch), [], [], []
        share = (self.arity - 1) / (self.arity + 1)  # so that the number stays the same on average
        for t in range(length):
            scored.append(missing > 0)
            x = torch.where(coin[:, t] < share, value[:, t], 2 + arity[:, t])
            short = (missing == 1) & (coin[:, t] > share * _END)
            x = torch.where(short, 2 + arity[:, t], x)
            x = torch.where(scored[-1], x, 2 + self.arity)
            _, missing = self._step(x, missing)
            rows.append(x)
            y.append(self._legal(missing))
        return Batch(torch.stack(rows, 1), torch.stack(y, 1), torch.stack(scored, 1))

    def _legal(self, missing: Tensor) -> Tensor:
        more = (missing > 0)[:, None]
        return torch.cat([more.expand(-1, 2 + self.arity), ~more], 1)

    def _begin(self, batch: int) -> Tensor:
        return torch.ones(batch, dtype=torch.long)

    def _step(self, x: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """One counter."""
        state = state + torch.tensor([-1, -1, *range(self.arity), 0])[x]
        return self._legal(state), state


_END = 0.1  # share of the possible ends of an expression that are taken
_BUDGET = Budget(50, (100, 150), shortest=4)
_WHY = (
    "One or more counters without a limit: layers follow them at trained lengths, and mostly lose "
)
_WHY += "count beyond (Sarrof et al., 2024)."
TASKS: tuple[Task, ...] = (
    *(
        Powers(
            name=f"{''.join(f'{c}n' for c in 'abcd'[:n])}",
            why=f"The words {' '.join(f'{c}^n' for c in 'abcd'[:n])}. {_WHY}",
            letters=n,
            symbols=n + 1,
            answers=n + 1,
            answer="set",
            budget=_BUDGET,
        )
        for n in (2, 3, 4)
    ),
    *(
        Shuffle(
            name="dyck_1" if k == 1 else f"shuffle_{k}",
            why=f"Balanced brackets of {k} {'kind' if k == 1 else 'kinds, in any order'}. {_WHY}",
            kinds=k,
            symbols=2 * k,
            answers=2 * k + 1,
            answer="set",
            budget=_BUDGET,
        )
        for k in (1, 2, 4, 6)
    ),
    *(
        Boolean(
            name=f"boolean_{k}",
            why=f"Expressions with operators of 1 to {k} arguments, operator first. {_WHY}",
            arity=k,
            symbols=3 + k,
            answers=3 + k,
            answer="set",
            budget=_BUDGET,
        )
        for k in (3, 5)
    ),
)
