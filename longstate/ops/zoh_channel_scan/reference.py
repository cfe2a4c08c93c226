"""The equation as a loop: any device, gradients by PyTorch."""

import torch
from torch import Tensor

from longstate.ops.zoh_channel_scan import Inputs
from longstate.ops.zoh_scan.reference import phi1


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    h, outputs = s.h0, []
    for t in range(s.u.shape[1]):
        if s.reset is not None:
            h = torch.where(s.reset[:, t, None, None], torch.zeros_like(h), h)
        step = s.dt[:, t, None, None]
        z = s.A * step
        h = torch.exp(z) * h + step * phi1(z) * (s.B * s.u[:, t, :, None])
        outputs.append(2 * (s.C * h).sum(-1).real)
    return torch.stack(outputs, dim=1), h
