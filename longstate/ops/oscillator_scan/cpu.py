"""Numba. Lanes run along the oscillators, real and imaginary parts apart; time is the outer loop.

Positions overwrite the drive in place. The velocity is one row; every `chunk` steps it is kept, and
the backward pass makes those in between again, a chunk at a time, into a tile that stays in cache.
"""

import math

import numpy as np
from numba import njit
from torch import Tensor

from longstate.ops._layout import flags, reals
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops.oscillator_scan.step import STABLE

_LANES = 256


@njit(**KERNEL)
def _step(A, m, implicit, f):
    # f: the six numbers of (z, y) -> (f0 z - f1 y + f4 x, f2 z + f3 y + f5 x), a row for each
    one, two, four = A.dtype.type(1), A.dtype.type(2), A.dtype.type(4)  # bare ones are double
    limit = A.dtype.type(STABLE)
    for j in range(A.shape[0]):
        if implicit:
            s = one / (one + m * m * A[j])
            f[j] = s
            f[_LANES + j] = m * s * A[j]
            f[2 * _LANES + j] = m * s
            f[3 * _LANES + j] = s
            f[4 * _LANES + j] = m * s
            f[5 * _LANES + j] = m * m * s
        else:
            dt = math.sqrt(limit / A[j]) if A[j] * m * m > limit else m
            half = A[j] * dt * dt / two
            sine = dt * math.sqrt((one - half / two) / (one - A[j] / four))
            f[j] = one - half + sine * A[j] / two
            f[_LANES + j] = sine * A[j]
            f[2 * _LANES + j] = sine
            f[3 * _LANES + j] = one - half - sine * A[j] / two
            f[4 * _LANES + j] = sine
            f[5 * _LANES + j] = (dt * dt + sine) / two


@njit(**KERNEL)
def _velocity(f, before, y, x, z):
    for j in range(z.shape[0]):
        z[j] = f[j] * before[j] - f[_LANES + j] * y[j] + f[4 * _LANES + j] * x[j]


@njit(**KERNEL)
def _advance(f, z, y, x):
    # the velocity in place; the position over the drive
    for j in range(z.shape[0]):
        z_j, y_j, x_j = z[j], y[j], x[j]
        z[j] = f[j] * z_j - f[_LANES + j] * y_j + f[4 * _LANES + j] * x_j
        x[j] = f[2 * _LANES + j] * z_j + f[3 * _LANES + j] * y_j + f[5 * _LANES + j] * x_j


