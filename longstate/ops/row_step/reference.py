"""The equations, in PyTorch: any dtype, any device."""

import torch
from torch import Tensor
from torch.nn import functional as F


def forward(
    x: Tensor,
    z: Tensor,
    taps: Tensor,
    h: Tensor,
    conv_bias: Tensor | None,
    conv_weight: Tensor,
    steering: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
) -> Tensor:
    """y (b, d); `taps` and `h` are changed."""
    taps.copy_(torch.cat([taps[..., 1:], x[..., None]], dim=-1))
    wide = h.dtype
    u = (taps.to(wide) * conv_weight).sum(-1)
    u = F.silu(u if conv_bias is None else u + conv_bias)
    n = h.shape[-1]
    low, B, C = (u @ steering.to(wide).T).split([dt_weight.shape[1], n, n], dim=-1)
    dt = F.softplus(low @ dt_weight.to(wide).T + dt_bias)
    decay = torch.exp(-dt[..., None] * A_log.to(wide).exp())
    h.copy_(decay * h + (dt * u)[..., None] * B[:, None])
    y = (h * C[:, None]).sum(-1) + D * u
    return (y * F.silu(z.to(wide))).to(x.dtype)
