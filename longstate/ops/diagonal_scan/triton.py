"""Triton. One program per sequence and block of states; time is the loop inside.

Bound by memory, like the CPU form, and as exact: the products of decays that a parallel scan needs
could overflow where the recurrence does not. The next step's operands are loaded while the present
step is computed. Complex numbers are pairs of reals.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense, flags, reals
from longstate.ops.diagonal_scan import Inputs

_LANES = 32  # one warp; small, so that a batch of 8 with 256 states still gives 64 programs


@triton.jit
def _load(pointer, at, inside, COMPLEX: tl.constexpr):
    if COMPLEX:
        return (
            tl.load(pointer + 2 * at, mask=inside, other=0.0),
            tl.load(pointer + 2 * at + 1, mask=inside, other=0.0),
        )
    re = tl.load(pointer + at, mask=inside, other=0.0)
    return re, re  # the imaginary part of a real number is never looked at


@triton.jit
def _store(pointer, at, re, im, inside, COMPLEX: tl.constexpr):
    if COMPLEX:
        tl.store(pointer + 2 * at, re, mask=inside)
        tl.store(pointer + 2 * at + 1, im, mask=inside)
    else:
        tl.store(pointer + at, re, mask=inside)


@triton.jit
def _times(a_re, a_im, b_re, b_im, COMPLEX: tl.constexpr):
    if COMPLEX:
        return a_re * b_re - a_im * b_im, a_re * b_im + a_im * b_re
    return a_re * b_re, a_im


@triton.jit
def _times_conj(a_re, a_im, b_re, b_im, COMPLEX: tl.constexpr):
    if COMPLEX:
        return a_re * b_re + a_im * b_im, a_im * b_re - a_re * b_im
    return a_re * b_re, a_im


@triton.jit
def _forward(
    a, x, h0, reset, h, steps, n,
    VARYING: tl.constexpr, HAS_RESET: tl.constexpr, COMPLEX: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = lane < n
    h_re, h_im = _load(h0, b * n + lane, inside, COMPLEX)
    at = b * steps * n + lane
    x_re, x_im = _load(x, at, inside, COMPLEX)
    a_re, a_im = _load(a, at if VARYING else lane, inside, COMPLEX)
    for t in range(steps):
        following = at + n
        more = lane < tl.where(t + 1 < steps, n, 0)
        next_re, next_im = _load(x, following, more, COMPLEX)
        h_re, h_im = _times(a_re, a_im, h_re, h_im, COMPLEX)
        if HAS_RESET:
            forget = tl.load(reset + b * steps + t) != 0
            h_re, h_im = tl.where(forget, 0.0, h_re), tl.where(forget, 0.0, h_im)
        h_re, h_im = h_re + x_re, h_im + x_im
        _store(h, at, h_re, h_im, inside, COMPLEX)
        if VARYING:
            a_re, a_im = _load(a, following, more, COMPLEX)
        x_re, x_im, at = next_re, next_im, following


@triton.jit
def _backward(
    a, h0, h, reset, grad_h, carry, grad_a, grad_x, steps, n,
    VARYING: tl.constexpr, HAS_RESET: tl.constexpr, COMPLEX: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = lane < n
    # g: gradient of the state at t, all later steps included
    g_re, g_im = _load(carry, b * n + lane, inside, COMPLEX)
    a_re, a_im = _load(a, lane, inside, COMPLEX)
    sum_re, sum_im = tl.zeros_like(g_re), tl.zeros_like(g_im)
    for back in range(steps):
        t = steps - 1 - back
        at = (b * steps + t) * n + lane
        if VARYING:
            a_re, a_im = _load(a, at, inside, COMPLEX)
        new_re, new_im = _load(grad_h, at, inside, COMPLEX)
        before_re, before_im = _load(h, at - n, lane < tl.where(t > 0, n, 0), COMPLEX)
        first_re, first_im = _load(h0, b * n + lane, lane < tl.where(t > 0, 0, n), COMPLEX)
        before_re, before_im = before_re + first_re, before_im + first_im
        g_re, g_im = g_re + new_re, g_im + new_im
        _store(grad_x, at, g_re, g_im, inside, COMPLEX)
        to_a_re, to_a_im = _times_conj(g_re, g_im, before_re, before_im, COMPLEX)
        g_re, g_im = _times_conj(g_re, g_im, a_re, a_im, COMPLEX)
        if HAS_RESET:
            forget = tl.load(reset + b * steps + t) != 0
            to_a_re, to_a_im = tl.where(forget, 0.0, to_a_re), tl.where(forget, 0.0, to_a_im)
            g_re, g_im = tl.where(forget, 0.0, g_re), tl.where(forget, 0.0, g_im)
        if VARYING:
            _store(grad_a, at, to_a_re, to_a_im, inside, COMPLEX)
        else:
            sum_re, sum_im = sum_re + to_a_re, sum_im + to_a_im
    if not VARYING:
        _store(grad_a, b * n + lane, sum_re, sum_im, inside, COMPLEX)
    _store(carry, b * n + lane, g_re, g_im, inside, COMPLEX)


def _grid(x: Tensor) -> tuple[int, int]:
    return x.shape[0], triton.cdiv(x.shape[2], _LANES)


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    x, n = s.x, s.x.shape[2]
    h0 = x.new_zeros(x.shape[0], n) if s.h0 is None else s.h0
    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    _forward[_grid(x)](
        reals(s.a), reals(x), reals(h0), flags(s.reset, x), reals(h), x.shape[1], n,
        VARYING=s.a.dim() > 1, HAS_RESET=s.reset is not None, COMPLEX=x.is_complex(),
        LANES=_LANES, num_warps=1,
    )  # fmt: skip
    return h, h[:, -1].clone()


def backward(s: Inputs, h0: Tensor, h: Tensor, grad_h: Tensor, carry: Tensor) -> dict[str, Tensor]:
    """Overwrites `carry`, the gradient of the last state, with that of h0."""
    carry, constant = dense(carry), s.a.dim() == 1
    grad_x = torch.empty_like(h)
    # Constant `a`: one row of sums for each sequence, added up below in a fixed order.
    grad_a = torch.empty_like(carry if constant else h)
    _backward[_grid(h)](
        reals(s.a), reals(h0), reals(h), flags(s.reset, h), reals(grad_h), reals(carry),
        reals(grad_a), reals(grad_x), h.shape[1], h.shape[2],
        VARYING=not constant, HAS_RESET=s.reset is not None, COMPLEX=h.is_complex(),
        LANES=_LANES, num_warps=1,
    )  # fmt: skip
    return {"a": grad_a.sum(0) if constant else grad_a, "x": grad_x, "h0": carry}