@njit(**KERNEL)
def _forward(start, stop, A, dt, x, state, reset, has_reset, kept, implicit, chunk):
    steps, n = x.shape[1], x.shape[2]
    per_row = (n + _LANES - 1) // _LANES
    f = np.empty(6 * _LANES, A.dtype)
    nothing = np.zeros(_LANES, A.dtype)
    for block in range(start, stop):
        b, lo = block // per_row, (block % per_row) * _LANES
        hi = min(lo + _LANES, n)
        z, y = state[b, 0, lo:hi], state[b, 1, lo:hi]
        for t in range(steps):
            if t % chunk == 0:
                kept[b, t // chunk, lo:hi] = z
            if has_reset and reset[b, t]:
                z[:] = 0
                y = nothing[: hi - lo]
            _step(A[lo:hi], dt[b, t], implicit, f)
            _advance(f, z, y, x[b, t, lo:hi])
            y = x[b, t, lo:hi]
        state[b, 1, lo:hi] = y


@njit(**KERNEL)
def _retreat(f, carry_z, carry_y, x):
    # carry: gradients of this state, then of the one before; x: the drive, then its gradient
    for j in range(x.shape[0]):
        g_z, g_y = carry_z[j], carry_y[j]
        x[j] = f[4 * _LANES + j] * g_z + f[5 * _LANES + j] * g_y
        carry_z[j] = f[j] * g_z + f[2 * _LANES + j] * g_y
        carry_y[j] = f[3 * _LANES + j] * g_y - f[_LANES + j] * g_z


@njit(**KERNEL)
def _slopes_implicit(A, m, g_z, g_y, z, y, x, grad_A):
    # of A and of the step; z, y: the state after it
    one = A.dtype.type(1)
    grad_m = A.dtype.type(0)
    for j in range(A.shape[0]):
        w = (g_z[j] + m * g_y[j]) / (one + m * m * A[j])
        grad_A[j] -= m * w * y[j]
        grad_m += w * x[j] + g_y[j] * z[j] - A[j] * w * (y[j] + m * z[j])
    return grad_m


@njit(**KERNEL)
def _slopes_turning(A, m, g_z, g_y, z, y, x, grad_A):
    # of A and of the step; z, y: the state before it
    zero, one, two = A.dtype.type(0), A.dtype.type(1), A.dtype.type(2)
    four, eight, limit = A.dtype.type(4), A.dtype.type(8), A.dtype.type(STABLE)
    grad_m = zero
    for j in range(A.shape[0]):
        cut = A[j] * m * m > limit
        dt = math.sqrt(limit / A[j]) if cut else m
        half = A[j] * dt * dt / two
        near = one / (one - A[j] / four)
        root = math.sqrt(near / (one - half / two))
        sine = dt * near / root
        by_cosine = g_z[j] * z[j] + g_y[j] * y[j]
        by_sine = g_z[j] * (A[j] / two * z[j] - A[j] * y[j] + x[j])
        by_sine += g_y[j] * (z[j] - A[j] / two * y[j] + x[j] / two)
        by_square = g_y[j] * x[j] / two  # of dt
        explicit = sine * (g_z[j] * (z[j] / two - y[j]) - g_y[j] * y[j] / two)
        # the step given: d sine / dA and d sine / d dt, written so that nothing cancels at dt = 1
        given = by_sine * near * root * dt * (one - dt * dt) / eight - by_cosine * dt * dt / two
        by_dt = by_sine * root * (one - half) + (two * by_square - by_cosine * A[j]) * dt
        # the step cut to sqrt(limit / A): the cosine does not move
        moved = by_sine * sine * near * (A[j] - two) / four - by_square * dt * dt
        grad_A[j] += explicit + (moved / A[j] if cut else given)
        grad_m += zero if cut else by_dt
    return grad_m


@njit(**KERNEL)
def _backward(
    start, stop, A, dt, x, h0, reset, has_reset, y, kept, grad_y, carry, grad_A, grad_dt,
    implicit, chunk,
):  # fmt: skip
    steps, n = x.shape[1], x.shape[2]
    per_row = (n + _LANES - 1) // _LANES
    f = np.empty(6 * _LANES, A.dtype)
    tile = np.empty((chunk + 1, _LANES), A.dtype)  # the velocity before the chunk, then after each
    nothing = np.zeros(_LANES, A.dtype)
    for block in range(start, stop):
        b, part = block // per_row, block % per_row
        lo, hi = part * _LANES, min((part + 1) * _LANES, n)
        size = hi - lo
        a, c_z, c_y = A[lo:hi], carry[b, 0, lo:hi], carry[b, 1, lo:hi]
        for first in range((steps - 1) // chunk * chunk, -1, -chunk):
            end = min(first + chunk, steps)
            tile[0, :size] = kept[b, first // chunk, lo:hi]
            for t in range(first, end):
                before = tile[t - first, :size]
                position = h0[b, 1, lo:hi] if t == 0 else y[b, t - 1, lo:hi]
                if has_reset and reset[b, t]:
                    before, position = nothing[:size], nothing[:size]
                _step(a, dt[b, t], implicit, f)
                _velocity(f, before, position, x[b, t, lo:hi], tile[t - first + 1, :size])
            for t in range(end - 1, first - 1, -1):
                before = tile[t - first, :size]
                position = h0[b, 1, lo:hi] if t == 0 else y[b, t - 1, lo:hi]
                fresh = has_reset and reset[b, t]
                if fresh:
                    before, position = nothing[:size], nothing[:size]
                drive, after = x[b, t, lo:hi], tile[t - first + 1, :size]
                c_y += grad_y[b, t, lo:hi]
                if implicit:
                    grad_dt[b, t, part] = _slopes_implicit(
                        a, dt[b, t], c_z, c_y, after, y[b, t, lo:hi], drive, grad_A[b, lo:hi]
                    )
                else:
                    grad_dt[b, t, part] = _slopes_turning(
                        a, dt[b, t], c_z, c_y, before, position, drive, grad_A[b, lo:hi]
                    )
                _step(a, dt[b, t], implicit, f)
                _retreat(f, c_z, c_y, drive)
                if fresh:
                    carry[b, :, lo:hi] = 0


def _lanes_of(x: Tensor) -> np.ndarray:
    return (reals(x).flatten(-2) if x.is_complex() else reals(x)).numpy()


def _blocks(x: np.ndarray) -> int:
    return x.shape[0] * -(-x.shape[2] // _LANES)


def forward_(
    A: Tensor,
    dt: Tensor,
    x: Tensor,
    state: Tensor,
    reset: Tensor | None,
    implicit: bool,
    chunk: int,
) -> Tensor:
    """Overwrites the drive `x` with positions and `state` with the last; returns velocities."""
    drive = _lanes_of(x)
    kept = A.new_empty(x.shape[0], -(-x.shape[1] // chunk), A.shape[0])
    parallel_for(
        _forward, _blocks(drive), drive.size,
        A.numpy(), dt.numpy(), drive, _lanes_of(state), flags(reset, x).numpy(),
        reset is not None, kept.numpy(), implicit, chunk,
    )  # fmt: skip
    return kept


def backward_(
    A: Tensor,
    dt: Tensor,
    x: Tensor,
    h0: Tensor,
    reset: Tensor | None,
    y: Tensor,
    kept: Tensor,
    grad_y: Tensor,
    carry: Tensor,
    implicit: bool,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of the lanes of A, and of `dt`.

    Overwrites the drive `x` with its own gradient, and `carry`, the gradient of the last state,
    with that of `h0`.
    """
    drive = _lanes_of(x)
    # One row for each sequence and one column for each block, added up below in a fixed order.
    grad_A = A.new_zeros(x.shape[0], A.shape[0])
    grad_dt = dt.new_empty(*dt.shape, -(-A.shape[0] // _LANES))
    parallel_for(
        _backward, _blocks(drive), 2 * drive.size,
        A.numpy(), dt.numpy(), drive, _lanes_of(h0), flags(reset, x).numpy(), reset is not None,
        _lanes_of(y), kept.numpy(), _lanes_of(grad_y), _lanes_of(carry), grad_A.numpy(),
        grad_dt.numpy(), implicit, chunk,
    )  # fmt: skip
    return grad_A.sum(0), grad_dt.sum(-1)
