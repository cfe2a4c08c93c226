"""Numba. Lanes run along the state, time is the outer loop, factors live in scratch rows.

For each step and block of states one loop fills contiguous rows with exp(A dt) and its companions,
at full vector width, and a second one advances the complex pairs. The factors of one row stay in
the first-level cache and are never written to memory. States overwrite the drive in place, and its
gradient overwrites the recomputed drive, so that neither pass has a second array of their size.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from longstate.ops._layout import dense, flags, reals
from longstate.ops._numba_math import EXACT, exp_pair, slope_series, turn
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops.zoh_scan.poles import pole_rows

_LANES = 128


@njit(**EXACT)
def _factors(A, dt, f, size):
    # f: rows of a = exp(A dt) and b = (a - 1) / A, real and imaginary parts apart
    for j in range(size):
        e, em1 = exp_pair(A[j], dt)
        s, c, cm1 = turn(A[_LANES + j], dt)
        over_re, over_im = em1 * c + cm1, e * s
        inv_re, inv_im = A[2 * _LANES + j], A[3 * _LANES + j]
        f[j] = e * c
        f[_LANES + j] = e * s
        f[2 * _LANES + j] = over_re * inv_re - over_im * inv_im + A[4 * _LANES + j] * dt
        f[3 * _LANES + j] = over_re * inv_im + over_im * inv_re


@njit(**EXACT)
def _slopes(A, dt, f, size):
    # two more rows: d = db/dA = dt^2 phi1'(A dt), as a series where the closed form would cancel
    for j in range(size):
        x, y = A[j] * dt, A[_LANES + j] * dt
        inv_re, inv_im = A[2 * _LANES + j], A[3 * _LANES + j]
        near = x * x + y * y < 0.25
        near_re, near_im = slope_series(x, y)
        far_re, far_im = dt * f[j] - f[2 * _LANES + j], dt * f[_LANES + j] - f[3 * _LANES + j]
        f[4 * _LANES + j] = dt * dt * near_re if near else far_re * inv_re - far_im * inv_im
        f[5 * _LANES + j] = dt * dt * near_im if near else far_re * inv_im + far_im * inv_re


@njit(**KERNEL)
def _advance(f, previous, x, size):
    for j in range(size):
        h_re, h_im = previous[2 * j], previous[2 * j + 1]
        x_re, x_im = x[2 * j], x[2 * j + 1]
        a_re, a_im, b_re, b_im = f[j], f[_LANES + j], f[2 * _LANES + j], f[3 * _LANES + j]
        x[2 * j] = a_re * h_re - a_im * h_im + (b_re * x_re - b_im * x_im)
        x[2 * j + 1] = a_re * h_im + a_im * h_re + (b_re * x_im + b_im * x_re)


@njit(**KERNEL)
def _start(f, x, size):
    for j in range(size):
        x_re, x_im = x[2 * j], x[2 * j + 1]
        b_re, b_im = f[2 * _LANES + j], f[3 * _LANES + j]
        x[2 * j] = b_re * x_re - b_im * x_im
        x[2 * j + 1] = b_re * x_im + b_im * x_re


@njit(**KERNEL)
def _forward(start, stop, A, dt, h0, reset, has_reset, x):
    steps, n, per_row = x.shape[1], x.shape[2] // 2, A.shape[0]
    f = np.empty(4 * _LANES, A.dtype)
    for block in range(start, stop):
        b, part = block // per_row, block % per_row
        lo, hi = part * _LANES, min((part + 1) * _LANES, n)
        for t in range(steps):
            _factors(A[part], dt[b, t], f, hi - lo)
            row = x[b, t, 2 * lo : 2 * hi]
            if has_reset and reset[b, t]:
                _start(f, row, hi - lo)
            elif t == 0:
                _advance(f, h0[b, 2 * lo : 2 * hi], row, hi - lo)
            else:
                _advance(f, x[b, t - 1, 2 * lo : 2 * hi], row, hi - lo)


@njit(**KERNEL)
def _retreat(A, dt, f, previous, grad_h, carry, x, grad_A, size):
    # carry: what the later steps add to the gradient of this state
    grad_dt = x[0] - x[0]
    for j in range(size):
        g_re, g_im = grad_h[2 * j] + carry[2 * j], grad_h[2 * j + 1] + carry[2 * j + 1]
        h_re, h_im = previous[2 * j], previous[2 * j + 1]
        x_re, x_im = x[2 * j], x[2 * j + 1]
        a_re, a_im, b_re, b_im = f[j], f[_LANES + j], f[2 * _LANES + j], f[3 * _LANES + j]
        d_re, d_im = f[4 * _LANES + j], f[5 * _LANES + j]
        x[2 * j] = b_re * g_re + b_im * g_im
        x[2 * j + 1] = b_re * g_im - b_im * g_re
        # conj(a) g is what reaches the state before, and a factor of the rest
        c_re = a_re * g_re + a_im * g_im
        c_im = a_re * g_im - a_im * g_re
        carry[2 * j] = c_re
        carry[2 * j + 1] = c_im
        # dh/ddt = a (A h_before + x)
        slope_re = A[j] * h_re - A[_LANES + j] * h_im + x_re
        slope_im = A[j] * h_im + A[_LANES + j] * h_re + x_im
        grad_dt += slope_re * c_re + slope_im * c_im
        # dh/dA = dt a h_before + d x
        dx_re = d_re * x_re - d_im * x_im
        dx_im = d_re * x_im + d_im * x_re
        grad_A[2 * j] += dt * (h_re * c_re + h_im * c_im) + (dx_re * g_re + dx_im * g_im)
        grad_A[2 * j + 1] += dt * (h_re * c_im - h_im * c_re) + (dx_re * g_im - dx_im * g_re)
    return grad_dt


@njit(**KERNEL)
def _backward(start, stop, A, dt, x, h0, reset, has_reset, h, grad_h, carry, grad_A, grad_dt):
    steps, n, per_row = x.shape[1], x.shape[2] // 2, A.shape[0]
    f = np.empty(6 * _LANES, A.dtype)
    nothing = np.zeros(2 * _LANES, A.dtype)
    for block in range(start, stop):
        b, part = block // per_row, block % per_row
        lo, hi = part * _LANES, min((part + 1) * _LANES, n)
        for t in range(steps - 1, -1, -1):
            _factors(A[part], dt[b, t], f, hi - lo)
            _slopes(A[part], dt[b, t], f, hi - lo)
            fresh = has_reset and reset[b, t]
            if fresh:
                previous = nothing
            elif t == 0:
                previous = h0[b, 2 * lo : 2 * hi]
            else:
                previous = h[b, t - 1, 2 * lo : 2 * hi]
            grad_dt[b, t, part] = _retreat(
                A[part], dt[b, t], f, previous, grad_h[b, t, 2 * lo : 2 * hi],
                carry[b, 2 * lo : 2 * hi], x[b, t, 2 * lo : 2 * hi], grad_A[b, 2 * lo : 2 * hi],
                hi - lo,
            )  # fmt: skip
            if fresh:
                carry[b, 2 * lo : 2 * hi] = 0


def _constants(A: Tensor) -> np.ndarray:
    """The rows of A, cut into blocks of lanes: (blocks, 5 * lanes)."""
    blocks = -(-A.shape[0] // _LANES)
    padded = torch.nn.functional.pad(pole_rows(A), (0, blocks * _LANES - A.shape[0]))
    return padded.unflatten(1, (blocks, _LANES)).transpose(0, 1).flatten(1).numpy()


def _pairs(x: Tensor) -> np.ndarray:
    return reals(x).flatten(-2).numpy()


def _blocks(x: Tensor) -> tuple[int, int]:
    """Number of blocks, and a rough count of the work."""
    return x.shape[0] * -(-x.shape[2] // _LANES), 4 * x.numel()


def forward_(A: Tensor, dt: Tensor, x: Tensor, h0: Tensor | None, reset: Tensor | None) -> None:
    """Overwrites the drive `x` with the states."""
    h0 = x.new_zeros(x.shape[0], x.shape[2]) if h0 is None else h0
    parallel_for(
        _forward, *_blocks(x),
        _constants(A), dt.numpy(), _pairs(h0), flags(reset, x).numpy(), reset is not None,
        _pairs(x),
    )  # fmt: skip


def backward_(
    A: Tensor,
    dt: Tensor,
    x: Tensor,
    h0: Tensor | None,
    reset: Tensor | None,
    h: Tensor,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `A`, `dt` and `h0`; overwrites the drive `x` with its own gradient."""
    row = x.shape[0], x.shape[2]
    start = x.new_zeros(row) if h0 is None else h0
    grad_h = torch.zeros_like(h) if grad_h is None else grad_h
    carry = x.new_zeros(row) if grad_last is None else dense(grad_last).clone()
    # One row for each sequence and one column for each block, added up below in a fixed order.
    grad_A = x.new_zeros(row)
    grad_dt = dt.new_empty(*dt.shape, -(-x.shape[2] // _LANES))
    parallel_for(
        _backward, *_blocks(x),
        _constants(A), dt.numpy(), _pairs(x), _pairs(start), flags(reset, x).numpy(),
        reset is not None, _pairs(h), _pairs(grad_h), _pairs(carry), _pairs(grad_A),
        grad_dt.numpy(),
    )  # fmt: skip
    return grad_A.sum(0), grad_dt.sum(-1), carry
