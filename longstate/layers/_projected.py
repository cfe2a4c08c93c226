"""Layers that compute more columns of B and C than their state keeps.

The state has r numbers instead of n. If a head has one decay, the state is h W and is read along
V' C, with constant matrices W and V (n, r). If each state of a channel has its own decay, the state
has r of the n columns. The option is `d_state=(n, r)`; with `d_state=n` nothing is left out.

Axes: g groups or heads, n columns, r state; ... any leading axes.
"""

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from longstate.layers._base import Layer
from longstate.layers._resized import resized

L = TypeVar("L", bound=Layer)


def columns_and_state(d_state: int | Sequence[int]) -> tuple[int, int]:
    """n and r of the option `d_state`.

    Raises:
        ValueError: they are no sizes, or r is above n.
    """
    pair = (d_state, d_state) if isinstance(d_state, int) else tuple(d_state)
    if len(pair) != 2 or not 1 <= pair[1] <= pair[0]:
        raise ValueError(
            "d_state must be a number of states of at least 1, or a number of columns and a number "
            f"of states that is no larger; got {d_state!r}"
        )
    return int(pair[0]), int(pair[1])


def option(columns: int, states: int) -> int | list[int]:
    """The option `d_state` for these sizes, as a JSON value."""
    return columns if columns == states else [columns, states]


class StateProjection(nn.Module):
    """W and V for each of g groups or heads. Initially they select the first r columns.

    Args:
        groups: g, number of groups or heads.
        columns: n, columns of B and C.
        states: r, size of the state.
    """

    def __init__(self, groups: int, columns: int, states: int):
        super().__init__()
        first = torch.eye(columns, states).expand(groups, -1, -1)
        self.write, self.read = nn.Parameter(first.clone()), nn.Parameter(first.clone())

    def forward(self, B: Tensor, C: Tensor) -> tuple[Tensor, Tensor]:
        return project(B, C, self.write, self.read)

    @classmethod
    def of(cls, write: Tensor, read: Tensor) -> "StateProjection":
        """A projection with these W and V (g, n, r)."""
        new = cls(*write.shape)
        new.write, new.read = nn.Parameter(write.contiguous()), nn.Parameter(read.contiguous())
        return new


def project(B: Tensor, C: Tensor, write: Tensor, read: Tensor) -> tuple[Tensor, Tensor]:
    """B W and C V (..., g, r) of B and C (..., g, n), in their type."""
    into = torch.einsum("...gn,gnr->...gr", B, write.to(B.dtype))
    return into, torch.einsum("...gn,gnr->...gr", C, read.to(C.dtype))


def with_projection(layer: L, write: Tensor, read: Tensor) -> L:
    """A copy of a Mamba-2 or Mamba-3 layer with a state h W in place of h, read along V' C.

    Args:
        layer: it may have a projection already.
        write, read (g, n, r): W and V of each group or head.
    """
    old: Any = layer
    like, states = old.in_proj.weight, write.shape[2]
    write, read = (v.detach().to(like.device, torch.float64) for v in (write, read))
    if old.projection is not None:
        write, read = old.projection.write.double() @ write, old.projection.read.double() @ read
    new: Any = resized(layer, d_state=option(old._columns, states))
    new.projection = StateProjection.of(write.to(like.dtype), read.to(like.dtype))
    new.projection.requires_grad_(like.requires_grad)
    new.d_state = states
    return new


def selection_of(columns: Tensor, n: int) -> Tensor:
    """The matrix (g, n, r) that selects the columns (g, r) out of n."""
    return torch.nn.functional.one_hot(columns, n).mT.double()


def check_columns(layer: Layer, columns: Sequence[int], n: int) -> list[int]:
    """The columns in rising order.

    Raises:
        ValueError: they are not different numbers from 0 to n - 1.
    """
    kept = sorted(int(i) for i in columns)
    if not kept or kept[0] < 0 or kept[-1] >= n or len(set(kept)) < len(kept):
        raise ValueError(
            f"{type(layer).__name__} has columns 0 to {n - 1}; got {list(columns)!r}, which are "
            "not different ones of them"
        )
    return kept
