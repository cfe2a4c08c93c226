"""Numba. Lanes run along the state; time is the outer loop; the step's factors live in scratch rows.

For each step and block of states one loop fills contiguous rows with exp(A dt) and its companions,
at full vector width, and a second one advances the complex pairs. The factors of one row stay in
the first-level cache and are never written to memory. States overwrite the drive in place, and its
gradient overwrites the recomputed drive, so that neither pass has a second array of their size.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from longstate.ops._layout import dense
from longstate.ops._numba_math import EXACT, exp_pair, slope_series, turn
from longstate.ops._threads import KERNEL, parallel_for

_LANES = 128


@njit(**EXACT)
def _factors(A_re, A_im, inv_re, inv_im, at_zero, dt, a_re, a_im, b_re, b_im):
    # a = exp(A dt), b = (a - 1) / A
    for j in range(a_re.shape[0]):
        e, em1 = exp_pair(A_re[j], dt)
        s, c, cm1 = turn(A_im[j], dt)
        a_re[j] = e * c
        a_im[j] = e * s
        over_re = em1 * c + cm1
        over_im = e * s
        b_re[j] = over_re * inv_re[j] - over_im * inv_im[j] + at_zero[j] * dt
        b_im[j] = over_re * inv_im[j] + over_im * inv_re[j]


@njit(**EXACT)
def _slopes(A_re, A_im, inv_re, inv_im, dt, a_re, a_im, b_re, b_im, d_re, d_im):
    # d = db/dA = dt^2 phi1'(A dt): in closed form, or as a series where that would cancel
    for j in range(a_re.shape[0]):
        x, y = A_re[j] * dt, A_im[j] * dt
        near = x * x + y * y < 0.25
        near_re, near_im = slope_series(x, y)
        far_re = dt * a_re[j] - b_re[j]
        far_im = dt * a_im[j] - b_im[j]
        d_re[j] = dt * dt * near_re if near else far_re * inv_re[j] - far_im * inv_im[j]
        d_im[j] = dt * dt * near_im if near else far_re * inv_im[j] + far_im * inv_re[j]


@njit(**KERNEL)
def _advance(a_re, a_im, b_re, b_im, previous, x):
    for j in range(a_re.shape[0]):
        h_re, h_im = previous[2 * j], previous[2 * j + 1]
        x_re, x_im = x[2 * j], x[2 * j + 1]
        x[2 * j] = a_re[j] * h_re - a_im[j] * h_im + (b_re[j] * x_re - b_im[j] * x_im)
        x[2 * j + 1] = a_re[j] * h_im + a_im[j] * h_re + (b_re[j] * x_im + b_im[j] * x_re)


@njit(**KERNEL)
def _start(b_re, b_im, x):
    for j in range(b_re.shape[0]):
        x_re, x_im = x[2 * j], x[2 * j + 1]
        x[2 * j] = b_re[j] * x_re - b_im[j] * x_im
        x[2 * j + 1] = b_re[j] * x_im + b_im[j] * x_re


@njit(**KERNEL)
def _forward(start, stop, A, dt, h0, reset, has_reset, x, lanes):
    steps, n = x.shape[1], A.shape[1]
    per_row = (n + lanes - 1) // lanes
    scratch = np.empty((4, lanes), A.dtype)
    for block in range(start, stop):
        b, lo = block // per_row, (block % per_row) * lanes
        hi = min(lo + lanes, n)
        a_re, a_im = scratch[0, : hi - lo], scratch[1, : hi - lo]
        b_re, b_im = scratch[2, : hi - lo], scratch[3, : hi - lo]
        for t in range(steps):
            _factors(
                A[0, lo:hi], A[1, lo:hi], A[2, lo:hi], A[3, lo:hi], A[4, lo:hi], dt[b, t],
                a_re, a_im, b_re, b_im,
            )  # fmt: skip
            row = x[b, t, 2 * lo : 2 * hi]
            if has_reset and reset[b, t]:
                _start(b_re, b_im, row)
            elif t == 0:
                _advance(a_re, a_im, b_re, b_im, h0[b, 2 * lo : 2 * hi], row)
            else:
                _advance(a_re, a_im, b_re, b_im, x[b, t - 1, 2 * lo : 2 * hi], row)


@njit(**KERNEL)
def _retreat(A_re, A_im, a_re, a_im, b_re, b_im, d_re, d_im, dt, previous, grad_h, carry, x, grad_A):
    # carry: what the later steps add to the gradient of this state
    grad_dt = x[0] - x[0]
    for j in range(a_re.shape[0]):
        g_re, g_im = grad_h[2 * j] + carry[2 * j], grad_h[2 * j + 1] + carry[2 * j + 1]
        h_re, h_im = previous[2 * j], previous[2 * j + 1]
        x_re, x_im = x[2 * j], x[2 * j + 1]
        x[2 * j] = b_re[j] * g_re + b_im[j] * g_im
        x[2 * j + 1] = b_re[j] * g_im - b_im[j] * g_re
        # conj(a) g is what reaches the state before, and a factor of the rest
        c_re = a_re[j] * g_re + a_im[j] * g_im
        c_im = a_re[j] * g_im - a_im[j] * g_re
        carry[2 * j] = c_re
        carry[2 * j + 1] = c_im
        # dh/ddt = a (A h_before + x)
        slope_re = A_re[j] * h_re - A_im[j] * h_im + x_re
        slope_im = A_re[j] * h_im + A_im[j] * h_re + x_im
        grad_dt += slope_re * c_re + slope_im * c_im
        # dh/dA = dt a h_before + d x
        dx_re = d_re[j] * x_re - d_im[j] * x_im
        dx_im = d_re[j] * x_im + d_im[j] * x_re
        grad_A[2 * j] += dt * (h_re * c_re + h_im * c_im) + dx_re * g_re + dx_im * g_im
        grad_A[2 * j + 1] += dt * (h_re * c_im - h_im * c_re) + dx_re * g_im - dx_im * g_re
    return grad_dt


@njit(**KERNEL)
def _backward(
    start, stop, A, dt, x, h0, reset, has_reset, h, grad_h, carry, grad_A, grad_dt, lanes
):
    steps, n = x.shape[1], A.shape[1]
    per_row = (n + lanes - 1) // lanes
    scratch = np.empty((6, lanes), A.dtype)
    nothing = np.zeros(2 * lanes, A.dtype)
    for block in range(start, stop):
        part = block % per_row
        b, lo = block // per_row, part * lanes
        hi = min(lo + lanes, n)
        a_re, a_im = scratch[0, : hi - lo], scratch[1, : hi - lo]
        b_re, b_im = scratch[2, : hi - lo], scratch[3, : hi - lo]
        d_re, d_im = scratch[4, : hi - lo], scratch[5, : hi - lo]
        A_re, A_im, inv_re, inv_im = A[0, lo:hi], A[1, lo:hi], A[2, lo:hi], A[3, lo:hi]
        for t in range(steps - 1, -1, -1):
            _factors(
                A_re, A_im, inv_re, inv_im, A[4, lo:hi], dt[b, t], a_re, a_im, b_re, b_im
            )
            _slopes(
                A_re, A_im, inv_re, inv_im, dt[b, t], a_re, a_im, b_re, b_im, d_re, d_im
            )
            fresh = has_reset and reset[b, t]
            if fresh:
                previous = nothing[: 2 * (hi - lo)]
            elif t == 0:
                previous = h0[b, 2 * lo : 2 * hi]
            else:
                previous = h[b, t - 1, 2 * lo : 2 * hi]
            grad_dt[b, t, part] = _retreat(
                A_re, A_im, a_re, a_im, b_re, b_im, d_re, d_im, dt[b, t], previous,
                grad_h[b, t, 2 * lo : 2 * hi], carry[b, 2 * lo : 2 * hi],
                x[b, t, 2 * lo : 2 * hi], grad_A[b, 2 * lo : 2 * hi],
            )  # fmt: skip
            if fresh:
                carry[b, 2 * lo : 2 * hi] = 0


def _constants(A: Tensor) -> np.ndarray:
    """Rows: A, 1 / A (0 where A is), and 1 where A is 0; real and imaginary parts apart."""
    tiny = A.abs() < 1e-20  # where (exp(A dt) - 1) / A is dt to the last bit
    inverse = torch.where(tiny, 0, 1 / torch.where(tiny, 1, A))
    return torch.stack([A.real, A.imag, inverse.real, inverse.imag, tiny.to(A.real.dtype)]).numpy()


def _pairs(x: Tensor) -> np.ndarray:
    return torch.view_as_real(dense(x)).flatten(-2).numpy()


def _blocks(x: Tensor) -> tuple[int, int]:
    """Number of blocks, and a rough count of the work."""
    return x.shape[0] * -(-x.shape[2] // _LANES), 4 * x.numel()


def _reset_array(reset: Tensor | None) -> np.ndarray:
    return np.zeros((1, 1), np.bool_) if reset is None else dense(reset).numpy()


def forward_(A: Tensor, dt: Tensor, x: Tensor, h0: Tensor | None, reset: Tensor | None) -> None:
    """Overwrites the drive `x` with the states."""
    h0 = x.new_zeros(x.shape[0], x.shape[2]) if h0 is None else h0
    parallel_for(
        _forward, *_blocks(x),
        _constants(A), dt.numpy(), _pairs(h0), _reset_array(reset), reset is not None,
        _pairs(x), _LANES,
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
        _constants(A), dt.numpy(), _pairs(x), _pairs(start), _reset_array(reset),
        reset is not None, _pairs(h), _pairs(grad_h), _pairs(carry), _pairs(grad_A),
        grad_dt.numpy(), _LANES,
    )  # fmt: skip
    return grad_A.sum(0), grad_dt.sum(-1), carry
