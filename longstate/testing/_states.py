"""What the clauses of the layer contract share."""

import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._pytree import tree_map

from longstate.layers._base import Layer, State


def close(actual: State, expected: State, what: str) -> None:
    assert_close(actual, expected, msg=lambda text: f"{what}: {text}")


def random_state(layer: Layer, batch: int) -> State:
    """A state that could have been reached: the layer has seen something."""
    u = torch.randn(batch, 5, layer.d_model, dtype=torch.float64)
    return tree_map(Tensor.detach, layer(u)[1])
