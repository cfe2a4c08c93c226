"""What can reach a selective layer: everything that the norm before it lets through, or a radius.

Only norms whose equation is known are trusted, by their type and not by their name: this library's
RMSNorm, PyTorch's RMSNorm and LayerNorm. A norm of somebody else may scale by `gamma`, or by
1 + weight. And only in a block that is known to give the layer what its norm put out, or that did
so on the data: some blocks take the norm after the layer.
"""

import math
from typing import Any

import torch
from torch import nn

from longstate.errors import InputError
from longstate.memory._recording import Found
from longstate.memory._selective_bounds import Ball


def ball_of(layer: Found, radius: float | None, confirmed: bool | None) -> Ball:
    """The inputs that the layer can get.

    Args:
        layer: with its norm and block.
        radius: largest length of one sample's input, for a layer whose norm proves nothing.
        confirmed: whether the layer got what its norm put out when the model read the data. None:
            there was no data.

    Raises:
        InputError: there is no radius, and no norm that is known to limit what the layer gets.
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
        one if weight is None else weight.detach().double().cpu(),
        zero if bias is None else bias.detach().double().cpu(),
        math.sqrt(d),
    )


def _doubt(layer: Found, confirmed: bool | None) -> str:
    """Why the norm proves nothing; empty if it does."""
    norm, name = layer.norm, layer.name
    if norm is None:
        return f"no norm comes before {name}"
    if not _is_known(norm, layer.layer.d_model):
        return f"the norm beside {name}, a {type(norm).__name__}, is none that is known"
    if confirmed is False:
        return f"{name} does not get what the norm beside it puts out"
    if confirmed is None and not _is_ours(layer.block, "longstate.models"):
        return (
            f"the block of {name}, a {type(layer.block).__name__}, is not known to put its norm "
            "before the layer, and no data shows it"
        )
    return ""


def _is_known(norm: nn.Module, d: int) -> bool:
    """Whether it puts out weight * z + bias with |z| <= sqrt(d)."""
    if norm._forward_hooks or nn.utils.parametrize.is_parametrized(norm):
        return False
    if isinstance(norm, nn.LayerNorm | nn.RMSNorm):
        return type(norm) in (nn.LayerNorm, nn.RMSNorm) and tuple(norm.normalized_shape) == (d,)
    return (
        type(norm).__name__ == "RMSNorm"
        and _is_ours(norm, "longstate.layers")
        and (getattr(norm, "weight", torch.ones(d)).shape == (d,))
    )


def _is_ours(module: Any, package: str) -> bool:
    """Whether its class is defined in a package of this library (not only derived from one)."""
    return f"{type(module).__module__}.".startswith(f"{package}.")
