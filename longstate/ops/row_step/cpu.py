"""Numba: all of a sequence's step on one thread, and sequences on several."""

import numpy as np
from numba import njit
from torch import Tensor

from longstate.ops._rows import array
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops._vector_math import ROWS, dot, exp, load, sigmoid, softplus, store


@njit(**ROWS)
def _convolve(x, taps, weight, bias, u):
    """Puts x behind the taps of each channel (the oldest falls out) and sums them up."""
    k = taps.shape[1]
    for j in range(len(u)):
        for i in range(k - 1):
            taps[j, i] = taps[j, i + 1]
        taps[j, k - 1] = x[j]
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
        dt[j] = dot(weight[j], low) + load(bias, j)
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
def _finish(y, u, D, z, out):
    for j in range(len(y)):
        gate = y.dtype.type(load(z, j))
        store(out, j, (y[j] + load(D, j) * u[j]) * gate * sigmoid(gate))


@njit(**KERNEL)
def _step(
    start, stop, x, z, taps, h, conv_weight, conv_bias, steering, dt_weight, dt_bias, A_log, D, out
):  # fmt: skip
    d, n = h.shape[1:]
    r = dt_weight.shape[1]
    # one by one: Numba takes rows that are unpacked from one array for strided
    u, dt, drive = np.empty(d, h.dtype), np.empty(d, h.dtype), np.empty(d, h.dtype)
    read = np.empty(r + 2 * n, h.dtype)
    low, B, C = read[:r], read[r : r + n], read[r + n :]
    for b in range(start, stop):
        _convolve(x[b], taps[b], conv_weight, conv_bias, u)
        for i in range(len(read)):
            read[i] = dot(steering[i], u)
        _steps(low, dt_weight, dt_bias, u, dt, drive)
        for j in range(d):
            drive[j] = _advance(dt[j], drive[j], A_log[j], B, C, h[b, j])
        _finish(drive, u, D, z[b], out[b])


def forward(
    x: Tensor,
    z: Tensor,
    taps: Tensor,
    h: Tensor,
    conv_bias: Tensor | None,
    conv_weight: Tensor,
    steering: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    A_log: Tensor,
    D: Tensor,
) -> Tensor:
    """y (b, d); `taps` and `h` are changed."""
    b, d = x.shape
    y = x.new_empty(b, d)
    bias = array(dt_bias)
    parallel_for(
        _step, b, b * (d * (len(steering) + dt_weight.shape[1]) // 4 + h[0].numel()),
        array(x), array(z), array(taps), array(h),
        array(conv_weight), bias[:0] if conv_bias is None else array(conv_bias),
        array(steering), array(dt_weight), bias, array(A_log), array(D), array(y),
    )  # fmt: skip
    return y
