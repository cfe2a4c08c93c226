"""The equations, in PyTorch: any dtype, any device."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops.row_step import Weights


def forward(u: Tensor, taps: Tensor, h: Tensor, weights: Weights) -> Tensor:
    """y (b, i); `taps` and `h` are changed."""
    wide, n = h.dtype, h.shape[2]
    w: Any = Weights(*[None if v is None else v.to(wide) for v in weights])  # type: ignore[arg-type]
    x, z = F.linear(u.to(wide), w.in_proj, w.in_bias).chunk(2, dim=-1)
    taps.copy_(torch.cat([taps[..., 1:], x[..., None].to(taps.dtype)], dim=-1))
    x = (taps.to(wide) * w.conv_weight).sum(-1)
    x = F.silu(x if w.conv_bias is None else x + w.conv_bias)
    low, B, C = (x @ w.x_proj.T).split([w.dt_weight.shape[1], n, n], dim=-1)
    dt = F.softplus(F.linear(low, w.dt_weight, w.dt_bias))
    decay = torch.exp(-dt[..., None] * w.A_log.exp())
    h.copy_(decay * h + (dt * x)[..., None] * B[:, None])
    y = ((h * C[:, None]).sum(-1) + w.D * x) * F.silu(z)
    return F.linear(y, w.out_proj, w.out_bias).to(u.dtype)
