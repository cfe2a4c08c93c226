"""The equation as a loop: any dtype, any device, complex A; gradients by PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F


def forward(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor,
    dt_bias: Tensor | None,
    dt_softplus: bool,
    mask: Tensor | None,
    reset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    if mask is not None:  # so that what padding holds reaches no gradient
        u, dt, z = (hide(x, mask) for x in (u, dt, z))
    if dt_bias is not None:
        dt = dt + dt_bias
    if dt_softplus:
        dt = F.softplus(dt)
    B, C = per_channel(B, u), per_channel(C, u)
    h = h0
    outputs = []
    for t in range(u.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None], torch.zeros_like(h), h)
        dt_t, u_t = dt[:, t, :, None], u[:, t, :, None]
        following = torch.exp(dt_t * A) * h + dt_t * u_t * B[:, t]
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
    return torch.stack(outputs, dim=1), h


def hide(x, mask):
    return None if x is None else torch.where(mask[..., None], x, torch.zeros_like(x))


def per_channel(x: Tensor, u: Tensor) -> Tensor:
    """B or C as (b, t, d or 1, n), whatever its form."""
    if x.dim() == 2:
        return x.expand(u.shape[0], u.shape[1], *x.shape)
    if x.dim() == 3:
        return x[:, :, None]
    return x.repeat_interleave(u.shape[2] // x.shape[2], dim=2)
