"""The equation as a loop: any device, gradients by PyTorch."""

import torch
from torch import Tensor


def forward(
    A: Tensor, dt: Tensor, x: Tensor, h0: Tensor, reset: Tensor | None, rule: str, limit: float
) -> tuple[Tensor, Tensor]:
    z, y = h0.unbind(1)
    positions = []
    for t in range(x.shape[1]):
        m = dt[:, t, None]
        if reset is not None:
            z, y = (torch.where(reset[:, t, None], 0, s) for s in (z, y))
        if rule == "im":
            z = (z - m * A * y + m * x[:, t]) / (1 + m * m * A)
        else:
            too_fast = m * m * A > limit
            k = torch.where(too_fast, limit / torch.where(too_fast, m, 1), m * A)
            z = z - k * y + m * x[:, t]
        y = y + m * z
        positions.append(y)
    return torch.stack(positions, dim=1), torch.stack((z, y), dim=1)
