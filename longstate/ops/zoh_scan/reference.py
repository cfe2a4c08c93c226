"""The equation as a loop: any device, gradients by PyTorch."""

import math

import torch
from torch import Tensor

from longstate.ops._drive import drive
from longstate.ops.zoh_scan import Inputs


def phi1(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z and its derivative, without cancellation near 0."""
    small = z.abs() < 1
    near, far = torch.where(small, z, 0), torch.where(small, 1, z)
    series = torch.zeros_like(z)
    for k in range(19, -1, -1):
        series = series * near + 1 / math.factorial(k + 1)
    return torch.where(small, series, (torch.exp(far) - 1) / far)


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    x = s.u if s.B is None else drive(s.u, s.B)
    h = torch.zeros_like(x[:, 0]) if s.h0 is None else s.h0
    states = []
    for t in range(x.shape[1]):
        if s.reset is not None:
            h = torch.where(s.reset[:, t, None], torch.zeros_like(h), h)
        step = s.dt[:, t, None]
        z = s.A * step
        h = torch.exp(z) * h + step * phi1(z) * x[:, t]
        states.append(h)
    return torch.stack(states, dim=1), h
