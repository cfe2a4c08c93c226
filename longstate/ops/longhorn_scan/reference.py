"""The equations as a loop: any dtype, any device, gradients by PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._arguments import where_kept
from longstate.ops._layout import compute_dtype
from longstate.ops.longhorn_scan import Inputs


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    wide = compute_dtype(*(x for x in s if isinstance(x, Tensor)))
    x, beta, k, q = s.x.to(wide), s.beta.to(wide), s.k, s.q
    D, z, beta_bias = (None if p is None else p.to(wide) for p in (s.D, s.z, s.beta_bias))
    mask, reset = s.mask, s.reset
    # so that values at padding reach no gradient
    x, beta = where_kept(mask, x), where_kept(mask, beta)
    z = None if z is None else where_kept(mask, z)
    if beta_bias is not None:
        beta = beta + beta_bias
    if s.beta_sigmoid:
        beta = torch.sigmoid(beta)
    rate = beta / (1 + beta * s.size[..., None])
    h = s.h0
    outputs = []
    for t in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None], torch.zeros_like(h), h)
        k_t, q_t = k[:, t, None], q[:, t, None]
        rate_t, x_t = rate[:, t, :, None], x[:, t, :, None]
        if s.exact:
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
    return torch.stack(outputs, dim=1).to(s.x.dtype), h
