"""Numba: the two rules of the oscillator scan, for the engine in `ops/_numba/lanes.py`.

    (z, y)_t = (f0 z - f1 y + f4 x, f2 z + f3 y + f5 x)

Lanes run along the oscillators, real and imaginary parts separately. Positions overwrite the drive
in place. The velocity is one row, which is kept every CHUNK steps; the backward pass recomputes
those in between, a chunk at a time, into a tile that stays in the cache.

It recomputes the positions of a chunk as well, although the forward pass has stored them. The
velocity alone, computed from stored positions, is an unstable recursion: f0 is 4.4 where A = 3.9
and dt = 0.3, so that a rounding error would grow by 4.4^32. And in the gradients of fast
oscillators the two nearly cancel, so they must belong to one trajectory.
"""

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from longstate.ops._layout import dense, reals
from longstate.ops._numba import apart
from longstate.ops._numba.lanes import Place, clear, copy, parts, scan
from longstate.ops.oscillator_scan import CHUNK, Inputs
from longstate.ops.oscillator_scan.step import STABLE

_LANES = 256
# rows of a thread: six factors, zeros, then the velocities and the positions of a chunk, from
# those before its first step to those after its last
_ZEROS, _TILE, _POSITIONS = 6 * _LANES, 7 * _LANES, (CHUNK + 1) * _LANES


@apart
def _step(A: np.ndarray, m: float, implicit: bool, f: np.ndarray) -> None:
    # f: the six numbers of (z, y) -> (f0 z - f1 y + f4 x, f2 z + f3 y + f5 x), a row for each
    one, two, four = A.dtype.type(1), A.dtype.type(2), A.dtype.type(4)  # literals would be float64
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


@apart
def _advance(f: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray) -> None:
    # the velocity in place; the position over the drive
    for j in range(z.shape[0]):
        z_j, y_j, x_j = z[j], y[j], x[j]
        z[j] = f[j] * z_j - f[_LANES + j] * y_j + f[4 * _LANES + j] * x_j
        x[j] = f[2 * _LANES + j] * z_j + f[3 * _LANES + j] * y_j + f[5 * _LANES + j] * x_j


@apart
def _advance_again(
    f: np.ndarray, z: np.ndarray, y: np.ndarray, x: np.ndarray, next_z: np.ndarray,
    next_y: np.ndarray,
) -> None:  # fmt: skip
    for j in range(z.shape[0]):
        z_j, y_j, x_j = z[j], y[j], x[j]
        next_z[j] = f[j] * z_j - f[_LANES + j] * y_j + f[4 * _LANES + j] * x_j
        next_y[j] = f[2 * _LANES + j] * z_j + f[3 * _LANES + j] * y_j + f[5 * _LANES + j] * x_j


@apart
def _add(x: np.ndarray, total: np.ndarray) -> None:
    for j in range(x.shape[0]):
        total[j] += x[j]


@apart
def _retreat(f: np.ndarray, carry_z: np.ndarray, carry_y: np.ndarray, x: np.ndarray) -> None:
    # carry: gradients of this state, then of the one before; x: the drive, then its gradient
    for j in range(x.shape[0]):
        g_z, g_y = carry_z[j], carry_y[j]
        x[j] = f[4 * _LANES + j] * g_z + f[5 * _LANES + j] * g_y
        carry_z[j] = f[j] * g_z + f[2 * _LANES + j] * g_y
        carry_y[j] = f[3 * _LANES + j] * g_y - f[_LANES + j] * g_z


@apart
def _slopes_implicit(
    A: np.ndarray, m: float, g_z: np.ndarray, g_y: np.ndarray, z: np.ndarray, y: np.ndarray,
    x: np.ndarray, grad_A: np.ndarray,
) -> float:  # fmt: skip
    # of A and of the step; z, y: the state after it
    one = A.dtype.type(1)
    grad_m = A.dtype.type(0)
    for j in range(A.shape[0]):
        w = (g_z[j] + m * g_y[j]) / (one + m * m * A[j])
        grad_A[j] -= m * w * y[j]
        grad_m += w * x[j] + g_y[j] * z[j] - A[j] * w * (y[j] + m * z[j])
    return grad_m


@apart
def _slopes_turning(
    A: np.ndarray, m: float, g_z: np.ndarray, g_y: np.ndarray, z: np.ndarray, y: np.ndarray,
    x: np.ndarray, grad_A: np.ndarray,
) -> float:  # fmt: skip
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
        # the step limited to sqrt(limit / A): the cosine is constant
        moved = by_sine * sine * near * (A[j] - two) / four - by_square * dt * dt
        grad_A[j] += explicit + (moved / A[j] if cut else given)
        grad_m += zero if cut else by_dt
    return grad_m


class Gradients(NamedTuple):
    y: np.ndarray  # b, t, n
    carry: np.ndarray  # b, 2, n: of this state, from the later steps
    A: np.ndarray  # b, n; a row for each sequence
    dt: np.ndarray  # b, t, blocks


