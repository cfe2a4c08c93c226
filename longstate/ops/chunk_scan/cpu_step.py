"""Numba: one step, for decoding, which reads and writes each state once. No gradients, no masks."""

import numpy as np
from torch import Tensor

from longstate.ops._layout import array
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.math import exp
from longstate.ops._numba.rows import load, store


@inlined
def _product(B: np.ndarray, C: np.ndarray) -> float:
    total = B.dtype.type(0)
    for i in range(len(B)):
        total += B[i] * C[i]
    return total


@inlined
def _advance(
    a: float, drive: float, B: np.ndarray, C: np.ndarray, h: np.ndarray, last: np.ndarray
) -> float:
    """One row of a state: writes it after the step, and returns C h after the decay only."""
    y = h.dtype.type(0)
    for i in range(len(B)):
        decayed = a * h[i]
        last[i] = decayed + drive * B[i]
        y += decayed * C[i]
    return y


@kernel
def _step(
    start: int, stop: int, x: np.ndarray, log_a: np.ndarray, weight: np.ndarray, own: np.ndarray,
    B: np.ndarray, C: np.ndarray, D: np.ndarray, h: np.ndarray, last: np.ndarray, y: np.ndarray,
) -> None:  # fmt: skip
    heads, groups = x.shape[2], B.shape[2]
    for block in range(start, stop):
        b, head = block // heads, block % heads
        write, read = B[b, 0, head * groups // heads], C[b, 0, head * groups // heads]
        a = exp(log_a[b, 0, head])
        direct = own[b, 0, head] * _product(write, read) + D[head]
        for j in range(x.shape[3]):
            now = load(x[b, 0, head], j)
            seen = _advance(
                a, weight[b, 0, head] * now, write, read, h[b, head, j], last[b, head, j]
            )
            store(y[b, 0, head], j, seen + direct * now)


def forward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """y (b, 1, h, p) of the type of `x`, and the state (b, h, p, n) after it, of that of `h0`."""
    wide = h0.dtype
    y, last = x.new_empty(x.shape), h0.new_empty(h0.shape)
    parallel_for(
        _step, x.shape[0] * x.shape[2], h0.numel() // 4, array(x),
        *(array(v, wide) for v in (log_a, weight, own, B, C, D, h0)), array(last), array(y),
    )  # fmt: skip
    return y, last
