"""The equation as a loop: any device, gradients by PyTorch."""

import torch
from torch import Tensor

from longstate.ops._drive import drive
from longstate.ops.oscillator_scan import Inputs
from longstate.ops.oscillator_scan.step import oscillator_step


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    x = s.u if s.B is None else drive(s.u, s.B)
    h = s.h0  # (b, 2, n)
    positions = []
    for t in range(x.shape[1]):
        if s.reset is not None:
            h = torch.where(s.reset[:, t, None, None], 0, h)
        M, F = oscillator_step(s.A, s.dt[:, t, None], "im" if s.implicit else "imex")
        h = (M.mT * h.mT[..., None]).sum(-2).mT + F.mT * x[:, t, None]
        positions.append(h[:, 1])
    return torch.stack(positions, dim=1), h
