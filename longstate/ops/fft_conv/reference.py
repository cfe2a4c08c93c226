"""The two sums as they are written, one lag at a time; any device, gradients by PyTorch."""

import torch
from torch import Tensor


def fft_conv(u: Tensor, k: Tensor, *, k_reverse: Tensor | None = None) -> Tensor:
    t = u.shape[1]
    y = torch.zeros_like(u)
    for lag in range(min(t, k.shape[1])):
        y = y + torch.nn.functional.pad(u[:, : t - lag] * k[:, lag], (0, 0, lag, 0))
    if k_reverse is not None:
        for lag in range(1, min(t - 1, k_reverse.shape[1]) + 1):
            y = y + torch.nn.functional.pad(u[:, lag:] * k_reverse[:, lag - 1], (0, 0, 0, lag))
    return y
