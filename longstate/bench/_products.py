"""Count the operations of the matrix products of a call, by type.

Products are counted as PyTorch dispatches them, which includes `matmul`, `einsum`, `Linear` and
their gradients. The ops of this package are not dispatched; for those with products inside, the
count follows from their equations,

    chunk_scan        C B^T and M x in every chunk of k samples; into the state, and out of it:
                      2 b t (g k n + h k p + 2 h p n)
    zoh_scan,         the drive B u, complex B: 2 b t d 2n; real B: 2 b t d n
    oscillator_scan

and twice that for the backward pass. Recomputation in a backward pass is not counted.

An addition is one operation and a multiplication is one; complex ones are counted in real numbers.
"""

from collections import Counter
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Count = tuple[int, torch.dtype]


def _product(a: Tensor, b: Tensor) -> Count:
    """(..., m, k) times (..., k, n)."""
    operations = 2 * a.numel() * b.shape[-1]
    return (4 * operations if a.is_complex() else operations), a.dtype.to_real()


def _chunk_scan(x: Tensor, B: Tensor, h0: Tensor, k: int) -> Count:
    b, t, h, p = x.shape
    g, n = B.shape[2:]
    return 2 * b * t * (g * k * n + h * k * p + 2 * h * p * n), h0.dtype


def _drive(u: Tensor, B: Tensor | None) -> Count:
    if B is None:
        return 0, u.dtype
    columns = B.shape[0] * (2 if B.is_complex() else 1)
    return 2 * u.numel() * columns, B.dtype.to_real()


def _twice(count: Count) -> Count:
    return 2 * count[0], count[1]


_COUNTS: dict[str, Callable[..., Count]] = {
    "aten::mm": _product,
    "aten::bmm": _product,
    "aten::addmm": lambda _, a, b: _product(a, b),
    "aten::baddbmm": lambda _, a, b: _product(a, b),
    "longstate::chunk_scan": lambda x, la, w, own, B, C, D, h0, k, *_: _chunk_scan(x, B, h0, k),
    "longstate::chunk_scan_backward": lambda x, la, w, own, B, C, D, h0, k, *_: _twice(
        _chunk_scan(x, B, h0, k)
    ),
    "longstate::zoh_scan": lambda u, A, dt, h0, B, *_: _drive(u, B),
    "longstate::zoh_scan_backward": lambda u, A, dt, h0, B, *_: _twice(_drive(u, B)),
    "longstate::oscillator_scan": lambda u, A, dt, h0, B, *_: _drive(u, B),
    "longstate::oscillator_scan_backward": lambda u, A, dt, h0, B, *_: _twice(_drive(u, B)),
}


class ProductCounter(TorchDispatchMode):
    """While active, adds up the operations of matrix products in `operations`, by real type."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[torch.dtype] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        count = _COUNTS.get(
            func.name().split(".")[0].rstrip("_")
        )  # includes in-place and out= variants
        if count is not None:
            operations, dtype = count(*args)
            self.operations[dtype] += operations
        return func(*args, **(kwargs or {}))
