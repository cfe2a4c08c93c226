"""What every kind of layer offers to whoever decides how small it becomes."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch.utils._pytree import tree_leaves

from longstate.compress._report import ReducedLayer
from longstate.layers import Layer


class Made(NamedTuple):
    """A smaller layer, and its row of the report."""

    layer: Layer
    row: ReducedLayer


@runtime_checkable
class Plan(Protocol):
    """One layer that can be made smaller.

    Attributes:
        name: of the layer in its model.
        layer: itself.
        full: units of state that it has: stored modes, columns.
        unit: bytes of one of them, for one sequence.
    """

    name: str
    layer: Any
    full: int
    unit: int

    def tail(self, r: int) -> float:
        """Predicted energy of the error with r units, as a share of the layer's own."""

    def error(self, r: int) -> float:
        """Error with r units, as far as it can be known before the layer runs: what `tol` is
        compared with first."""

    def draft(self, r: int) -> Layer:
        """A layer with r units, made quickly, to see what it does to the model."""

    def make(self, r: int) -> Made:
        """The layer with r units, with all care, and what is known of its error."""


def state_bytes(layer: Any) -> int:
    """Bytes of the state of one sequence."""
    leaves = tree_leaves(layer.init_state(1))
    return sum(v.numel() * v.element_size() for v in leaves if isinstance(v, torch.Tensor))


def d_state_of(layer: Any) -> int:
    """Its `d_state`, whatever a layer counts by it."""
    return int(layer.d_state)
