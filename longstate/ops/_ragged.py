"""Masks and resets for layers and ops that process whole sequences at once.

A row with masked samples and resets consists of several shorter sequences. `Ragged` moves each
sequence, without masked samples, to the left of a separate row. A layer or an op then runs on a
right-padded batch with known lengths, and `Ragged` moves the outputs back.

Axes: b batch, t time, r ragged rows (sequences), s time within a sequence.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from longstate.ops._transforms import batched

State = Any
"""A tensor, or a tuple, list or dict of states, batch first."""


class Ragged:
    """Where each sample of (b, t) goes.

    Args:
        mask (b, t): bool, or None when every sample exists.
        reset (b, t): bool, or None. A sequence begins where True.

    Attributes:
        lengths (r): samples in each sequence; 0 is possible.
    """

    def __init__(self, mask: Tensor | None, reset: Tensor | None):
        given = mask if mask is not None else reset
        assert given is not None
        if batched(mask, reset):
            raise NotImplementedError(
                "torch.func.vmap over a mask or a reset would give sequences of different lengths "
                "here, which it cannot batch: call without vmap, with these rows as a batch"
            )
        self.keep = torch.ones_like(given) if mask is None else mask
        starts = torch.zeros_like(given) if reset is None else reset
        segment = starts.long().cumsum(1)  # (b, t): 0 continues the carried state
        per_row = segment[:, -1] + 1
        self._first = per_row.cumsum(0) - per_row
        self._last = self._first + per_row - 1
        n_rows = int(per_row.sum())

        row = self._first[:, None] + segment
        count = self.keep.long().cumsum(1)  # samples that exist, up to and with this one
        before = torch.where(starts, count - self.keep.long(), 0).cummax(1).values
        self._row, self._position = row[self.keep], (count - before - 1)[self.keep]
        self.lengths = torch.zeros(n_rows, dtype=torch.long, device=given.device)
        self.lengths.scatter_add_(0, row.flatten(), self.keep.flatten().long())
        self._shape = (n_rows, max(1, int(self.lengths.max())))

    def split(self, x: Tensor) -> Tensor:
        """(b, t, ...) -> (r, s, ...), zero behind each sequence."""
        out = x.new_zeros(*self._shape, *x.shape[2:])
        return out.index_put((self._row, self._position), x[self.keep])

    def join(self, x: Tensor) -> Tensor:
        """(r, s, ...) -> (b, t, ...), zero where the mask is False."""
        out = x.new_zeros(*self.keep.shape, *x.shape[2:])
        where = self.keep.nonzero(as_tuple=True)
        return out.index_put(where, x[self._row, self._position])

    def split_state(self, state: State) -> State:
        """A row's first sequence continues its state; the others begin at zero."""
        return tree_map(
            lambda s: s.new_zeros(self._shape[0], *s.shape[1:]).index_put((self._first,), s),
            state,
        )

    def join_state(self, state: State) -> State:
        """A row's state is that of its last sequence."""
        return tree_map(lambda s: s[self._last], state)


def run_ragged(
    run: Callable[[Tensor, State, Tensor | None, Tensor | None], tuple[Tensor, State]],
    u: Tensor,
    state: State,
    dt: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, State]:
    """Call `run(u, state, dt, lengths)` on the sequences that `mask` and `reset` leave."""
    if mask is None and reset is None:
        return run(u, state, dt, None)
    ragged = Ragged(mask, reset)
    dt = None if dt is None else ragged.split(dt)
    y, state = run(ragged.split(u), ragged.split_state(state), dt, ragged.lengths)
    return ragged.join(y), ragged.join_state(state)
