"""The equation as a loop: any dtype, any device, gradients by PyTorch."""

import torch
from torch import Tensor

from longstate.ops.diagonal_scan import Inputs


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    h = torch.zeros_like(s.x[:, 0]) if s.h0 is None else s.h0
    states = []
    for t in range(s.x.shape[1]):
        a = s.a if s.a.dim() == 1 else s.a[:, t]
        if s.reset is not None:
            h = torch.where(s.reset[:, t, None], torch.zeros_like(h), h)
        h = a * h + s.x[:, t]
        states.append(h)
    return torch.stack(states, dim=1), h
