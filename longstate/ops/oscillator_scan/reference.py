"""The equation as a loop: any device, gradients by PyTorch."""

import torch
from torch import Tensor

from longstate.ops.oscillator_scan.step import oscillator_step


def forward(
    A: Tensor, dt: Tensor, x: Tensor, h0: Tensor, reset: Tensor | None, rule: str
) -> tuple[Tensor, Tensor]:
    h = h0  # (b, 2, n)
    positions = []
    for t in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None, None], 0, h)
        M, F = oscillator_step(A, dt[:, t, None], rule)
        h = (M.mT * h.mT[..., None]).sum(-2).mT + F.mT * x[:, t, None]
        positions.append(h[:, 1])
    return torch.stack(positions, dim=1), h
