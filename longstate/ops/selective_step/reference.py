"""The equations, in PyTorch: any dtype, any device."""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops.matvec import from_panels
from longstate.ops.selective_step import Linear, Norm, Panels, Weights


def forward(u: Tensor, taps: Tensor, h: Tensor, weights: Weights, norm: Norm | None) -> Tensor:
    """y (b, i) of the type of `u`; `taps` (b, d, k) and `h` (b, d, n) are changed."""
    wide, n = h.dtype, h.shape[2]
    v = u.to(wide)
    if norm is not None:
        v = v * (v.square().mean(-1, keepdim=True) + norm.eps).rsqrt() * norm.weight.to(wide)
    d, rank = len(weights.D), weights.dt_proj[0].shape[1]
    x, z = _apply(weights.in_proj, v, 2 * d).chunk(2, dim=-1)
    taps.copy_(torch.cat([taps[..., 1:], x[..., None].to(taps.dtype)], dim=-1))
    x = (taps.to(wide) * weights.conv_weight.to(wide)).sum(-1)
    x = F.silu(x if weights.conv_bias is None else x + weights.conv_bias.to(wide))
    low, B, C = _apply(weights.x_proj, x, rank + 2 * n).split([rank, n, n], dim=-1)
    dt = F.softplus(_apply(weights.dt_proj, low, d))
    decay = torch.exp(-dt[..., None] * weights.A_log.to(wide).exp())
    h.copy_(decay * h + (dt * x)[..., None] * B[:, None])
    y = ((h * C[:, None]).sum(-1) + weights.D.to(wide) * x) * F.silu(z)
    y = _apply(weights.out_proj, y, u.shape[1])
    return (y if norm is None else u + y).to(u.dtype)


def _apply(linear: Linear | Panels, x: Tensor, rows: int) -> Tensor:
    if isinstance(linear, Panels):
        W = from_panels(linear.panels, rows).to(x.dtype)
        W = W if linear.scale is None else W * linear.scale.to(x.dtype)[:, None]
    else:
        W = linear.weight.to(x.dtype)
    return F.linear(x, W, None if linear.bias is None else linear.bias.to(x.dtype))
