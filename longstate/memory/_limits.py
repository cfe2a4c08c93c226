"""Compare a bound with the largest number of the format in which a layer runs."""

from typing import Any

import torch

from longstate._numbers import number
from longstate.memory._certificate import Claim


def largest(layer: Any) -> tuple[float, str]:
    """The largest number of the type of a layer's weights, and the name of the type.

    The limit of float32 is also used for float64.
    """
    types = {p.dtype for p in layer.parameters() if p.dtype.is_floating_point}
    types |= {p.real.dtype for p in layer.parameters() if p.dtype.is_complex}
    least = min(types or {torch.float32}, key=lambda t: torch.finfo(t).max)
    if torch.finfo(least).max > torch.finfo(torch.float32).max:
        least = torch.float32
    return torch.finfo(least).max, str(least).removeprefix("torch.")


def number_format(layer: Any) -> str:
    """Name of the type in which a layer's recurrence runs: that of its weights, or float32."""
    types = [p.dtype for p in layer.parameters() if p.dtype.is_floating_point]
    wide = torch.promote_types(types[0], torch.float32) if types else torch.float32
    return str(wide).removeprefix("torch.")


def bounded(claim: Claim, layer: Any) -> Claim:
    """The claim, which holds if its bound is below the limit of the layer's format. Otherwise its
    note is "no practical bound", and it neither holds nor fails."""
    limit, name = largest(layer)
    if claim.certified is None or claim.certified <= limit or claim.holds is False:
        return claim
    if claim.certified == float("inf"):
        note = "no practical bound"
    else:
        note = f"no practical bound: the largest {name} is {number(limit)}"
    return claim._replace(holds=None, note=note)
