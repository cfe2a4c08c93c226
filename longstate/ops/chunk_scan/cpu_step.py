"""Numba: a few steps, which read and write each state once. No gradients, no masks."""

import numpy as np
from torch import Tensor

from longstate.ops._layout import array
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.math import exp
from longstate.ops._numba.rows import copy_row, load, store


@inlined
def _product(B: np.ndarray, C: np.ndarray) -> float:
    total = B.dtype.type(0)
    for i in range(len(B)):
        total += B[i] * C[i]
    return total


@inlined
def _advance(a: float, drive: float, B: np.ndarray, C: np.ndarray, h: np.ndarray) -> float:
    """One row of a state, in place; returns C h after the decay only."""
    y = h.dtype.type(0)
    for i in range(len(B)):
        decayed = a * h[i]
        h[i] = decayed + drive * B[i]
        y += decayed * C[i]
    return y


@kernel
def _step(
    start: int, stop: int, x: np.ndarray, log_a: np.ndarray, weight: np.ndarray, own: np.ndarray,
    B: np.ndarray, C: np.ndarray, D: np.ndarray, h: np.ndarray, last: np.ndarray, y: np.ndarray,
) -> None:  # fmt: skip
    steps, heads, groups = x.shape[1], x.shape[2], B.shape[2]
    a, direct = np.empty(steps, h.dtype), np.empty(steps, h.dtype)
    for block in range(start, stop):
        b, head = block // heads, block % heads
        group = head * groups // heads
        for t in range(steps):
            a[t] = exp(log_a[b, t, head])
            direct[t] = own[b, t, head] * _product(B[b, t, group], C[b, t, group]) + D[head]
        for j in range(x.shape[3]):  # a row of the state stays in the cache through all steps
            row = last[b, head, j]
            copy_row(h[b, head, j], row)
            for t in range(steps):
                now = load(x[b, t, head], j)
                drive = weight[b, t, head] * now
                seen = _advance(a[t], drive, B[b, t, group], C[b, t, group], row)
                store(y[b, t, head], j, seen + direct[t] * now)


def forward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (b, t, h, p) of the type of `x`, and the state (b, h, p, n) after it, of that of `h0`."""
    wide = h0.dtype
    y, last = x.new_empty(x.shape), h0.new_empty(h0.shape)
    parallel_for(
        _step, x.shape[0] * x.shape[2], h0.numel() * x.shape[1] // 4, array(x),
        *(array(v, wide) for v in (log_a, weight, own, B, C, D, h0)), array(last), array(y),
    )  # fmt: skip
    return y, last
