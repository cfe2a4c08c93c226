"""Triton. One program per sequence and block of channels; the state stays in registers, time is the
loop inside.

On the way back a program recomputes the states of 32 steps from the kept one into a scratch area of
its own, then walks back through them. Sums over channels are written for each block and added up
afterwards in a fixed order: no atomic additions, so the result is the same every time.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import CHUNK, dense, flags
from longstate.ops._triton import sigmoid, softplus
from longstate.ops.selective_scan import Inputs

_LANES = 32  # channels per program: one warp


@triton.jit
def _place(d, n, GROUPS: tl.constexpr, LANES: tl.constexpr, STATES: tl.constexpr):
    """Sequence, group, channels and which of them exist; states; offsets in (d, n), as (n, d)."""
    b = tl.program_id(0).to(tl.int64)
    per = tl.num_programs(1) // GROUPS
    g = tl.program_id(1) // per
    within = (tl.program_id(1) % per) * LANES + tl.arange(0, LANES)
    lane = g * (d // GROUPS) + within
    inside = within < d // GROUPS
    state = tl.arange(0, STATES)
    both = (state < n)[:, None] & inside[None, :]
    return b, g, lane, within, inside, state, both, lane[None, :] * n + state[:, None]


@triton.jit
def _present(mask, within, width, MASK: tl.constexpr):
    """The channels that have a sample at one time: all or none of a sequence's."""
    if MASK:
        width = tl.where(tl.load(mask) != 0, width, 0)
    return within < width


@triton.jit
def _step(dt, at, bias, here, SMOOTH: tl.constexpr):
    """The step at one time, and its slope in `dt` as given."""
    raw = tl.load(dt + at, mask=here, other=0.0).to(bias.dtype) + bias
    slope = tl.full(raw.shape, 1.0, raw.dtype)
    if SMOOTH:
        slope = sigmoid(raw)
        raw = softplus(raw)
    return tl.where(here, raw, 0.0), slope


@triton.jit
def _column(x, row, g, state, n, GROUPS: tl.constexpr):
    """B or C at one time as (n, 1)."""
    at = (row * GROUPS + g) * n + state
    return tl.load(x + at, mask=state < n, other=0.0)[:, None]


