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
from longstate.ops._triton import sigmoid
from longstate.ops.longhorn_scan import Inputs

_LANES = 32  # channels per program: one warp


@triton.jit
def _present(mask, lane, d, MASK: tl.constexpr):
    """The channels that have a sample at one time: all or none of a sequence's."""
    if MASK:
        d = tl.where(tl.load(mask) != 0, d, 0)
    return lane < d


@triton.jit
def _rate(beta, at, bias, size, here, SQUASH: tl.constexpr):
    """e at one time, and its slope in `beta` as given."""
    weight = tl.load(beta + at, mask=here, other=0.0).to(bias.dtype) + bias
    slope = tl.full(weight.shape, 1.0, weight.dtype)
    if SQUASH:
        weight = sigmoid(weight)
        slope = weight * (1.0 - weight)
    shrink = 1.0 / (1.0 + weight * tl.load(size))
    return tl.where(here, weight * shrink, 0.0), slope * shrink * shrink


@triton.jit
def _update(h, rate, value, key, EXACT: tl.constexpr):
    """The state (n, d) after a step."""
    if EXACT:
        return h + (rate * (value - tl.sum(h * key, axis=0)))[None, :] * key
    return (1.0 - rate[None, :] * key * key) * h + (rate * value)[None, :] * key


@triton.jit
def _forward(
    x, beta, k, q, size, D, bias, z, mask, reset, h0, y, last, kept, steps, d, n,
    SQUASH: tl.constexpr, EXACT: tl.constexpr, GATE: tl.constexpr, MASK: tl.constexpr,
    RESET: tl.constexpr, KEEP: tl.constexpr,
    CHUNK: tl.constexpr, LANES: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside, state = lane < d, tl.arange(0, STATES)
    both = (state < n)[:, None] & inside[None, :]
    pair = b * d * n + lane[None, :] * n + state[:, None]
    direct = tl.load(D + lane, mask=inside, other=0.0)
    shift = tl.load(bias + lane, mask=inside, other=0.0)
    h = tl.load(h0 + pair, mask=both, other=0.0)
    chunks = (steps + CHUNK - 1) // CHUNK
    for t in range(steps):
        if KEEP:  # noqa: SIM102 (apart, so that nothing is compiled where it is off)
            if t % CHUNK == 0:
                at_kept = ((b * chunks + t // CHUNK) * n + state[:, None]) * d + lane[None, :]
                tl.store(kept + at_kept, h, mask=both)
        row = b * steps + t
        at = row * d + lane
        here = _present(mask + row, lane, d, MASK)
        if RESET:
            h = tl.where(tl.load(reset + row) != 0, 0.0, h)
        rate, _ = _rate(beta, at, shift, size + row, here, SQUASH)
        value = tl.load(x + at, mask=here, other=0.0).to(shift.dtype)
        key = tl.load(k + row * n + state, mask=state < n, other=0.0)[:, None]
        query = tl.load(q + row * n + state, mask=state < n, other=0.0)[:, None]
        h = _update(h, rate, value, key, EXACT)
        out = tl.sum(h * query, axis=0) + direct * value
        if GATE:
            gate = tl.load(z + at, mask=here, other=0.0).to(shift.dtype)
            out = out * gate * sigmoid(gate)
        out = tl.where(here, out, 0.0)
        tl.store(y + at, out.to(y.dtype.element_ty), mask=inside)
    tl.store(last + pair, h, mask=both)


@triton.jit
def _backward(
    x, beta, k, q, size, D, bias, z, mask, reset, kept, scratch, grad_y, grad_h,
    grad_x, grad_beta, grad_k, grad_q, grad_size, grad_D, grad_bias, grad_z, steps, d, n,
    SQUASH: tl.constexpr, EXACT: tl.constexpr, GATE: tl.constexpr, MASK: tl.constexpr,
    RESET: tl.constexpr, CHUNK: tl.constexpr, LANES: tl.constexpr, STATES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside, state = lane < d, tl.arange(0, STATES)
    both = (state < n)[:, None] & inside[None, :]
    pair = b * d * n + lane[None, :] * n + state[:, None]
    direct = tl.load(D + lane, mask=inside, other=0.0)
    shift = tl.load(bias + lane, mask=inside, other=0.0)
    carry = tl.load(grad_h + pair, mask=both, other=0.0)
    sum_D, sum_bias = tl.zeros_like(direct), tl.zeros_like(direct)
    chunks = (steps + CHUNK - 1) // CHUNK
    in_scratch = (b * CHUNK * n + state[:, None]) * d + lane[None, :]
    part = tl.program_id(1) * tl.num_programs(0) + b  # of the sums over channels
    for back in range(chunks):
        first = (chunks - 1 - back) * CHUNK
        count = tl.minimum(CHUNK, steps - first)
        at_kept = ((b * chunks + first // CHUNK) * n + state[:, None]) * d + lane[None, :]
        h = tl.load(kept + at_kept, mask=both, other=0.0)
        for i in range(count):
            row = b * steps + first + i
            at = row * d + lane
            here = _present(mask + row, lane, d, MASK)
            if RESET:
                h = tl.where(tl.load(reset + row) != 0, 0.0, h)
            tl.store(scratch + in_scratch + i * n * d, h, mask=both)
            rate, _ = _rate(beta, at, shift, size + row, here, SQUASH)
            value = tl.load(x + at, mask=here, other=0.0).to(shift.dtype)
            key = tl.load(k + row * n + state, mask=state < n, other=0.0)[:, None]
            h = _update(h, rate, value, key, EXACT)
        tl.debug_barrier()
        for j in range(count):
            i = count - 1 - j
            row = b * steps + first + i
            at = row * d + lane
            here = _present(mask + row, lane, d, MASK)
            rate, slope = _rate(beta, at, shift, size + row, here, SQUASH)
            value = tl.load(x + at, mask=here, other=0.0).to(shift.dtype)
            key = tl.load(k + row * n + state, mask=state < n, other=0.0)[:, None]
            query = tl.load(q + row * n + state, mask=state < n, other=0.0)[:, None]
            before = tl.load(scratch + in_scratch + i * n * d, mask=both, other=0.0)
            h = _update(before, rate, value, key, EXACT)
            g_y = tl.load(grad_y + at, mask=here, other=0.0).to(shift.dtype)
            if GATE:
                gate = tl.load(z + at, mask=here, other=0.0).to(shift.dtype)
                s = sigmoid(gate)
                out = tl.sum(h * query, axis=0) + direct * value
                to_gate = tl.where(here, g_y * out * (s + gate * (s - s * s)), 0.0)
                tl.store(grad_z + at, to_gate.to(grad_z.dtype.element_ty), mask=inside)
                g_y = g_y * gate * s
            carry += g_y[None, :] * query
            to_query = tl.sum(g_y[None, :] * h, axis=1)
            if EXACT:
                miss = value - tl.sum(before * key, axis=0)
                through = tl.sum(carry * key, axis=0)  # gradient of how far the state moves
                to_rate = through * miss
                to_value = through * rate
                to_key = carry * (rate * miss)[None, :] - before * (rate * through)[None, :]
                carry = carry - (rate * through)[None, :] * key
            else:
                to_decay = carry * before
                to_drive = tl.sum(carry * key, axis=0)
                to_rate = to_drive * value - tl.sum(to_decay * key * key, axis=0)
                to_value = to_drive * rate
                to_key = carry * (rate * value)[None, :] - 2.0 * key * rate[None, :] * to_decay
                carry = carry * (1.0 - rate[None, :] * key * key)
            at_key = (part * steps + first + i) * n + state
            tl.store(grad_k + at_key, tl.sum(to_key, axis=1), mask=state < n)
            tl.store(grad_q + at_key, to_query, mask=state < n)
            to_rate = tl.where(here, to_rate, 0.0)
            tl.store(grad_size + part * steps + first + i, -tl.sum(to_rate * rate * rate, axis=0))
            to_weight = to_rate * slope
            to_value = tl.where(here, to_value + g_y * direct, 0.0)
            tl.store(grad_beta + at, to_weight.to(grad_beta.dtype.element_ty), mask=inside)
            tl.store(grad_x + at, to_value.to(grad_x.dtype.element_ty), mask=inside)
            sum_D += g_y * value
            sum_bias += to_weight
            if RESET:
                carry = tl.where(tl.load(reset + row) != 0, 0.0, carry)
        tl.debug_barrier()
    tl.store(grad_h + pair, carry, mask=both)
    tl.store(grad_D + b * d + lane, sum_D, mask=inside)
    tl.store(grad_bias + b * d + lane, sum_bias, mask=inside)


def _launch(s: Inputs) -> tuple[tuple[int, int], tuple[Tensor, ...], dict[str, Any]]:
    """The grid, the tensors that both kernels read, and their options."""
    k, d = s.k, s.x.shape[2]
    zero = k.new_zeros(d)
    tensors = (
        dense(s.x), dense(s.beta), dense(k), dense(s.q), dense(s.size),
        zero if s.D is None else dense(s.D.to(k.dtype)),
        zero if s.beta_bias is None else dense(s.beta_bias.to(k.dtype)),
        dense(s.x if s.z is None else s.z), flags(s.mask, s.x), flags(s.reset, s.x),
    )  # fmt: skip
    options = {
        "SQUASH": s.beta_sigmoid, "EXACT": s.exact, "GATE": s.z is not None,
        "MASK": s.mask is not None, "RESET": s.reset is not None, "CHUNK": CHUNK, "LANES": _LANES,
        "STATES": triton.next_power_of_2(k.shape[2]), "num_warps": 1,
    }  # fmt: skip
    return (s.x.shape[0], triton.cdiv(d, _LANES)), tensors, options


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, d), n = s.x.shape, s.k.shape[2]
    grid, tensors, options = _launch(s)
    y, last = s.x.new_empty(b, t, d), s.k.new_empty(b, d, n)
    kept = s.k.new_empty(b, triton.cdiv(t, CHUNK) if s.keep else 0, n, d)
    _forward[grid](*tensors, dense(s.h0), y, last, kept, t, d, n, KEEP=s.keep, **options)
    return y, last, kept


def backward(
    s: Inputs, states: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor]:
    (b, t, d), n, k = s.x.shape, s.k.shape[2], s.k
    grid, tensors, options = _launch(s)
    grad_y = s.x.new_zeros(b, t, d) if grad_y is None else dense(grad_y)
    grad_h = k.new_zeros(b, d, n) if grad_last is None else dense(grad_last.to(k.dtype)).clone()
    grad_x, grad_beta = s.x.new_empty(b, t, d), s.beta.new_empty(b, t, d)
    grad_z = s.x.new_empty(0) if s.z is None else s.z.new_empty(b, t, d)
    grad_k, grad_q = k.new_empty(2, grid[1], b, t, n)
    grad_size = k.new_empty(grid[1], b, t)
    grad_D, grad_bias = k.new_empty(2, b, d)
    _backward[grid](
        *tensors, states, k.new_empty(b, CHUNK, n, d), grad_y, grad_h, grad_x, grad_beta,
        grad_k, grad_q, grad_size, grad_D, grad_bias, grad_z, t, d, n, **options,
    )  # fmt: skip
    return {
        "x": grad_x,
        "beta": grad_beta,
        "k": grad_k.sum(0),
        "q": grad_q.sum(0),
        "size": grad_size.sum(0),
        "D": grad_D.sum(0).to(k.dtype if s.D is None else s.D.dtype),
        "z": grad_z,
        "h0": grad_h,
        "beta_bias": grad_bias.sum(0).to(k.dtype if s.beta_bias is None else s.beta_bias.dtype),
    }
