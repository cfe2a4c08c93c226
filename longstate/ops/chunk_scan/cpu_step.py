"""Numba: one step, for decoding, which reads and writes each state once. No gradients, no masks."""

from numba import njit
from torch import Tensor

from longstate.ops._rows import array
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops._vector_math import ROWS, exp, load, store


@njit(**ROWS)
def _product(B, C):
    total = B.dtype.type(0)
    for i in range(len(B)):
        total += B[i] * C[i]
    return total


@njit(**ROWS)
def _advance(a, drive, B, C, h, last):
    """One row of a state: what it is after the step, and what was read off it after its decay."""
    y = h.dtype.type(0)
    for i in range(len(B)):
        decayed = a * h[i]
        last[i] = decayed + drive * B[i]
        y += decayed * C[i]
    return y


@njit(**KERNEL)
def _step(start, stop, x, log_a, weight, own, B, C, D, h, last, y):
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
