"""The equation as a loop: any dtype, any device, gradients by PyTorch."""

import torch
from torch import Tensor


def forward(a: Tensor, x: Tensor, h0: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    h = torch.zeros_like(x[:, 0]) if h0 is None else h0
    states = []
    for t in range(x.shape[1]):
        a_t = a if a.dim() == 1 else a[:, t]
        if reset is not None:
            h = torch.where(reset[:, t, None], torch.zeros_like(h), h)
        h = a_t * h + x[:, t]
        states.append(h)
    return torch.stack(states, dim=1), h
