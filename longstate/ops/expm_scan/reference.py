"""The exponential of every step, and a loop: any device, gradients by PyTorch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops.expm_scan import Inputs


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    k = s.M.shape[-1]
    # the exponential of ((M, 0), (v, 0)) is ((exp(M), 0), (v phi(M), 1))
    both = F.pad(torch.cat([s.M, s.v[..., None, :]], -2), (0, 1)).matrix_exp()
    moved, added = both[..., :k, :k], both[..., k, :k]
    h, states = s.h0, []
    for t in range(s.M.shape[1]):
        if s.reset is not None:  # NaN times 0 would be NaN
            h = torch.where(s.reset[:, t, None, None], s.start, h)
        # products and sums, because autocast narrows matrix products
        h = (h[..., None] * moved[:, t]).sum(-2) + added[:, t]
        states.append(h)
    return torch.stack(states, 1), h
