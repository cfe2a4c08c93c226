"""Whether a bound means anything: the largest number of the format that a layer runs in."""

from typing import Any

import torch

from longstate.memory._certificate import Claim
from longstate.memory._result import digits


def largest(layer: Any) -> tuple[float, str]:
    """The largest number of the type of a layer's weights, at most that of float32; its name.

    A float64 layer of a size that overflows everywhere else is not told from one that overflows.
    """
    types = {p.dtype for p in layer.parameters() if p.dtype.is_floating_point}
    types |= {p.real.dtype for p in layer.parameters() if p.dtype.is_complex}
    least = min(types or {torch.float32}, key=lambda t: torch.finfo(t).max)
    if torch.finfo(least).max > torch.finfo(torch.float32).max:
        least = torch.float32
    return torch.finfo(least).max, str(least).removeprefix("torch.")


def number_format(layer: Any) -> str:
    """Name of the type in which a layer's recurrence runs: that of its weights, widened."""
    types = [p.dtype for p in layer.parameters() if p.dtype.is_floating_point]
    wide = torch.promote_types(types[0], torch.float32) if types else torch.float32
    return str(wide).removeprefix("torch.")


def bounded(claim: Claim, layer: Any) -> Claim:
    """The claim, which holds if its bound is a number of the layer's format; otherwise it says
    that there is no practical bound, which proves neither that it holds nor that it fails."""
    limit, name = largest(layer)
    if claim.certified is None or claim.certified <= limit or claim.holds is False:
        return claim
    if claim.certified == float("inf"):
        note = "no practical bound"
    else:
        note = f"no practical bound: {name} ends at {digits(limit)}"
    return claim._replace(holds=None, note=note)
