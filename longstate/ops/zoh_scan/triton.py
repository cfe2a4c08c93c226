"""Triton. One program per sequence and block of states; time is the loop inside.

The factors exp(A dt) and (exp(A dt) - 1) / A live in registers. The rounding of the product A dt
is recovered with a fused multiply-add, so that the phase of a fast oscillation survives float32.
States overwrite the drive in place, and its gradient overwrites the recomputed drive.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense, flags, reals
from longstate.ops.zoh_scan import Inputs, pole_rows

_LANES = 32  # one warp; small, so that a small batch still gives many programs


@triton.jit
def _load(pointer, at, inside):
    return (
        tl.load(pointer + 2 * at, mask=inside, other=0.0),
        tl.load(pointer + 2 * at + 1, mask=inside, other=0.0),
    )


@triton.jit
def _store(pointer, at, re, im, inside):
    tl.store(pointer + 2 * at, re, mask=inside)
    tl.store(pointer + 2 * at + 1, im, mask=inside)


@triton.jit
def _exp_minus_1(x):
    """Series where exp(x) - 1 would cancel."""
    near = 1.0 + x * (1.0 / 14)
    for k in tl.static_range(13, 1, -1):
        near = 1.0 + x * (1.0 / k) * near
    return tl.where(tl.abs(x) < 0.35, x * near, tl.exp(x) - 1.0)


@triton.jit
def _factors(A_re, A_im, inv_re, inv_im, at_zero, dt):
    """exp(A dt) and (exp(A dt) - 1) / A."""
    x, y = A_re * dt, A_im * dt
    x_lost, y_lost = tl.fma(A_re, dt, -x), tl.fma(A_im, dt, -y)
    e, over = tl.exp(x), _exp_minus_1(x)
    e, over = e + x_lost * e, over + x_lost * e
    half = tl.sin(0.5 * y)
    s, c, lost = tl.sin(y), tl.cos(y), -2.0 * half * half
    s, c, lost = s + y_lost * c, c - y_lost * s, lost - y_lost * s
    over_re, over_im = over * c + lost, e * s
    b_re = over_re * inv_re - over_im * inv_im + at_zero * dt
    b_im = over_re * inv_im + over_im * inv_re
    return e * c, e * s, b_re, b_im


@triton.jit
def _slopes(A_re, A_im, inv_re, inv_im, dt, a_re, a_im, b_re, b_im):
    """d(b)/dA = dt^2 phi1'(A dt): as a series where the closed form would cancel."""
    x, y = A_re * dt, A_im * dt
    near_re, near_im = tl.zeros_like(x) + 1.0, tl.zeros_like(y)
    for k in tl.static_range(14, 0, -1):
        # the ratio of the coefficients (k + 1) / (k + 2)! of z^k and z^(k - 1)
        next_re = (near_re * x - near_im * y) * ((k + 1) / (k * (k + 2))) + 1.0
        near_im = (near_re * y + near_im * x) * ((k + 1) / (k * (k + 2)))
        near_re = next_re
    far_re, far_im = dt * a_re - b_re, dt * a_im - b_im
    near = x * x + y * y < 0.25
    d_re = tl.where(near, dt * dt * 0.5 * near_re, far_re * inv_re - far_im * inv_im)
    d_im = tl.where(near, dt * dt * 0.5 * near_im, far_re * inv_im + far_im * inv_re)
    return d_re, d_im


@triton.jit
def _constants(A, n, lane, inside):
    """Rows of A: real and imaginary part, those of 1 / A, and 1 where A is 0."""
    A_re = tl.load(A + lane, mask=inside, other=0.0)
    A_im = tl.load(A + n + lane, mask=inside, other=0.0)
    inv_re = tl.load(A + 2 * n + lane, mask=inside, other=0.0)
    inv_im = tl.load(A + 3 * n + lane, mask=inside, other=0.0)
    return A_re, A_im, inv_re, inv_im, tl.load(A + 4 * n + lane, mask=inside, other=0.0)


@triton.jit
def _forward(A, dt, h0, reset, x, steps, n, HAS_RESET: tl.constexpr, LANES: tl.constexpr):
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = lane < n
    A_re, A_im, inv_re, inv_im, at_zero = _constants(A, n, lane, inside)
    h_re, h_im = _load(h0, b * n + lane, inside)
    at = b * steps * n + lane
    for t in range(steps):
        step = tl.load(dt + b * steps + t)
        x_re, x_im = _load(x, at, inside)
        a_re, a_im, b_re, b_im = _factors(A_re, A_im, inv_re, inv_im, at_zero, step)
        past_re, past_im = a_re * h_re - a_im * h_im, a_re * h_im + a_im * h_re
        if HAS_RESET:
            forget = tl.load(reset + b * steps + t) != 0
            past_re, past_im = tl.where(forget, 0.0, past_re), tl.where(forget, 0.0, past_im)
        h_re = past_re + (b_re * x_re - b_im * x_im)
        h_im = past_im + (b_re * x_im + b_im * x_re)
        _store(x, at, h_re, h_im, inside)
        at += n


