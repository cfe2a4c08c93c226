"""The equation as a loop: any dtype, any device, gradients by PyTorch."""

from collections.abc import Callable

import torch
from torch import Tensor


def diagonal(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    return _loop(u, lambda h: A * h, B, C, h0, lengths)


def dense(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    return _loop(u, lambda h: (A @ h[..., None])[..., 0], B, C, h0, lengths)


def _loop(
    u: Tensor, advance: Callable[[Tensor], Tensor], B: Tensor, C: Tensor, h: Tensor,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    outputs = []
    for t in range(u.shape[1]):
        following = advance(h) + B * u[:, t, :, None]
        y = (C * following).sum(-1)
        outputs.append(2 * y.real if y.is_complex() else y)
        if lengths is not None:
            following = torch.where((t < lengths)[:, None, None], following, h)
        h = following
    return torch.stack(outputs, dim=1), h
