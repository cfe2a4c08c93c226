"""The interface between the choice of sizes and the reduction of each kind of layer."""

from itertools import pairwise
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch.utils._pytree import tree_leaves

from longstate.compress._report import ReducedLayer
from longstate.layers import Layer


class Made(NamedTuple):
    """A reduced layer and its row in the report."""

    layer: Layer
    row: ReducedLayer


@runtime_checkable
class Plan(Protocol):
    """The reduction of one layer. Units of its state are stored modes, oscillators or columns.

    Attributes:
        name: of the layer in its model.
        layer: the layer.
        full: number of units of the layer.
        unit: bytes of one unit, for one sequence.
    """

    name: str
    layer: Any
    full: int
    unit: int

    def tail(self, r: int) -> float:
        """Predicted energy of the error with r units, as a share of the energy of the output."""

    def error(self, r: int) -> float:
        """Error with r units, as far as it is known without running the reduced layer. `tol` is
        first compared with it."""

    def draft(self, r: int) -> Layer:
        """A layer with r units, made quickly, to measure its effect on the model."""

    def make(self, r: int) -> Made:
        """The best layer with r units, and its row in the report."""


def state_bytes(layer: Any) -> int:
    """Bytes of the state of one sequence."""
    leaves = tree_leaves(layer.init_state(1))
    return sum(v.numel() * v.element_size() for v in leaves if isinstance(v, torch.Tensor))


def spectrum(plan: Plan) -> tuple[float, ...]:
    """How much each unit adds to the layer's output, as a share, the most useful first."""
    tails = [plan.tail(r) for r in range(plan.full + 1)]
    return tuple(max(a - b, 0.0) ** 0.5 for a, b in pairwise(tails))


def d_state_of(layer: Any) -> int:
    """The layer's `d_state`."""
    return int(layer.d_state)