@triton.jit
def _backward(
    A, dt, x, h0, reset, h, grad_h, carry, grad_A, grad_dt, steps, n,
    HAS_RESET: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = lane < n
    A_re, A_im, inv_re, inv_im, at_zero = _constants(A, n, lane, inside)
    # c: what the later steps add to the gradient of this state
    c_re, c_im = _load(carry, b * n + lane, inside)
    sum_re, sum_im = tl.zeros_like(c_re), tl.zeros_like(c_im)
    for back in range(steps):
        t = steps - 1 - back
        at = (b * steps + t) * n + lane
        step = tl.load(dt + b * steps + t)
        x_re, x_im = _load(x, at, inside)
        new_re, new_im = _load(grad_h, at, inside)
        h_re, h_im = _load(h, at - n, lane < tl.where(t > 0, n, 0))
        first_re, first_im = _load(h0, b * n + lane, lane < tl.where(t > 0, 0, n))
        h_re, h_im = h_re + first_re, h_im + first_im
        if HAS_RESET:
            forget = tl.load(reset + b * steps + t) != 0
            h_re, h_im = tl.where(forget, 0.0, h_re), tl.where(forget, 0.0, h_im)
        a_re, a_im, b_re, b_im = _factors(A_re, A_im, inv_re, inv_im, at_zero, step)
        d_re, d_im = _slopes(A_re, A_im, inv_re, inv_im, step, a_re, a_im, b_re, b_im)
        g_re, g_im = c_re + new_re, c_im + new_im
        _store(x, at, b_re * g_re + b_im * g_im, b_re * g_im - b_im * g_re, inside)
        c_re, c_im = a_re * g_re + a_im * g_im, a_re * g_im - a_im * g_re
        # dh/ddt = a (A h_before + x), dh/dA = dt a h_before + d x
        slope_re = A_re * h_re - A_im * h_im + x_re
        slope_im = A_re * h_im + A_im * h_re + x_im
        to_dt = tl.sum(tl.where(inside, slope_re * c_re + slope_im * c_im, 0.0), axis=0)
        tl.store(grad_dt + (b * steps + t) * tl.num_programs(1) + tl.program_id(1), to_dt)
        dx_re, dx_im = d_re * x_re - d_im * x_im, d_re * x_im + d_im * x_re
        sum_re += step * (h_re * c_re + h_im * c_im) + (dx_re * g_re + dx_im * g_im)
        sum_im += step * (h_re * c_im - h_im * c_re) + (dx_re * g_im - dx_im * g_re)
        if HAS_RESET:
            c_re, c_im = tl.where(forget, 0.0, c_re), tl.where(forget, 0.0, c_im)
    _store(grad_A, b * n + lane, sum_re, sum_im, inside)
    _store(carry, b * n + lane, c_re, c_im, inside)


def _grid(x: Tensor) -> tuple[int, int]:
    return x.shape[0], triton.cdiv(x.shape[2], _LANES)


def forward_(s: Inputs, h0: Tensor, x: Tensor) -> None:
    """Overwrites the drive `x` with the states."""
    _forward[_grid(x)](
        pole_rows(s.A), dense(s.dt), reals(h0), flags(s.reset, x), reals(x), x.shape[1], x.shape[2],
        HAS_RESET=s.reset is not None, LANES=_LANES, num_warps=1,
    )  # fmt: skip


def backward_(
    s: Inputs, h0: Tensor, x: Tensor, h: Tensor, grad_h: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of A and dt.

    Overwrites the drive `x` with its own gradient, and `carry`, the gradient of the last state,
    with that of h0.
    """
    # One row for each sequence and one column for each program, added up below in a fixed order.
    grad_A = torch.empty_like(carry)
    grad_dt = s.dt.new_empty(*s.dt.shape, _grid(x)[1])
    _backward[_grid(x)](
        pole_rows(s.A), dense(s.dt), reals(x), reals(h0), flags(s.reset, x), reals(h),
        reals(grad_h), reals(carry), reals(grad_A), grad_dt, x.shape[1], x.shape[2],
        HAS_RESET=s.reset is not None, LANES=_LANES, num_warps=1,
    )  # fmt: skip
    return grad_A.sum(0), grad_dt.sum(-1)
