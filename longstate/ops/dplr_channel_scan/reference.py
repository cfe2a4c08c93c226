"""The equation as a loop: any device, gradients by PyTorch."""

import torch
from torch import Tensor

from longstate.ops.dplr_channel_scan import Inputs


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    h, outputs = s.h0, []
    for t in range(s.u.shape[1]):
        w = 2 * (s.Q.conj() * h[..., None]).sum(-2).real  # (b, d, r)
        moved = s.A * h - (s.P * w[..., None, :]).sum(-1) + s.B * s.u[:, t, :, None]
        outputs.append(2 * (s.C * moved).sum(-1).real)
        h = torch.where((t < s.lengths)[:, None, None], moved, h)
    return torch.stack(outputs, dim=1), h
