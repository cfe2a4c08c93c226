"""The equation as a loop: any device, gradients by PyTorch."""

import math

import torch
from torch import Tensor


def phi1(z: Tensor) -> Tensor:
    """(exp(z) - 1) / z and its derivative, without cancellation near 0."""
    small = z.abs() < 1
    near, far = torch.where(small, z, 0), torch.where(small, 1, z)
    series = torch.zeros_like(z)
    for k in range(19, -1, -1):
        series = series * near + 1 / math.factorial(k + 1)
    return torch.where(small, series, (torch.exp(far) - 1) / far)


def forward(
    A: Tensor, dt: Tensor, x: Tensor, h0: Tensor | None, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    h = torch.zeros_like(x[:, 0]) if h0 is None else h0
    states = []
    for t in range(x.shape[1]):
        if reset is not None:
            h = torch.where(reset[:, t, None], torch.zeros_like(h), h)
        step = dt[:, t, None]
        z = A * step
        h = torch.exp(z) * h + step * phi1(z) * x[:, t]
        states.append(h)
    return torch.stack(states, dim=1), h
