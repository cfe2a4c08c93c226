"""Numba: one dot product after the other reads a matrix from end to end.

In a large layer the two large products are shared out among threads by their rows, and what lies
between them by sequences. A small one is a single call.
"""

from typing import Any

import numpy as np
from numba import njit
from torch import Tensor

from longstate.ops._rows import array
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops._vector_math import ROWS, exp, load, sigmoid, softplus, store
from longstate.ops.row_step import Weights

# Another thread has woken up, and handed back, when so many bytes of weights have been read.
_ALONE = 6_000_000
_SHARED = 10**9  # work that `parallel_for` never takes for small


@njit(**ROWS)
def _dot(row, x):
    total = x.dtype.type(0)
    for i in range(len(x)):
        total += load(row, i) * x[i]
    return total


@njit(**KERNEL)
def _products(start, stop, x, W, bias, y):
    for o in range(start, stop):
        for b in range(len(x)):
            total = _dot(W[o], x[b])
            if len(bias):
                total += load(bias, o)
            store(y[b], o, total)


@njit(**ROWS)
def _convolve(x, taps, weight, bias, u):
    """Puts x behind the taps of each channel (the oldest falls out) and sums them up."""
    k = taps.shape[1]
    for j in range(len(u)):
        for i in range(k - 1):
            taps[j, i] = taps[j, i + 1]
        store(taps[j], k - 1, x[j])
        total = u.dtype.type(0)
        for i in range(k):
            total += load(taps[j], i) * load(weight[j], i)
        u[j] = total
    for j in range(len(bias)):
        u[j] += load(bias, j)
    for j in range(len(u)):
        u[j] *= sigmoid(u[j])


@njit(**ROWS)
def _steps(low, weight, bias, u, dt, drive):
    for j in range(len(dt)):
        dt[j] = _dot(weight[j], low) + load(bias, j)
    for j in range(len(dt)):
        dt[j] = softplus(dt[j])
        drive[j] = dt[j] * u[j]


@njit(**ROWS)
def _advance(dt, drive, A_log, B, C, h):
    """One channel: its state moves on, and is read."""
    y = h.dtype.type(0)
    for i in range(len(h)):
        rate = exp(h.dtype.type(load(A_log, i)))
        h[i] = exp(-dt * rate) * h[i] + drive * B[i]
        y += h[i] * C[i]
    return y


@njit(**ROWS)
def _finish(y, u, D, z):
    for j in range(len(y)):
        y[j] = (y[j] + load(D, j) * u[j]) * z[j] * sigmoid(z[j])


@njit(**KERNEL)
def _between(
    start, stop, xz, taps, h, conv_weight, conv_bias, x_proj, dt_weight, dt_bias, A_log, D, y
):
    d, n = h.shape[1:]
    r = dt_weight.shape[1]
    # one by one: Numba takes rows that are unpacked from one array for strided
    u, dt, drive = np.empty(d, h.dtype), np.empty(d, h.dtype), np.empty(d, h.dtype)
    read = np.empty(r + 2 * n, h.dtype)
    low, B, C = read[:r], read[r : r + n], read[r + n :]
    for b in range(start, stop):
        _convolve(xz[b, :d], taps[b], conv_weight, conv_bias, u)
        for i in range(len(read)):
            read[i] = _dot(x_proj[i], u)
        _steps(low, dt_weight, dt_bias, u, dt, drive)
        for j in range(d):
            y[b, j] = _advance(dt[j], drive[j], A_log[j], B, C, h[b, j])
        _finish(y[b], u, D, xz[b, d:])


@njit(**KERNEL)
def _whole(
    start, stop, u, taps, h, in_proj, in_bias, conv_weight, conv_bias, x_proj, dt_weight, dt_bias,
    A_log, D, out_proj, out_bias, xz, y, out,
):  # fmt: skip
    for _ in range(start, stop):
        _products(0, len(in_proj), u, in_proj, in_bias, xz)
        _between(
            0, len(u), xz, taps, h, conv_weight, conv_bias, x_proj, dt_weight, dt_bias, A_log, D, y
        )
        _products(0, len(out_proj), y, out_proj, out_bias, out)


def forward(u: Tensor, taps: Tensor, h: Tensor, weights: Weights) -> Tensor:
    """y (b, i); `taps` and `h` are changed."""
    result, wide = u.new_empty(u.shape), array(u, h.dtype)
    none = wide[0, :0]
    w: Any = Weights(*[none if v is None else array(v) for v in weights])  # type: ignore[arg-type]
    state, past, out = array(h), array(taps), array(result)
    xz = np.empty((len(u), len(w.in_proj)), state.dtype)
    y = np.empty(state.shape[:2], state.dtype)
    if w.in_proj.nbytes + w.out_proj.nbytes < _ALONE:
        parallel_for(_whole, 1, 0, wide, past, state, *w, xz, y, out)
        return result
    parallel_for(_products, len(w.in_proj), _SHARED, wide, w.in_proj, w.in_bias, xz)
    parallel_for(
        _between, len(u), _SHARED, xz, past, state, w.conv_weight, w.conv_bias, w.x_proj,
        w.dt_weight, w.dt_bias, w.A_log, w.D, y,
    )  # fmt: skip
    parallel_for(_products, len(w.out_proj), _SHARED, y, w.out_proj, w.out_bias, out)
    return result
