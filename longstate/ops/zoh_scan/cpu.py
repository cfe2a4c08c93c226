"""Numba: the rule of the zero-order hold, for the engine in `ops/_numba/lanes.py`.

    h_t = a h_{t-1} + b x_t            a = exp(A dt), b = (a - 1) / A

For each step and block of states one loop fills contiguous rows with a and b, at full vector width,
and a second one advances the complex pairs. The factors of one row stay in the first-level cache
and are never written to memory. States overwrite the drive in place, and its gradient overwrites
the recomputed drive, so that neither pass has a second array of their size.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import dense, reals
from longstate.ops._numba import apart, exact
from longstate.ops._numba.lanes import Place, clear, parts, scan
from longstate.ops._numba.math import exp_pair, slope_series, turn
from longstate.ops.zoh_scan import LANES, Inputs, pole_rows


@exact
def factors(A: np.ndarray, dt: float, f: np.ndarray, size: int) -> None:
    # f: rows of a = exp(A dt) and b = (a - 1) / A, real and imaginary parts apart
    for j in range(size):
        e, em1 = exp_pair(A[j], dt)
        s, c, cm1 = turn(A[LANES + j], dt)
        over_re, over_im = em1 * c + cm1, e * s
        inv_re, inv_im = A[2 * LANES + j], A[3 * LANES + j]
        f[j] = e * c
        f[LANES + j] = e * s
        f[2 * LANES + j] = over_re * inv_re - over_im * inv_im + A[4 * LANES + j] * dt
        f[3 * LANES + j] = over_re * inv_im + over_im * inv_re


@exact
def slopes(A: np.ndarray, dt: float, f: np.ndarray, size: int) -> None:
    # two more rows: d = db/dA = dt^2 phi1'(A dt), as a series where the closed form would cancel
    for j in range(size):
        x, y = A[j] * dt, A[LANES + j] * dt
        inv_re, inv_im = A[2 * LANES + j], A[3 * LANES + j]
        near = x * x + y * y < 0.25
        near_re, near_im = slope_series(x, y)
        far_re, far_im = dt * f[j] - f[2 * LANES + j], dt * f[LANES + j] - f[3 * LANES + j]
        f[4 * LANES + j] = dt * dt * near_re if near else far_re * inv_re - far_im * inv_im
        f[5 * LANES + j] = dt * dt * near_im if near else far_re * inv_im + far_im * inv_re


@apart
def _advance(f: np.ndarray, previous: np.ndarray, x: np.ndarray, size: int) -> None:
    for j in range(size):
        h_re, h_im = previous[2 * j], previous[2 * j + 1]
        x_re, x_im = x[2 * j], x[2 * j + 1]
        a_re, a_im, b_re, b_im = f[j], f[LANES + j], f[2 * LANES + j], f[3 * LANES + j]
        x[2 * j] = a_re * h_re - a_im * h_im + (b_re * x_re - b_im * x_im)
        x[2 * j + 1] = a_re * h_im + a_im * h_re + (b_re * x_im + b_im * x_re)


@apart
def _start(f: np.ndarray, x: np.ndarray, size: int) -> None:
    for j in range(size):
        x_re, x_im = x[2 * j], x[2 * j + 1]
        b_re, b_im = f[2 * LANES + j], f[3 * LANES + j]
        x[2 * j] = b_re * x_re - b_im * x_im
        x[2 * j + 1] = b_re * x_im + b_im * x_re


@apart
def _retreat(
    A: np.ndarray, dt: float, f: np.ndarray, previous: np.ndarray, grad_h: np.ndarray,
    carry: np.ndarray, x: np.ndarray, grad_A: np.ndarray, size: int,
) -> float:  # fmt: skip
    # carry: what the later steps add to the gradient of this state
    grad_dt = x[0] - x[0]
    for j in range(size):
        g_re, g_im = grad_h[2 * j] + carry[2 * j], grad_h[2 * j + 1] + carry[2 * j + 1]
        h_re, h_im = previous[2 * j], previous[2 * j + 1]
        x_re, x_im = x[2 * j], x[2 * j + 1]
        a_re, a_im, b_re, b_im = f[j], f[LANES + j], f[2 * LANES + j], f[3 * LANES + j]
        d_re, d_im = f[4 * LANES + j], f[5 * LANES + j]
        x[2 * j] = b_re * g_re + b_im * g_im
        x[2 * j + 1] = b_re * g_im - b_im * g_re
        # conj(a) g is the gradient of the state before, and a factor of the others
        c_re = a_re * g_re + a_im * g_im
        c_im = a_re * g_im - a_im * g_re
        carry[2 * j] = c_re
        carry[2 * j + 1] = c_im
        # dh/ddt = a (A h_before + x)
        slope_re = A[j] * h_re - A[LANES + j] * h_im + x_re
        slope_im = A[j] * h_im + A[LANES + j] * h_re + x_im
        grad_dt += slope_re * c_re + slope_im * c_im
        # dh/dA = dt a h_before + d x
        dx_re = d_re * x_re - d_im * x_im
        dx_im = d_re * x_im + d_im * x_re
        grad_A[2 * j] += dt * (h_re * c_re + h_im * c_im) + (dx_re * g_re + dx_im * g_im)
        grad_A[2 * j + 1] += dt * (h_re * c_im - h_im * c_re) + (dx_re * g_im - dx_im * g_re)
    return grad_dt


class Gradients(NamedTuple):
    h: np.ndarray  # b, t, 2 n
    carry: np.ndarray  # b, 2 n: what the later steps add to the gradient of this state
    A: np.ndarray  # b, 2 n; a row for each sequence
    dt: np.ndarray  # b, t, blocks


class Hold(NamedTuple):
    """Complex numbers are pairs."""

    A: np.ndarray  # blocks, 5 * lanes
    dt: np.ndarray  # b, t
    h0: np.ndarray  # b, 2 n
    h: np.ndarray  # b, t, 2 n

    def scratch(rule: "Hold") -> np.ndarray:
        """Six rows of factors, and a state of zeros."""
        return np.zeros(8 * LANES, rule.A.dtype)

    def advance(rule: "Hold", at: Place, x: np.ndarray, work: np.ndarray) -> None:
        b, t, lo, hi, size = at.b, at.t, 2 * at.lo, 2 * at.hi, at.hi - at.lo
        factors(rule.A[at.part], rule.dt[b, t], work, size)
        row = x[b, t, lo:hi]
        if at.fresh:
            _start(work, row, size)
        elif t == 0:
            _advance(work, rule.h0[b, lo:hi], row, size)
        else:
            _advance(work, rule.h[b, t - 1, lo:hi], row, size)

    def retreat(rule: "Hold", at: Place, x: np.ndarray, grads: Gradients, work: np.ndarray) -> None:
        b, t, lo, hi, size = at.b, at.t, 2 * at.lo, 2 * at.hi, at.hi - at.lo
        A, dt = rule.A[at.part], rule.dt[b, t]
        factors(A, dt, work, size)
        slopes(A, dt, work, size)
        previous = work[6 * LANES :]
        if not at.fresh:
            previous = rule.h0[b, lo:hi] if t == 0 else rule.h[b, t - 1, lo:hi]
        grads.dt[b, t, at.part] = _retreat(
            A, dt, work, previous, grads.h[b, t, lo:hi], grads.carry[b, lo:hi], x[b, t, lo:hi],
            grads.A[b, lo:hi], size,
        )  # fmt: skip
        if at.fresh:
            clear(grads.carry[b, lo:hi])


def _constants(A: Tensor) -> np.ndarray:
    """The rows of A, cut into blocks of lanes: (blocks, 5 * lanes)."""
    blocks = parts(A.shape[0], LANES)
    padded = torch.nn.functional.pad(pole_rows(A), (0, blocks * LANES - A.shape[0]))
    return padded.unflatten(1, (blocks, LANES)).transpose(0, 1).flatten(1).numpy()


def _pairs(x: Tensor) -> np.ndarray:
    return reals(x).flatten(-2).numpy()


def forward_(s: Inputs, h0: Tensor, x: Tensor) -> None:
    """Overwrites the drive `x` with the states."""
    rule = Hold(_constants(dense(s.A)), dense(s.dt).numpy(), _pairs(h0), _pairs(x))
    scan(rule, _pairs(x), x.shape[2], s.reset, 4 * x.numel(), lanes=LANES)


def backward_(
    s: Inputs, h0: Tensor, x: Tensor, h: Tensor, grad_h: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of A and dt.

    Overwrites the drive `x` with its own gradient, and `carry`, the gradient of the last state,
    with that of h0.
    """
    # One row for each sequence and one column for each block, added up below in a fixed order.
    grad_A = torch.zeros_like(carry)
    grad_dt = s.dt.new_empty(*s.dt.shape, parts(x.shape[2], LANES))
    rule = Hold(_constants(dense(s.A)), dense(s.dt).numpy(), _pairs(h0), _pairs(h))
    grads = Gradients(_pairs(grad_h), _pairs(carry), _pairs(grad_A), grad_dt.numpy())
    scan(rule, _pairs(x), x.shape[2], s.reset, 4 * x.numel(), grads, lanes=LANES)
    return grad_A.sum(0), grad_dt.sum(-1)
