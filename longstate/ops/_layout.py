"""Memory layout: tensors as kernels want them, and the pages of large outputs.

A kernel that is bound by memory spends most of its time on page faults when its output was newly
allocated: 64 MiB are 16,384 pages of 4 KiB. Linux provides pages of 2 MiB on request.
"""

import ctypes
import sys
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

CHUNK = 32
"""Steps from one kept state to the next, where a scan keeps some of its states."""

_BITS = {torch.bfloat16: np.uint16, torch.float16: np.int16}
_LARGE = 4 * 2**20  # bytes; two large pages
_PAGE = 4096
_MADV_HUGEPAGE = 14


def dense(x: Tensor) -> Tensor:
    """`x` as plain contiguous numbers.

    A kernel does not see a lazy conjugation or negation. PyTorch resolves those of a custom op's
    inputs, but not those of tensors made inside, or when an implementation is called directly.
    """
    return x.resolve_conj().resolve_neg().contiguous()


def reals(x: Tensor) -> Tensor:
    """`x` dense; a complex tensor (...) as (..., 2) real, in the same memory where it can be."""
    x = dense(x)
    return torch.view_as_real(x) if x.is_complex() else x


class Rows(NamedTuple):
    """The memory of a tensor (b, t, d) as one flat array; in it, the steps from batch to batch and
    from time to time.
    """

    data: np.ndarray
    batch: int
    time: int


def rows(x: Tensor) -> Rows:
    """The memory of `x` (b, t, d). Copies only when channels are not next to each other, so that
    half of a projection can be read in place. bfloat16 comes as bits in uint16, float16 in int16.
    """
    x = x.detach()
    if (x.stride(2) != 1 and x.shape[2] > 1) or x.is_conj() or x.is_neg():
        x = dense(x)
    bits = x.view(torch.int16) if x.dtype in _BITS else x
    reach = sum((size - 1) * step for size, step in zip(x.shape, x.stride(), strict=True)) + 1
    array = bits.as_strided((max(reach, 0) if x.numel() else 0,), (1,)).numpy()
    return Rows(array.view(_BITS.get(x.dtype, array.dtype)), x.stride(0), x.stride(1))


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


@lru_cache(maxsize=1)
def _madvise() -> Any:
    if sys.platform != "linux":
        return None
    try:
        call = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return None
    call.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return call


def on_large_pages(x: Tensor) -> Tensor:
    """`x`, newly allocated and not yet written, after a request for large pages. Only a hint."""
    size = x.numel() * x.element_size()
    madvise = _madvise()
    if madvise is not None and size >= _LARGE:
        first = -(-x.data_ptr() // _PAGE) * _PAGE
        madvise(first, (x.data_ptr() + size - first) // _PAGE * _PAGE, _MADV_HUGEPAGE)
    return x
