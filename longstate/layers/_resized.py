"""Copies of a layer with a state of another size: what the layers' own `with_...` share."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from longstate.layers._base import Layer

L = TypeVar("L", bound=Layer)


def resized(layer: L, **changes: Any) -> L:
    """A copy of a layer that says it was made with other options; whoever calls it puts in the
    parameters that go with them. Biases, types, devices and the like stay as they are."""
    new = copy.deepcopy(layer)
    vars(new)["_made_with"] = {**vars(layer).get("_made_with", {}), **changes}
    return new


def put(layer: Layer, **values: Tensor) -> None:
    """Give parameters other values, of any shape; complex ones as pairs (..., 2)."""
    for name, value in values.items():
        old = layer.get_parameter(name)
        if value.is_complex():
            value = torch.view_as_real(value.resolve_conj())
        new = value.detach().to(old).clone().contiguous()
        setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad))
