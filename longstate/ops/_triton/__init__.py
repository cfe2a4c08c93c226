"""The base of the Triton kernels. Only `triton*.py` files import it, on first use.

`lanes.py` is the engine of scans over independent lanes, `scan.py` that of scans that are steered
by their input. Each has one kernel forward and one back, for every rule.

A kernel takes a few NamedTuples. A field is a tensor (inside the kernel its address), a size, an
option (`tl.constexpr`), or None. Options and None are known when a kernel is compiled, so that
`if x is not None` costs nothing when it runs.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense

Pointer = Any
"""A tensor, or None; inside a kernel its address."""


@triton.jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    e = tl.exp(-tl.abs(x))
    return tl.where(x < 0, e, 1.0) / (1.0 + e)


@triton.jit
def softplus(x: tl.tensor) -> tl.tensor:
    """log(1 + e^x), to full relative accuracy: log(1 + e) for small e by Kahan's correction."""
    e = tl.exp(-tl.abs(x))
    above = 1.0 + e
    exact = above == 1.0
    log = tl.where(exact, e, tl.log(above) * (e / tl.where(exact, 1.0, above - 1.0)))
    return tl.where(x > 0, x, tl.zeros_like(x)) + log


@triton.jit
def load(x: tl.tensor, at: tl.tensor, inside: tl.tensor, PARTS: tl.constexpr) -> tl.tuple:
    """Numbers of one part, or of two parts next to each other in memory; 0 where not inside."""
    re = tl.load(x + PARTS * at, mask=inside, other=0.0)
    if PARTS == 1:
        return (re,)
    else:
        return re, tl.load(x + PARTS * at + 1, mask=inside, other=0.0)


@triton.jit
def store(x: tl.tensor, at: tl.tensor, value: tl.tuple, inside: tl.tensor) -> None:
    for i in tl.static_range(len(value)):
        tl.store(x + len(value) * at + i, value[i], mask=inside)


@triton.jit
def zeros(like: tl.tensor, PARTS: tl.constexpr) -> tl.tuple:
    zero = tl.zeros_like(like)
    if PARTS == 1:
        return (zero,)
    else:
        return zero, zero


@triton.jit
def add(a: tl.tuple, b: tl.tuple) -> tl.tuple:
    if len(a) == 1:
        return (a[0] + b[0],)
    else:
        return a[0] + b[0], a[1] + b[1]


@triton.jit
def times(a: tl.tuple, b: tl.tuple) -> tl.tuple:
    if len(a) == 1:
        return (a[0] * b[0],)
    else:
        return a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]


@triton.jit
def times_conj(a: tl.tuple, b: tl.tuple) -> tl.tuple:
    """a conj(b)."""
    if len(a) == 1:
        return (a[0] * b[0],)
    else:
        return a[0] * b[0] + a[1] * b[1], a[1] * b[0] - a[0] * b[1]


@triton.jit
def zero_where(condition: tl.tensor, x: tl.tuple) -> tl.tuple:
    if len(x) == 1:
        return (tl.where(condition, 0.0, x[0]),)
    else:
        return tl.where(condition, 0.0, x[0]), tl.where(condition, 0.0, x[1])


def flags(x: Tensor | None) -> Tensor | None:
    """Bools as bytes."""
    return None if x is None else dense(x).view(torch.uint8)
