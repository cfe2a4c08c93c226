"""The equations as a loop: any dtype, any device, gradients by PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def forward(
    x: Tensor,
    beta: Tensor,
    k: Tensor,
    q: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor,
    beta_bias: Tensor | None,
    beta_sigmoid: bool,
    update: str,
    mask: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if mask is not None:  # so that what padding holds reaches no gradient
        x, beta, z = (hide(p, mask) for p in (x, beta, z))
    if beta_bias is not None:
        beta = beta + beta_bias
    if beta_sigmoid:
        beta = torch.sigmoid(beta)
    rate = beta / (1 + beta * k.square().sum(-1, keepdim=True))
    h = h0
    outputs = []
    for t in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None], torch.zeros_like(h), h)
        k_t, q_t = k[:, t, None], q[:, t, None]
        rate_t, x_t = rate[:, t, :, None], x[:, t, :, None]
        if update == "exact":
            following = h + rate_t * (x_t - (h * k_t).sum(-1, keepdim=True)) * k_t
        else:
            following = (1 - rate_t * k_t.square()) * h + rate_t * x_t * k_t
        y = (following * q_t).sum(-1)
        if D is not None:
            y = y + D * x[:, t]
        if z is not None:
            y = y * F.silu(z[:, t])
        if mask is not None:
            here = mask[:, t, None]
            y = torch.where(here, y, torch.zeros_like(y))
            following = torch.where(here[..., None], following, h)
        h = following
        outputs.append(y)
    return torch.stack(outputs, dim=1), h


def hide(x, mask):
    return None if x is None else torch.where(mask[..., None], x, torch.zeros_like(x))
