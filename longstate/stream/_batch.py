"""Copy, select and join the rows of a state.

Every result is a copy that shares no memory with the arguments. Gradients flow through.

Axes: b batch, the first of every tensor.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from longstate.errors import InputError
from longstate.layers._base import State
from longstate.stream._tree import flatten, unflatten


def fork(state: State, n: int) -> State:
    """Repeat every row n times, copies next to each other: rows 0, 0, 1, 1 for n = 2.

    Raises:
        InputError: n is below 1.
    """
    if n < 1:
        raise InputError(f"n, the number of copies, must be at least 1; got {n}")
    return select(state, torch.arange(_batch(state)).repeat_interleave(n))


def select(state: State, rows: Sequence[int] | Sequence[bool] | np.ndarray | Tensor) -> State:
    """Select rows, in the given order; a row may occur several times.

    Args:
        state: a state of any layer or model.
        rows (any): numbers of rows, negative ones from the end; or (b): bool, True is kept.

    Raises:
        InputError: there is no such row.
    """
    batch = _batch(state)
    try:
        index = torch.as_tensor(rows)
    except (TypeError, ValueError, RuntimeError):
        raise InputError(
            f"rows must be a list of row numbers or {batch} bools; got {rows!r}"
        ) from None
    if index.dtype == torch.bool and index.shape == (batch,):
        index = index.nonzero()[:, 0]
    elif index.numel() == 0:
        index = index.long()
    if index.dim() != 1 or index.dtype not in (torch.int64, torch.int32, torch.int16, torch.int8):
        raise InputError(
            f"rows must be a list of row numbers or {batch} bools; got {index.dtype} of shape "
            f"{tuple(index.shape)}"
        )
    if index.numel() and not -batch <= int(index.min()) <= int(index.max()) < batch:
        raise InputError(f"rows must be below the batch of {batch}; got {index.tolist()}")
    index = index.long() % batch
    return tree_map(lambda t: t if t is None else t.index_select(0, index.to(t.device)), state)


def join(states: Sequence[State]) -> State:
    """Join several states of the same layer or model into one batch, in order.

    Raises:
        InputError: there are no states, or they differ in more than the batch size.
    """
    if not states:
        raise InputError("join needs at least one state; got none")
    first, *others = parts = [flatten(state) for state in states]
    for number, other in enumerate(others, start=1):
        if _kinds(other) != _kinds(first):
            raise InputError(
                f"states 0 and {number} cannot be joined: {_kinds(first)} and {_kinds(other)}"
            )
    return unflatten(states[0], {name: torch.cat([p[name] for p in parts]) for name in first})


def _kinds(tensors: dict[str, Tensor]) -> dict[str, str]:
    return {
        n: f"(b, {str(list(t.shape[1:]))[1:-1]}) {t.dtype} {t.device}" for n, t in tensors.items()
    }


def _batch(state: State) -> int:
    """Number of rows; 0 for an empty state."""
    sizes = {len(t) for t in flatten(state).values()}
    if len(sizes) > 1:
        raise InputError(f"the tensors of a state must agree on the batch; got {sorted(sizes)}")
    return sizes.pop() if sizes else 0
