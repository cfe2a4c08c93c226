"""Convert between time last, as in the packages, and time second, as in `longstate.ops`."""

import torch
from torch import Tensor

from longstate.ops._transforms import transformed


class _Swap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        out = torch.empty_like(x.mT, memory_format=torch.contiguous_format)
        for row, target in zip(x, out, strict=True):
            target.copy_(row.T)
        return out

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        return swapped(grad)


def swapped(x: Tensor) -> Tensor:
    """x (b, i, j) as a contiguous (b, j, i); without a copy if possible.

    On a CPU row by row: PyTorch transposes two axes ten times faster than it copies three.
    """
    plain = x.device.type != "cpu" or torch.compiler.is_compiling() or transformed((x,))
    if plain or x.mT.is_contiguous():
        return x.mT.contiguous()
    return _Swap.apply(x)


def time_second(x: Tensor) -> Tensor:
    """x (b, d, t) as (b, t, d), channels contiguous; without a copy if they are already."""
    return x.mT if x.stride(1) == 1 else swapped(x)


def time_last(y: Tensor, like: Tensor) -> Tensor:
    """y (b, t, d) as (b, d, t), with channels contiguous if they are in `like`."""
    return swapped(y.mT).mT if like.stride(1) == 1 else swapped(y)
