"""The possible inputs of a selective layer: all outputs of the norm before it, or a radius.

Only norms with a known equation are used, by their type and not by their name: this library's
RMSNorm, PyTorch's RMSNorm and LayerNorm. Other norms may scale by `gamma`, or by 1 + weight. The
block must be known to pass the output of its norm to the layer, or must have done so on the data:
some blocks have the norm after the layer.
"""

import math
from typing import Any

import torch
from torch import nn

from longstate.errors import InputError
from longstate.memory._recording import Found
from longstate.memory._selective_bounds import Ball
from longstate.systems._numbers import in_float64


def ball_of(layer: Found, radius: float | None, confirmed: bool | None) -> Ball:
    """The possible inputs of the layer.

    Args:
        layer: with its norm and block.
        radius: largest length of one sample's input, for a layer whose norm gives no bound.
        confirmed: whether the input of the layer was the output of its norm on the data. None:
            there was no data.

    Raises:
        InputError: there is no radius, and no norm that is known to limit the input.
    """
    d = layer.layer.d_model
    one, zero = torch.ones(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    if radius is not None and not 0 < radius < math.inf:
        raise InputError(f"radius must be a positive length; got {radius}")
    norm = layer.norm
    why = _doubt(layer, confirmed)
    if why and radius is not None:
        return Ball(one, zero, radius)
    if norm is None or why:
        raise InputError(
            f"{why}, so that its input has no known limit; pass radius=, the largest length that "
            "one sample's input can have"
        )
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    return Ball(
        one if weight is None else in_float64(weight),
        zero if bias is None else in_float64(bias),
        math.sqrt(d),
    )


def _doubt(layer: Found, confirmed: bool | None) -> str:
    """Why the norm gives no bound; empty if it does."""
    norm, name = layer.norm, layer.name
    if norm is None:
        return f"no norm comes before {name}"
    if not _is_known(norm, layer.layer.d_model):
        return f"the norm beside {name}, a {type(norm).__name__}, has no known bound"
    if confirmed is False:
        return f"the input of {name} is not the output of the norm beside it"
    if confirmed is None and not _is_ours(layer.block, "longstate.models"):
        return (
            f"the block of {name}, a {type(layer.block).__name__}, is not known to put its norm "
            "before the layer, and no data shows it"
        )
    if confirmed is None and layer.layer._forward_pre_hooks:
        return f"{name} has a hook that may change its input, and no data shows what it does"
    return ""


def _is_known(norm: nn.Module, d: int) -> bool:
    """Whether its output is weight * z + bias with |z| <= sqrt(d)."""
    if norm._forward_hooks or "forward" in vars(norm) or nn.utils.parametrize.is_parametrized(norm):
        return False
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return type(norm) in (nn.LayerNorm, nn.RMSNorm) and tuple(norm.normalized_shape) == (d,)
    return (
        type(norm).__name__ == "RMSNorm"
        and _is_ours(norm, "longstate.layers")
        and (getattr(norm, "weight", torch.ones(d)).shape == (d,))
    )


def _is_ours(module: Any, package: str) -> bool:
    """Whether its class is defined in this library's `package`; a derived class is not enough."""
    return f"{type(module).__module__}.".startswith(f"{package}.")
