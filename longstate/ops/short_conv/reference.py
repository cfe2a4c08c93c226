"""The equation as a loop: any dtype, any device, gradients by PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    taps: Tensor,
    activation: str | None,
    mask: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if mask is not None:  # so that what padding holds reaches no gradient
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
