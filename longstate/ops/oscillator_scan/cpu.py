"""Numba. Lanes run along the oscillators, real and imaginary parts apart; time is the outer loop.

Positions overwrite the drive in place. The velocity is one row; every `chunk` steps it is kept, and
the backward pass makes those in between again, a chunk at a time, into a tile that stays in cache.
"""

import numpy as np
from numba import njit
from torch import Tensor

from longstate.ops._layout import flags, reals
from longstate.ops._threads import KERNEL, parallel_for

_LANES = 256


@njit(**KERNEL)
def _stiffness(A, m, implicit, cut, damping, pull):
    # the velocity's factor 1 / (1 + m^2 A), and the pull towards the origin m A
    one = A.dtype.type(1)  # a bare 1 would make it double precision
    for j in range(A.shape[0]):
        k = m * A[j]
        damping[j] = one / (one + m * k) if implicit else one
        pull[j] = cut if k > cut and not implicit else k


@njit(**KERNEL)
def _velocity(damping, pull, m, before, y, x, z):
    for j in range(z.shape[0]):
        z[j] = damping[j] * (before[j] - pull[j] * y[j] + m * x[j])


@njit(**KERNEL)
def _position(m, z, y, x):
    for j in range(z.shape[0]):
        x[j] = y[j] + m * z[j]


@njit(**KERNEL)
def _forward(start, stop, A, dt, x, state, reset, has_reset, kept, implicit, limit, chunk, lanes):
    steps, n = x.shape[1], x.shape[2]
    per_row = (n + lanes - 1) // lanes
    damping, pull = np.empty(lanes, A.dtype), np.empty(lanes, A.dtype)
    nothing = np.zeros(lanes, A.dtype)
    for block in range(start, stop):
        b, lo = block // per_row, (block % per_row) * lanes
        hi = min(lo + lanes, n)
        z = state[b, 0, lo:hi]
        y = state[b, 1, lo:hi]
        for t in range(steps):
            if t % chunk == 0:
                kept[b, t // chunk, lo:hi] = z
            if has_reset and reset[b, t]:
                z[:] = 0
                y = nothing[: hi - lo]
            m = dt[b, t]
            _stiffness(A[lo:hi], m, implicit, limit / m, damping, pull)
            _velocity(damping, pull, m, z, y, x[b, t, lo:hi], z)
            _position(m, z, y, x[b, t, lo:hi])
            y = x[b, t, lo:hi]
        state[b, 1, lo:hi] = y


@njit(**KERNEL)
def _retreat(
    A, damping, pull, m, implicit, cut, y_before, y, z, grad_y, carry_z, carry_y, x, grad_A
):
    # carry: what the later steps add to the gradients of this velocity and position
    zero = A.dtype.type(0)
    grad_m = zero
    for j in range(A.shape[0]):
        g = grad_y[j] + carry_y[j]
        w = damping[j] * (carry_z[j] + m * g)
        carry_z[j] = w
        carry_y[j] = g - pull[j] * w
        free = implicit or m * A[j] <= cut
        # dL/dpull = -w y_before; the implicit rule's damping adds the rest of y to it
        w_y = w * (y[j] if implicit else y_before[j])
        grad_A[j] -= m * w_y if free else zero
        by_step = -A[j] * (w_y + (m * w * z[j] if implicit else zero))
        grad_m += w * x[j] + g * z[j] + (by_step if free else pull[j] / m * w_y)
        x[j] = m * w
    return grad_m


@njit(**KERNEL)
def _backward(
    start, stop, A, dt, x, h0, reset, has_reset, y, kept, grad_y, carry, grad_A, grad_dt,
    implicit, limit, chunk, lanes,
):  # fmt: skip
    steps, n = x.shape[1], x.shape[2]
    per_row = (n + lanes - 1) // lanes
    damping, pull = np.empty(lanes, A.dtype), np.empty(lanes, A.dtype)
    tile = np.empty((chunk, lanes), A.dtype)
    nothing = np.zeros(lanes, A.dtype)
    for block in range(start, stop):
        b, part = block // per_row, block % per_row
        lo, hi = part * lanes, min((part + 1) * lanes, n)
        a = A[lo:hi]
        for first in range((steps - 1) // chunk * chunk, -1, -chunk):
            stop_at = min(first + chunk, steps)
            before = kept[b, first // chunk, lo:hi]
            for t in range(first, stop_at):
                m = dt[b, t]
                position = h0[b, 1, lo:hi] if t == 0 else y[b, t - 1, lo:hi]
                if has_reset and reset[b, t]:
                    before, position = nothing[: hi - lo], nothing[: hi - lo]
                z = tile[t - first, : hi - lo]
                _stiffness(a, m, implicit, limit / m, damping, pull)
                _velocity(damping, pull, m, before, position, x[b, t, lo:hi], z)
                before = z
            for t in range(stop_at - 1, first - 1, -1):
                m = dt[b, t]
                position = h0[b, 1, lo:hi] if t == 0 else y[b, t - 1, lo:hi]
                fresh = has_reset and reset[b, t]
                if fresh:
                    position = nothing[: hi - lo]
                _stiffness(a, m, implicit, limit / m, damping, pull)
                grad_dt[b, t, part] = _retreat(
                    a, damping, pull, m, implicit, limit / m, position, y[b, t, lo:hi],
                    tile[t - first, : hi - lo], grad_y[b, t, lo:hi], carry[b, 0, lo:hi],
                    carry[b, 1, lo:hi], x[b, t, lo:hi], grad_A[b, lo:hi],
                )  # fmt: skip
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
    limit: float,
    chunk: int,
) -> Tensor:
    """Overwrites the drive `x` with positions and `state` with the last; returns velocities."""
    drive = _lanes_of(x)
    kept = A.new_empty(x.shape[0], -(-x.shape[1] // chunk), A.shape[0])
    parallel_for(
        _forward, _blocks(drive), drive.size,
        A.numpy(), dt.numpy(), drive, _lanes_of(state), flags(reset, x).numpy(),
        reset is not None, kept.numpy(), implicit, A.numpy().dtype.type(limit), chunk, _LANES,
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
    limit: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of `A` and `dt`.

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
        grad_dt.numpy(), implicit, A.numpy().dtype.type(limit), chunk, _LANES,
    )  # fmt: skip
    return grad_A.sum(0), grad_dt.sum(-1)