@triton.jit
def _forward(
    u, dt, A, B, C, D, bias, z, mask, reset, h0, y, last, kept, steps, d, n,
    SMOOTH: tl.constexpr, GATE: tl.constexpr, MASK: tl.constexpr, RESET: tl.constexpr,
    KEEP: tl.constexpr,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr, LANES: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b, g, lane, within, inside, state, both, pair = _place(d, n, GROUPS, LANES, STATES)
    rate = tl.load(A + pair, mask=both, other=0.0)
    direct = tl.load(D + lane, mask=inside, other=0.0)
    shift = tl.load(bias + lane, mask=inside, other=0.0)
    h = tl.load(h0 + b * d * n + pair, mask=both, other=0.0)
    chunks = (steps + CHUNK - 1) // CHUNK
    for t in range(steps):
        if KEEP:  # noqa: SIM102 (apart, so that nothing is compiled where it is off)
            if t % CHUNK == 0:
                at_kept = ((b * chunks + t // CHUNK) * n + state[:, None]) * d + lane[None, :]
                tl.store(kept + at_kept, h, mask=both)
        row = b * steps + t
        at = row * d + lane
        here = _present(mask + row, within, d // GROUPS, MASK)
        if RESET:
            h = tl.where(tl.load(reset + row) != 0, 0.0, h)
        step, _ = _step(dt, at, shift, here, SMOOTH)
        value = tl.load(u + at, mask=here, other=0.0).to(shift.dtype)
        b_t = _column(B, row, g, state, n, GROUPS)
        c_t = _column(C, row, g, state, n, GROUPS)
        h = tl.exp(step[None, :] * rate) * h + (step * value)[None, :] * b_t
        out = tl.sum(h * c_t, axis=0) + direct * value
        if GATE:
            gate = tl.load(z + at, mask=here, other=0.0).to(shift.dtype)
            out = out * gate * sigmoid(gate)
        out = tl.where(here, out, 0.0)
        tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)
    tl.store(last + b * d * n + pair, h, mask=both)


@triton.jit
def _backward(
    u, dt, A, B, C, D, bias, z, mask, reset, kept, scratch, grad_y, grad_h,
    grad_u, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_bias, grad_z, steps, d, n,
    SMOOTH: tl.constexpr, GATE: tl.constexpr, MASK: tl.constexpr, RESET: tl.constexpr,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr, LANES: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b, g, lane, within, inside, state, both, pair = _place(d, n, GROUPS, LANES, STATES)
    rate = tl.load(A + pair, mask=both, other=0.0)
    direct = tl.load(D + lane, mask=inside, other=0.0)
    shift = tl.load(bias + lane, mask=inside, other=0.0)
    carry = tl.load(grad_h + b * d * n + pair, mask=both, other=0.0)
    sum_A = tl.zeros_like(rate)
    sum_D, sum_bias = tl.zeros_like(direct), tl.zeros_like(direct)
    chunks = (steps + CHUNK - 1) // CHUNK
    in_scratch = (b * CHUNK * n + state[:, None]) * d + lane[None, :]
    per = tl.num_programs(1) // GROUPS
    part = (tl.program_id(1) % per) * tl.num_programs(0) + b  # of the sums over channels
    for back in range(chunks):
        first = (chunks - 1 - back) * CHUNK
        size = tl.minimum(CHUNK, steps - first)
        at_kept = ((b * chunks + first // CHUNK) * n + state[:, None]) * d + lane[None, :]
        h = tl.load(kept + at_kept, mask=both, other=0.0)
        for i in range(size):
            row = b * steps + first + i
            at = row * d + lane
            here = _present(mask + row, within, d // GROUPS, MASK)
            if RESET:
                h = tl.where(tl.load(reset + row) != 0, 0.0, h)
            tl.store(scratch + in_scratch + i * n * d, h, mask=both)
            step, _ = _step(dt, at, shift, here, SMOOTH)
            value = tl.load(u + at, mask=here, other=0.0).to(shift.dtype)
            b_t = _column(B, row, g, state, n, GROUPS)
            h = tl.exp(step[None, :] * rate) * h + (step * value)[None, :] * b_t
        tl.debug_barrier()
        for j in range(size):
            i = size - 1 - j
            row = b * steps + first + i
            at = row * d + lane
            here = _present(mask + row, within, d // GROUPS, MASK)
            step, slope = _step(dt, at, shift, here, SMOOTH)
            value = tl.load(u + at, mask=here, other=0.0).to(shift.dtype)
            b_t = _column(B, row, g, state, n, GROUPS)
            c_t = _column(C, row, g, state, n, GROUPS)
            before = tl.load(scratch + in_scratch + i * n * d, mask=both, other=0.0)
            decay = tl.exp(step[None, :] * rate)
            decayed = decay * before
            h = decayed + (step * value)[None, :] * b_t
            g_y = tl.load(grad_y + at, mask=here, other=0.0).to(shift.dtype)
            if GATE:
                gate = tl.load(z + at, mask=here, other=0.0).to(shift.dtype)
                s = sigmoid(gate)
                out = tl.sum(h * c_t, axis=0) + direct * value
                to_gate = g_y * out * (s + gate * (s - s * s))
                to_gate = tl.where(here, to_gate, 0.0)
                tl.store(grad_z + at, to_gate.to(grad_z.dtype.element_ty), mask=inside)
                g_y = g_y * gate * s
            carry += g_y[None, :] * c_t
            to_B, to_C = carry * (step * value)[None, :], g_y[None, :] * h
            at_shared = ((part * steps + first + i) * GROUPS + g) * n + state
            tl.store(grad_B + at_shared, tl.sum(to_B, axis=1), mask=state < n)
            tl.store(grad_C + at_shared, tl.sum(to_C, axis=1), mask=state < n)
            through_decay = carry * decayed
            sum_A += through_decay * step[None, :]
            to_product = tl.sum(carry * b_t, axis=0)  # of step * value
            to_step = (tl.sum(through_decay * rate, axis=0) + to_product * value) * slope
            to_step = tl.where(here, to_step, 0.0)
            to_value = tl.where(here, to_product * step + g_y * direct, 0.0)
            tl.store(grad_dt + at, to_step.to(grad_dt.dtype.element_ty), mask=inside)
            tl.store(grad_u + at, to_value.to(grad_u.dtype.element_ty), mask=inside)
            sum_D += g_y * value
            sum_bias += to_step
            carry = carry * decay
            if RESET:
                carry = tl.where(tl.load(reset + row) != 0, 0.0, carry)
        tl.debug_barrier()
    at = b * d * n + pair
    tl.store(grad_h + at, carry, mask=both)
    tl.store(grad_A + at, sum_A, mask=both)
    tl.store(grad_D + b * d + lane, sum_D, mask=inside)
    tl.store(grad_bias + b * d + lane, sum_bias, mask=inside)


def _by_group(x: Tensor, groups: int) -> Tensor:
    x = x[:, :, None] if x.dim() == 3 else x
    return dense(x.expand(-1, -1, groups, -1))


def _launch(s: Inputs) -> tuple[tuple[int, int], tuple[Tensor, ...], dict[str, Any]]:
    """The grid, the tensors that both kernels read, and their options."""
    zero = s.A.new_zeros(len(s.A))
    tensors = (
        dense(s.u), dense(s.dt), dense(s.A), _by_group(s.B, s.groups), _by_group(s.C, s.groups),
        zero if s.D is None else dense(s.D.to(s.A.dtype)),
        zero if s.dt_bias is None else dense(s.dt_bias.to(s.A.dtype)),
        dense(s.u if s.z is None else s.z), flags(s.mask, s.u), flags(s.reset, s.u),
    )  # fmt: skip
    options = {
        "SMOOTH": s.dt_softplus, "GATE": s.z is not None, "MASK": s.mask is not None,
        "RESET": s.reset is not None, "GROUPS": s.groups, "CHUNK": CHUNK, "LANES": _LANES,
        "STATES": triton.next_power_of_2(s.A.shape[1]), "num_warps": 1,
    }  # fmt: skip
    grid = (s.u.shape[0], s.groups * triton.cdiv(s.u.shape[2] // s.groups, _LANES))
    return grid, tensors, options


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, d), n = s.u.shape, s.A.shape[1]
    grid, tensors, options = _launch(s)
    y, last = s.u.new_empty(b, t, d), s.A.new_empty(b, d, n)
    kept = s.A.new_empty(b, triton.cdiv(t, CHUNK) if s.keep else 0, n, d)
    _forward[grid](*tensors, dense(s.h0), y, last, kept, t, d, n, KEEP=s.keep, **options)
    return y, last, kept


def backward(
    s: Inputs, states: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor]:
    (b, t, d), n, A = s.u.shape, s.A.shape[1], s.A
    grid, tensors, options = _launch(s)
    grad_y = s.u.new_zeros(b, t, d) if grad_y is None else dense(grad_y)
    grad_h = A.new_zeros(b, d, n) if grad_last is None else dense(grad_last.to(A.dtype)).clone()
    grad_u, grad_dt = s.u.new_empty(b, t, d), s.dt.new_empty(b, t, d)
    grad_z = s.u.new_empty(0) if s.z is None else s.z.new_empty(b, t, d)
    grad_A, grad_D, grad_bias = A.new_empty(b, d, n), A.new_empty(b, d), A.new_empty(b, d)
    grad_B, grad_C = A.new_empty(2, grid[1] // s.groups, b, t, s.groups, n)
    _backward[grid](
        *tensors, states, A.new_empty(b, CHUNK, n, d), grad_y, grad_h, grad_u, grad_dt,
        grad_A, grad_B, grad_C, grad_D, grad_bias, grad_z, t, d, n, **options,
    )  # fmt: skip
    return {
        "u": grad_u,
        "dt": grad_dt,
        "A": grad_A.sum(0),
        "B": _like(grad_B.sum(0), s.B),
        "C": _like(grad_C.sum(0), s.C),
        "D": grad_D.sum(0).to(A.dtype if s.D is None else s.D.dtype),
        "z": grad_z,
        "h0": grad_h,
        "dt_bias": grad_bias.sum(0).to(A.dtype if s.dt_bias is None else s.dt_bias.dtype),
    }


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient in the form of `x`, from (b, t, g, n)."""
    if x.dim() == 3:
        return grad.sum(2)
    return grad.sum(2, keepdim=True) if x.shape[2] < grad.shape[2] else grad
