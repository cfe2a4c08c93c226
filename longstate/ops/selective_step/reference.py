"""The equations, in PyTorch: any dtype, any device."""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops.selective_step import Linear, Panels, Weights


def forward_(u: Tensor, taps: Tensor, h: Tensor, weights: Weights) -> Tensor:
    """y (b, i) of the type of `u`; `taps` (b, d, k) and `h` (b, d, n) are changed."""
    wide, n = h.dtype, h.shape[2]
    rank = weights.dt_proj[0].shape[1]
    x, z = _apply(weights.in_proj, u.to(wide)).chunk(2, dim=-1)
    taps.copy_(torch.cat([taps[..., 1:], x[..., None].to(taps.dtype)], dim=-1))
    x = (taps.to(wide) * weights.conv_weight.to(wide)).sum(-1)
    x = F.silu(x if weights.conv_bias is None else x + weights.conv_bias.to(wide))
    low, B, C = _apply(weights.x_proj, x).split([rank, n, n], dim=-1)
    dt = F.softplus(_apply(weights.dt_proj, low))
    decay = torch.exp(-dt[..., None] * weights.A_log.to(wide).exp())
    h.copy_(decay * h + (dt * x)[..., None] * B[:, None])
    y = ((h * C[:, None]).sum(-1) + weights.D.to(wide) * x) * F.silu(z)
    return _apply(weights.out_proj, y).to(u.dtype)


def _apply(linear: Linear | Panels, x: Tensor) -> Tensor:
    weight, bias = linear[0], linear[-1]
    return F.linear(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype))
