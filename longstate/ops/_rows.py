"""Hand tensors to kernels as flat arrays, so that rows of channels are contiguous and typed."""

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import dense

_BITS = {torch.bfloat16: np.uint16, torch.float16: np.int16}


def rows(x: Tensor) -> tuple[np.ndarray, int, int]:
    """The memory of `x` (b, t, d) as one flat array, and the steps from batch to batch and from
    time to time in it. Copies only when channels are not next to each other, so that half of a
    projection can be read in place. bfloat16 comes as bits in uint16, float16 in int16.
    """
    x = x.detach()
    if (x.stride(2) != 1 and x.shape[2] > 1) or x.is_conj() or x.is_neg():
        x = x.contiguous()
    bits = x.view(torch.int16) if x.dtype in _BITS else x
    reach = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True)) + 1
    array = bits.as_strided((max(reach, 0) if x.numel() else 0,), (1,)).numpy()
    return array.view(_BITS.get(x.dtype, array.dtype)), x.stride(0), x.stride(1)


def array(x: Tensor, dtype: torch.dtype | None = None) -> np.ndarray:
    """The real numbers of `x`, converted to `dtype` if one is given, without gaps between them.
    bfloat16 comes as bits in uint16, float16 in int16.
    """
    if x.requires_grad:
        x = x.detach()
    if dtype is not None and x.dtype != dtype:
        x = x.to(dtype)
    if not x.is_contiguous() or x.is_neg():
        x = dense(x)
    if x.dtype in _BITS:
        return x.view(torch.int16).numpy().view(_BITS[x.dtype])
    return x.numpy()


def compute_dtype(*tensors: Tensor | None) -> torch.dtype:
    """The type to compute in: float64 if anything is, else float32."""
    for x in tensors:
        if x is not None and x.dtype == torch.float64:
            return torch.float64
    return torch.float32
