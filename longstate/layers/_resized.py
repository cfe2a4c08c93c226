"""Copies of a layer with another size of state: shared by the `with_...` methods of layers."""

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from longstate.layers._base import Layer

L = TypeVar("L", bound=Layer)


def resized(layer: L, **changes: Any) -> L:
    """A copy of a layer that is recorded as made with other options. The caller then sets the
    matching parameters. Everything else is unchanged."""
    new = copy.deepcopy(layer)
    vars(new)["_made_with"] = {**vars(layer).get("_made_with", {}), **changes}
    return new


def put(layer: Layer, **values: Tensor) -> None:
    """Replace the values of parameters, of any shape; complex ones become pairs (..., 2)."""
    for name, value in values.items():
        old = layer.get_parameter(name)
        if value.is_complex():
            value = torch.view_as_real(value.resolve_conj())
        new = value.detach().to(old).clone().contiguous()
        setattr(layer, name, nn.Parameter(new, requires_grad=old.requires_grad))
