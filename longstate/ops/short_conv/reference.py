"""The equation as a loop: any dtype, any device, gradients by PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops.short_conv import Inputs


def gather(s: Inputs) -> Tensor:
    """The same from the places of the inputs of each output; -1 reads zero."""
    places = s.sources.long().expand(len(s.x), -1, -1) + 1
    given = F.pad(torch.cat([s.taps, s.x], dim=1), (0, 0, 1, 0))
    window = given[torch.arange(len(s.x), device=s.x.device)[:, None, None], places]  # b t k d
    y = (window * s.weight.T).sum(2)
    y = y if s.bias is None else y + s.bias
    y = F.silu(y) if s.silu else y
    return torch.where(places[..., -1:] > 0, y, torch.zeros_like(y)).to(s.x.dtype)


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    taps: Tensor,
    activation: str | None,
    mask: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if mask is not None:  # so that values at padding reach no gradient
        x = torch.where(mask[..., None], x, torch.zeros_like(x))
    past = taps
    outputs = []
    for t in range(x.shape[1]):
        if reset is not None:
            past = torch.where(reset[:, t, None, None], torch.zeros_like(past), past)
        window = torch.cat([past, x[:, t, None]], dim=1)
        y = (window * weight.T).sum(1)
        if bias is not None:
            y = y + bias
        if activation == "silu":
            y = F.silu(y)
        following = window[:, 1:]
        if mask is not None:
            here = mask[:, t, None]
            y = torch.where(here, y, torch.zeros_like(y))
            following = torch.where(here[..., None], following, past)
        outputs.append(y)
        past = following
    return torch.stack(outputs, dim=1), past
