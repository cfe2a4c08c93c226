"""Triton: the rule of the zero-order hold, for the engine in `ops/_triton/lanes.py`.

    h_t = a h_{t-1} + b x_t            a = exp(A dt), b = (a - 1) / A

The factors a and b stay in registers. The rounding of the product A dt is recovered with a fused
multiply-add, so that the phase of a fast oscillation is accurate in float32. States overwrite the
drive in place, and its gradient overwrites the recomputed drive.
"""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense, reals
from longstate.ops._triton import Pointer, add, load, store, times, times_conj
from longstate.ops._triton.lanes import (
    Functions,
    Place,
    before,
    blocks,
    scan,
    scan_back,
    sum_lanes,
)  # fmt: skip
from longstate.ops.zoh_scan import Inputs, pole_rows


class Hold(NamedTuple):
    A: Pointer  # 5, n; see `pole_rows`
    dt: Pointer
    x: Pointer  # forward: the drive, then the states
    h0: Pointer
    h: Pointer


class Gradients(NamedTuple):
    h: Pointer
    dt: Pointer  # b, t, blocks


class Poles(NamedTuple):
    A: tl.tuple
    inverse: tl.tuple
    at_zero: tl.tensor  # 1 where A is 0


@triton.jit
def _constants(rule: Hold, at: Place) -> Poles:
    row, n = rule.A + at.lane, at.n
    return Poles(
        (
            tl.load(row, mask=at.inside, other=0.0),
            tl.load(row + n, mask=at.inside, other=0.0),
        ),
        (
            tl.load(row + 2 * n, mask=at.inside, other=0.0),
            tl.load(row + 3 * n, mask=at.inside, other=0.0),
        ),
        tl.load(row + 4 * n, mask=at.inside, other=0.0),
    )


@triton.jit
def _read(rule: Hold, at: Place) -> tl.tuple:
    return load(rule.x, at.at, at.inside, 2), tl.load(rule.dt + at.row)


@triton.jit
def _exp_minus_1(x: tl.tensor) -> tl.tensor:
    """Series where exp(x) - 1 would cancel."""
    near = 1.0 + x * (1.0 / 14)
    for k in tl.static_range(13, 1, -1):
        near = 1.0 + x * (1.0 / k) * near
    return tl.where(tl.abs(x) < 0.35, x * near, tl.exp(x) - 1.0)


@triton.jit
def _factors(c: Poles, dt: tl.tensor) -> tl.tuple:
    """exp(A dt) and (exp(A dt) - 1) / A."""
    A_re, A_im = c.A
    x, y = A_re * dt, A_im * dt
    x_lost, y_lost = tl.fma(A_re, dt, -x), tl.fma(A_im, dt, -y)
    e, over = tl.exp(x), _exp_minus_1(x)
    e, over = e + x_lost * e, over + x_lost * e
    half = tl.sin(0.5 * y)
    sine, cosine, lost = tl.sin(y), tl.cos(y), -2.0 * half * half
    sine, cosine, lost = sine + y_lost * cosine, cosine - y_lost * sine, lost - y_lost * sine
    b_re, b_im = times((over * cosine + lost, e * sine), c.inverse)
    return (e * cosine, e * sine), (b_re + c.at_zero * dt, b_im)


@triton.jit
def _slopes(c: Poles, dt: tl.tensor, a: tl.tuple, b: tl.tuple) -> tl.tuple:
    """d(b)/dA = dt^2 phi1'(A dt): as a series where the closed form would cancel."""
    x, y = c.A[0] * dt, c.A[1] * dt
    near_re, near_im = tl.zeros_like(x) + 1.0, tl.zeros_like(y)
    for k in tl.static_range(14, 0, -1):
        # the ratio of the coefficients (k + 1) / (k + 2)! of z^k and z^(k - 1)
        next_re = (near_re * x - near_im * y) * ((k + 1) / (k * (k + 2))) + 1.0
        near_im = (near_re * y + near_im * x) * ((k + 1) / (k * (k + 2)))
        near_re = next_re
    far_re, far_im = times((dt * a[0] - b[0], dt * a[1] - b[1]), c.inverse)
    near = x * x + y * y < 0.25
    d_re = tl.where(near, dt * dt * 0.5 * near_re, far_re)
    return d_re, tl.where(near, dt * dt * 0.5 * near_im, far_im)


@triton.jit
def _advance(rule: Hold, at: Place, c: Poles, given: tl.tuple, h: tl.tuple) -> tl.tuple:
    x, dt = given
    a, b = _factors(c, dt)
    h = add(times(a, h), times(b, x))
    store(rule.x, at.at, h, at.inside)
    return h


@triton.jit
def _retreat(
    rule: Hold, at: Place, c: Poles, grads: Gradients, carry: tl.tuple, total: tl.tuple
) -> tl.tuple:
    x, dt = _read(rule, at)
    h = before(rule.h, rule.h0, at, 2)
    a, b = _factors(c, dt)
    g = add(carry, load(grads.h, at.at, at.inside, 2))
    store(rule.x, at.at, times_conj(g, b), at.inside)
    carry = times_conj(g, a)
    # dh/ddt = a (A h_before + x)
    slope = add(times(c.A, h), x)
    sum_lanes(slope[0] * carry[0] + slope[1] * carry[1], grads.dt, at)
    # dh/dA = dt a h_before + d x
    through_h = times_conj(carry, h)
    through_x = times_conj(g, times(_slopes(c, dt, a, b), x))
    to_A = dt * through_h[0] + through_x[0], dt * through_h[1] + through_x[1]
    return carry, add(total, to_A)


_FUNCTIONS = Functions(_constants, _read, _advance, _retreat)


def forward_(s: Inputs, h0: Tensor, x: Tensor) -> None:
    """Overwrites the drive `x` with the states."""
    rule = Hold(pole_rows(s.A), dense(s.dt), reals(x), reals(h0), None)
    scan(_FUNCTIONS, rule, x.shape, s.reset, rule.h0, parts=2)


def backward_(
    s: Inputs, h0: Tensor, x: Tensor, h: Tensor, grad_h: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of A and dt.

    Overwrites the drive `x` with its own gradient, and `carry`, the gradient of the last state,
    with that of h0.
    """
    # One row for each sequence and one column for each program, added up below in a fixed order.
    grad_A, grad_dt = torch.empty_like(carry), s.dt.new_empty(*s.dt.shape, blocks(x.shape[2]))
    rule = Hold(pole_rows(s.A), dense(s.dt), reals(x), reals(h0), reals(h))
    grads = Gradients(reals(grad_h), grad_dt)
    scan_back(_FUNCTIONS, rule, x.shape, s.reset, grads, reals(carry), reals(grad_A), parts=2)
    return grad_A.sum(0), grad_dt.sum(-1)
