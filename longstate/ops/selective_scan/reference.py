"""The equation as a loop: any dtype, any device, complex A; gradients by PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._arguments import where_kept
from longstate.ops._layout import compute_dtype
from longstate.ops.selective_scan import Inputs


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    wide = compute_dtype(*(x for x in s if isinstance(x, Tensor)))
    u, dt = s.u.to(wide), s.dt.to(wide)
    D, z, dt_bias = (None if x is None else x.to(wide) for x in (s.D, s.z, s.dt_bias))
    mask, reset = s.mask, s.reset
    # so that values at padding reach no gradient
    u, dt = where_kept(mask, u), where_kept(mask, dt)
    z = None if z is None else where_kept(mask, z)
    if dt_bias is not None:
        dt = dt + dt_bias
    if s.dt_softplus:
        dt = F.softplus(dt)
    B, C = _per_channel(s.B, u), _per_channel(s.C, u)
    h = s.h0
    outputs = []
    for t in range(u.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None], torch.zeros_like(h), h)
        dt_t, u_t = dt[:, t, :, None], u[:, t, :, None]
        following = torch.exp(dt_t * s.A) * h + dt_t * u_t * B[:, t]
        y = (following * C[:, t]).sum(-1)
        if y.is_complex():
            y = 2 * y.real
        if D is not None:
            y = y + D * u[:, t]
        if z is not None:
            y = y * F.silu(z[:, t])
        if mask is not None:
            here = mask[:, t, None]
            y = torch.where(here, y, torch.zeros_like(y))
            following = torch.where(here[..., None], following, h)
        h = following
        outputs.append(y)
    return torch.stack(outputs, dim=1).to(s.u.dtype), h


def _per_channel(x: Tensor, u: Tensor) -> Tensor:
    """B or C as (b, t, d or 1, n)."""
    if x.dim() == 2:
        return x.expand(*u.shape[:2], *x.shape)
    return x[:, :, None] if x.dim() == 3 else x.repeat_interleave(u.shape[2] // x.shape[2], dim=2)
