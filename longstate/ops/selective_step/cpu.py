"""Numba: the kernels of the parts, called one after the other without going through Python."""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from longstate.ops._rows import array
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops._vector_math import ROWS, read_out
from longstate.ops.matvec import cpu as matvec
from longstate.ops.selective_scan import cpu_step as scan
from longstate.ops.short_conv import cpu_step as conv

_product, _convolve = matvec._forward, conv._step
_begin, _advance = scan._begin, scan._advance


@njit(**ROWS)
def _normed(u, weight, eps, v):
    total = v.dtype.type(0)
    for j in range(len(u)):
        total += u[j] * u[j]
    scale = v.dtype.type(1 / np.sqrt(total / len(u) + eps))
    for j in range(len(u)):
        v[j] = u[j] * scale * weight[j]


@njit(**ROWS)
def _add(x, y):
    for j in range(len(x)):
        y[j] += x[j]


@njit(**KERNEL)
def _apply(projection, x, y):
    panels, scale, bias = projection
    _product(0, len(panels), x, panels, scale, bias, y)


@njit(**KERNEL)
def _step(
    start, stop, u, taps, h, eps, into, steering, step, out, conv_weight, conv_bias, A, D,
    norm, last_taps, last, y,
):  # fmt: skip
    (b, d, n), rank = h.shape, step[0].shape[1]
    for _ in range(start, stop):
        xz, steer = np.empty((b, 2 * d), h.dtype), np.empty((b, rank + 2 * n), h.dtype)
        convolved, sums = np.empty((b, 1, d), h.dtype), np.empty((b, d), h.dtype)
        dt, du, gated = np.empty((b, d), h.dtype), np.empty((b, d), h.dtype), np.empty_like(sums)
        v = u
        if len(norm):
            v = np.empty_like(u)
            for r in range(b):
                _normed(u[r], norm, eps, v[r])
        _apply(into, v, xz)
        given = xz[:, :d].copy().reshape((b, 1, d))
        _convolve(0, b, given, conv_weight, conv_bias, True, taps, last_taps, convolved, sums)
        x = convolved.reshape((b, d))
        _apply(steering, x, steer)
        _apply(step, steer[:, :rank].copy(), dt)
        for r in range(b):
            _begin(x[r], dt[r], conv_bias[:0], True, sums[r], du[r])
        for r in range(b):
            write, read = steer[r, rank : rank + n], steer[r, rank + n :]
            for c in range(d):
                gated[r, c] = _advance(sums[r, c], du[r, c], A[c], write, read, h[r, c], last[r, c])
            read_out(gated[r], x[r], D, xz[r, d:], du[r])
        _apply(out, du, y)
        if len(norm):
            for r in range(b):
                _add(u[r], y[r])


def bind(weights: list, wide: torch.dtype) -> tuple:
    """The weights as `_step` takes them."""
    nothing = array(weights[15], wide)[:0]

    def numbers(w: Tensor | None) -> np.ndarray:
        return nothing if w is None else array(w, wide)

    projections = [
        (array(weights[k]), numbers(weights[k + 1]), numbers(weights[k + 2]))
        for k in range(0, 12, 3)
    ]
    conv_weight, conv_bias, A_log, D, norm = (numbers(w) for w in weights[12:])
    return *projections, conv_weight.reshape(len(D), -1), conv_bias, -np.exp(A_log), D, norm


def forward(
    u: Tensor, taps: Tensor, h: Tensor, eps: float, bound: tuple
) -> tuple[Tensor, Tensor, Tensor]:
    wide = h.dtype
    given = (array(u, wide), array(taps, wide), array(h))
    # NumPy's empty arrays come faster than PyTorch's
    y, last_taps, last = np.empty_like(given[0]), np.empty_like(given[1]), np.empty_like(given[2])
    parallel_for(_step, 1, 0, *given, eps, *bound, last_taps, last, y)
    return torch.from_numpy(y), torch.from_numpy(last_taps), torch.from_numpy(last)
