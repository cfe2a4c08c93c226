"""Whether PyTorch is transforming a call: forward-mode derivatives and `torch.func`.

A kernel reads memory, which contains neither tangents nor the batch of `vmap`. Code that a
transform does not support, such as a branch on values, also asks here.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad


def in_transform() -> bool:
    """Whether `torch.func.grad`, `vmap`, `jvp` or another transform is running."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def transformed(values: tuple[Any, ...]) -> bool:
    """Whether a kernel would lose a tangent or a transform of these tensors."""
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    if forward_ad._current_level < 0:
        return False
    tensors = [x for x in values if isinstance(x, Tensor)]
    return any(forward_ad.unpack_dual(x).tangent is not None for x in tensors)


def can_look() -> bool:
    """Whether Python may look at values: not in a compiled graph, nor in a transform."""
    return not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()


def is_finite(x: Tensor) -> bool:
    """Whether all of `x` is finite, by its sum: fast, but False also if finite numbers overflow."""
    x = x.detach()
    return math.isfinite((torch.view_as_real(x) if x.is_complex() else x).sum())


def batched(*tensors: Tensor | None) -> bool:
    """Whether `torch.func.vmap` runs over one of these tensors."""
    return in_transform() and any(x is not None and _batched(x) for x in tensors)


def _batched(x: Tensor) -> bool:
    inside = torch._C._functorch
    while inside.is_functorch_wrapped_tensor(x):
        if inside.is_batchedtensor(x):
            return True
        x = inside.get_unwrapped(x)
    return False