class Oscillators(NamedTuple):
    A: np.ndarray  # n
    dt: np.ndarray  # b, t
    h0: np.ndarray  # b, 2, n; on the way forward the state, which moves on in place
    y: np.ndarray  # b, t, n
    kept: np.ndarray  # b, chunks, n: velocities
    implicit: bool

    def scratch(rule: "Oscillators") -> np.ndarray:
        return np.zeros(_TILE + 2 * _POSITIONS, rule.A.dtype)

    def advance(rule: "Oscillators", at: Place, x: np.ndarray, work: np.ndarray) -> None:
        b, t, lo, hi = at.b, at.t, at.lo, at.hi
        z = rule.h0[b, 0, lo:hi]
        if t % CHUNK == 0:
            copy(z, rule.kept[b, t // CHUNK, lo:hi])
        y = rule.h0[b, 1, lo:hi] if t == 0 else rule.y[b, t - 1, lo:hi]
        if at.fresh:
            clear(z)
            y = work[_ZEROS : _ZEROS + hi - lo]
        _step(rule.A[lo:hi], rule.dt[b, t], rule.implicit, work)
        _advance(work, z, y, x[b, t, lo:hi])
        if t == x.shape[1] - 1:
            copy(x[b, t, lo:hi], rule.h0[b, 1, lo:hi])

    def again(rule: "Oscillators", at: Place, x: np.ndarray, work: np.ndarray) -> None:
        """The states of a chunk: before its first step, then after each."""
        b, t, lo, hi, size = at.b, at.t, at.lo, at.hi, at.hi - at.lo
        row = _TILE + t % CHUNK * _LANES
        z, y = work[row : row + size], work[row + _POSITIONS : row + _POSITIONS + size]
        row += _LANES
        next_z, next_y = work[row : row + size], work[row + _POSITIONS : row + _POSITIONS + size]
        if t % CHUNK == 0:
            copy(rule.kept[b, t // CHUNK, lo:hi], z)
            copy(rule.h0[b, 1, lo:hi] if t == 0 else rule.y[b, t - 1, lo:hi], y)
        if at.fresh:
            z, y = work[_ZEROS : _ZEROS + size], work[_ZEROS : _ZEROS + size]
        _step(rule.A[lo:hi], rule.dt[b, t], rule.implicit, work)
        _advance_again(work, z, y, x[b, t, lo:hi], next_z, next_y)

    def retreat(
        rule: "Oscillators", at: Place, x: np.ndarray, grads: Gradients, work: np.ndarray
    ) -> None:
        b, t, lo, hi, size = at.b, at.t, at.lo, at.hi, at.hi - at.lo
        A, dt, drive, grad_A = rule.A[lo:hi], rule.dt[b, t], x[b, t, lo:hi], grads.A[b, lo:hi]
        row = _TILE + (t % CHUNK + (1 if rule.implicit else 0)) * _LANES
        z, y = work[row : row + size], work[row + _POSITIONS : row + _POSITIONS + size]
        g_z, g_y = grads.carry[b, 0, lo:hi], grads.carry[b, 1, lo:hi]
        _add(grads.y[b, t, lo:hi], g_y)
        if rule.implicit:
            grads.dt[b, t, at.part] = _slopes_implicit(A, dt, g_z, g_y, z, y, drive, grad_A)
        else:
            if at.fresh:
                z, y = work[_ZEROS : _ZEROS + size], work[_ZEROS : _ZEROS + size]
            grads.dt[b, t, at.part] = _slopes_turning(A, dt, g_z, g_y, z, y, drive, grad_A)
        _step(A, dt, rule.implicit, work)
        _retreat(work, g_z, g_y, drive)
        if at.fresh:
            clear(g_z)
            clear(g_y)


def _parts_apart(x: Tensor) -> np.ndarray:
    """(..., n) or, if complex, (..., 2 n), in the same memory where it can be."""
    return (reals(x).flatten(-2) if x.is_complex() else reals(x)).numpy()


def _rule(s: Inputs, A: Tensor, h0: Tensor, y: np.ndarray, kept: Tensor) -> Oscillators:
    return Oscillators(
        A.numpy(), dense(s.dt).numpy(), _parts_apart(h0), y, kept.numpy(), s.implicit
    )


def forward_(s: Inputs, A: Tensor, x: Tensor, state: Tensor, kept: Tensor) -> None:
    """Overwrites the drive `x` with positions, `state` with the last, and fills `kept`."""
    drive = _parts_apart(x)
    scan(_rule(s, A, state, drive, kept), drive, A.shape[0], s.reset, drive.size, lanes=_LANES)


def backward_(
    s: Inputs, A: Tensor, x: Tensor, y: Tensor, kept: Tensor, grad_y: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the lanes of A, and of `dt`.

    Overwrites the drive `x` with its own gradient, and `carry`, the gradient of the last state,
    with that of `h0`.
    """
    (b, t, _), n = x.shape, A.shape[0]
    # One row for each sequence and one column for each block, added up below in a fixed order.
    grad_A, grad_dt = A.new_zeros(b, n), A.new_empty(b, t, parts(n, _LANES))
    drive = _parts_apart(x)
    grads = Gradients(_parts_apart(grad_y), _parts_apart(carry), grad_A.numpy(), grad_dt.numpy())
    rule = _rule(s, A, s.h0, _parts_apart(y), kept)
    scan(rule, drive, n, s.reset, 2 * drive.size, grads, lanes=_LANES, chunk=CHUNK)
    return grad_A.sum(0), grad_dt.sum(-1)
