"""Triton. One program per sequence and block of channels; the state stays in registers, time is the
loop inside.

On the way back a program recomputes the states of 32 steps from the kept one into a scratch area of
its own, then walks back through them. Sums over channels are written for each block and added up
afterwards in a fixed order: no atomic additions, so the result is the same every time.
"""

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense, flags
from longstate.ops._triton_math import sigmoid, softplus
from longstate.ops.selective_scan import CHUNK

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
def _column(x, row, g, state, n, constant, GROUPS: tl.constexpr, CONSTANT: tl.constexpr):
    """B or C at one time as (n, 1), or (n, d) where it is constant."""
    if CONSTANT:
        return constant
    at = (row * GROUPS + g) * n + state
    return tl.load(x + at, mask=state < n, other=0.0)[:, None]


@triton.jit
def _forward(
    u, dt, A, B, C, D, bias, z, mask, reset, h0, y, last, kept, steps, d, n,
    SMOOTH: tl.constexpr, GATE: tl.constexpr, MASK: tl.constexpr, RESET: tl.constexpr,
    KEEP: tl.constexpr, CONSTANT_B: tl.constexpr, CONSTANT_C: tl.constexpr,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr, LANES: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b, g, lane, within, inside, state, both, pair = _place(d, n, GROUPS, LANES, STATES)
    rate = tl.load(A + pair, mask=both, other=0.0)
    row_B = tl.load(B + pair, mask=both, other=0.0) if CONSTANT_B else rate
    row_C = tl.load(C + pair, mask=both, other=0.0) if CONSTANT_C else rate
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
        b_t = _column(B, row, g, state, n, row_B, GROUPS, CONSTANT_B)
        c_t = _column(C, row, g, state, n, row_C, GROUPS, CONSTANT_C)
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
    CONSTANT_B: tl.constexpr, CONSTANT_C: tl.constexpr,
    GROUPS: tl.constexpr, CHUNK: tl.constexpr, LANES: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b, g, lane, within, inside, state, both, pair = _place(d, n, GROUPS, LANES, STATES)
    rate = tl.load(A + pair, mask=both, other=0.0)
    row_B = tl.load(B + pair, mask=both, other=0.0) if CONSTANT_B else rate
    row_C = tl.load(C + pair, mask=both, other=0.0) if CONSTANT_C else rate
    direct = tl.load(D + lane, mask=inside, other=0.0)
    shift = tl.load(bias + lane, mask=inside, other=0.0)
    carry = tl.load(grad_h + b * d * n + pair, mask=both, other=0.0)
    sum_A, sum_B, sum_C = tl.zeros_like(rate), tl.zeros_like(rate), tl.zeros_like(rate)
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
            b_t = _column(B, row, g, state, n, row_B, GROUPS, CONSTANT_B)
            h = tl.exp(step[None, :] * rate) * h + (step * value)[None, :] * b_t
        tl.debug_barrier()
        for j in range(size):
            i = size - 1 - j
            row = b * steps + first + i
            at = row * d + lane
            here = _present(mask + row, within, d // GROUPS, MASK)
            step, slope = _step(dt, at, shift, here, SMOOTH)
            value = tl.load(u + at, mask=here, other=0.0).to(shift.dtype)
            b_t = _column(B, row, g, state, n, row_B, GROUPS, CONSTANT_B)
            c_t = _column(C, row, g, state, n, row_C, GROUPS, CONSTANT_C)
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
            if CONSTANT_B:
                sum_B += to_B
            else:
                at_B = ((part * steps + first + i) * GROUPS + g) * n + state
                tl.store(grad_B + at_B, tl.sum(to_B, axis=1), mask=state < n)
            if CONSTANT_C:
                sum_C += to_C
            else:
                at_C = ((part * steps + first + i) * GROUPS + g) * n + state
                tl.store(grad_C + at_C, tl.sum(to_C, axis=1), mask=state < n)
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
    if CONSTANT_B:
        tl.store(grad_B + at, sum_B, mask=both)
    if CONSTANT_C:
        tl.store(grad_C + at, sum_C, mask=both)
    tl.store(grad_D + b * d + lane, sum_D, mask=inside)
    tl.store(grad_bias + b * d + lane, sum_bias, mask=inside)


def _groups(B: Tensor, C: Tensor) -> int:
    return max(x.shape[2] if x.dim() == 4 else 1 for x in (B, C))


def _by_group(x: Tensor, groups: int) -> Tensor:
    if x.dim() == 2:
        return dense(x)
    x = x[:, :, None] if x.dim() == 3 else x
    return dense(x.expand(-1, -1, groups, -1))


def _arguments(u, dt, A, B, C, D, z, dt_bias, mask, reset, dt_softplus):
    groups = _groups(B, C)
    zero = A.new_zeros(len(A))
    tensors = (
        dense(u), dense(dt), dense(A), _by_group(B, groups), _by_group(C, groups),
        zero if D is None else dense(D.to(A.dtype)),
        zero if dt_bias is None else dense(dt_bias.to(A.dtype)),
        dense(u if z is None else z), flags(mask, u), flags(reset, u),
    )  # fmt: skip
    options = {
        "SMOOTH": dt_softplus, "GATE": z is not None, "MASK": mask is not None,
        "RESET": reset is not None, "CONSTANT_B": B.dim() == 2, "CONSTANT_C": C.dim() == 2,
        "GROUPS": groups, "CHUNK": CHUNK, "LANES": _LANES,
        "STATES": triton.next_power_of_2(A.shape[1]), "num_warps": 1,
    }  # fmt: skip
    grid = (u.shape[0], groups * triton.cdiv(u.shape[2] // groups, _LANES))
    return grid, tensors, options


def forward(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor,
    dt_bias: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    dt_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, d), n = u.shape, A.shape[1]
    grid, tensors, options = _arguments(u, dt, A, B, C, D, z, dt_bias, mask, reset, dt_softplus)
    y, last = u.new_empty(b, t, d), A.new_empty(b, d, n)
    kept = A.new_empty(b, triton.cdiv(t, CHUNK) if keep else 0, n, d)
    _forward[grid](*tensors, dense(h0), y, last, kept, t, d, n, KEEP=keep, **options)
    return y, last, kept


def backward(
    grad_y: Tensor | None,
    grad_last: Tensor | None,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    kept: Tensor,
    dt_bias: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    dt_softplus: bool,
) -> list[Tensor]:
    """Gradients of u, dt, A, B, C, D, z, h0 and dt_bias."""
    (b, t, d), n = u.shape, A.shape[1]
    grid, tensors, options = _arguments(u, dt, A, B, C, D, z, dt_bias, mask, reset, dt_softplus)
    groups = options["GROUPS"]
    grad_y = u.new_zeros(b, t, d) if grad_y is None else dense(grad_y)
    grad_h = A.new_zeros(b, d, n) if grad_last is None else dense(grad_last.to(A.dtype)).clone()
    grad_u, grad_dt = u.new_empty(b, t, d), dt.new_empty(b, t, d)
    grad_z = u.new_empty(0) if z is None else z.new_empty(b, t, d)
    grad_A, grad_D, grad_bias = A.new_empty(b, d, n), A.new_empty(b, d), A.new_empty(b, d)
    by_time = (grid[1] // groups, b, t, groups, n)
    grad_B, grad_C = (A.new_empty((b, d, n) if x.dim() == 2 else by_time) for x in (B, C))
    _backward[grid](
        *tensors, kept, A.new_empty(b, CHUNK, n, d), grad_y, grad_h, grad_u, grad_dt,
        grad_A, grad_B, grad_C, grad_D, grad_bias, grad_z, t, d, n, **options,
    )  # fmt: skip
    return [
        grad_u,
        grad_dt,
        grad_A.sum(0),
        _like(grad_B.sum(0), B),
        _like(grad_C.sum(0), C),
        grad_D.sum(0).to(A.dtype if D is None else D.dtype),
        grad_z,
        grad_h,
        grad_bias.sum(0).to(A.dtype if dt_bias is None else dt_bias.dtype),
    ]


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient in the form of `x`, from (d, n) or (b, t, g, n)."""
    if x.dim() == 3:
        return grad.sum(2)
    return grad.sum(2, keepdim=True) if x.dim() == 4 and x.shape[2] < grad.shape[2] else grad
