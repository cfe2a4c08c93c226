"""Finite automata: built from a rule, reduced to live states, and sampled uniformly."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Generator, Tensor

State = Any
"""Any value that can be hashed."""


@dataclass(frozen=True, eq=False)
class Automaton:
    """The states from which a word can still be completed, numbered from the start, 0.

    Args:
        next (s, v): the state after a symbol; -1 where no word continues so.
        accepts (s): whether a word may end in the state.
    """

    next: Tensor
    accepts: Tensor

    @property
    def legal(self) -> Tensor:
        """What may come next (s, v + 1): each symbol, and the end."""
        return torch.cat([self.next >= 0, self.accepts[:, None]], 1)

    def classes(self) -> int:
        """The number of states that differ in what may follow (Moore's refinement)."""
        group, count = self.accepts.long(), 0
        while True:
            seen = torch.where(self.next >= 0, group[self.next.clamp(min=0)], -1)
            rows = torch.cat([group[:, None], seen], 1)
            group = torch.unique(rows, dim=0, return_inverse=True)[1]
            if int(group.max()) + 1 == count:
                return count
            count = int(group.max()) + 1

    def sample(self, batch: int, length: int, generator: Generator) -> Tensor:
        """Symbols (b, length), uniform among the beginnings of words that have this length."""
        live = self.next >= 0
        ways = [torch.ones(len(self.next), dtype=torch.float64)]
        for _ in range(length):
            after = torch.where(live, ways[-1][self.next.clamp(min=0)], 0).sum(1)
            ways.append(after / after.max().clamp(min=1e-300))  # only ratios count
        state = torch.zeros(batch, dtype=torch.long)
        symbols = torch.empty(batch, length, dtype=torch.long)
        for t in range(length):
            weight = torch.where(live, ways[length - 1 - t][self.next.clamp(min=0)], 0)[state]
            symbols[:, t] = torch.multinomial(weight, 1, generator=generator)[:, 0]
            state = self.next[state, symbols[:, t]]
        return symbols


def automaton(
    start: State,
    symbols: int,
    move: Callable[[State, int], State | None],
    accepts: Callable[[State], bool],
) -> Automaton:
    """All states that can be reached and from which a word can be completed.

    Args:
        start: the first state.
        symbols: v.
        move: the state after a symbol; None if no word continues so.
        accepts: whether a word may end in a state.
    """
    found, edges = [start], []
    number = {start: 0}
    for state in found:  # grows while it is read
        row = []
        for symbol in range(symbols):
            after = move(state, symbol)
            if after is not None and after not in number:
                number[after] = len(found)
                found.append(after)
            row.append(-1 if after is None else number[after])
        edges.append(row)
    ends = [accepts(state) for state in found]
    live = list(ends)
    while True:
        more = [
            a or any(t >= 0 and live[t] for t in row) for a, row in zip(live, edges, strict=True)
        ]
        if more == live:
            break
        live = more
    kept = {old: new for new, old in enumerate(i for i, alive in enumerate(live) if alive)}
    table = [[kept.get(t, -1) for t in edges[old]] for old in kept]
    return Automaton(torch.tensor(table), torch.tensor([ends[old] for old in kept]))
