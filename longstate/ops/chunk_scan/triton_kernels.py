"""Kernels of `triton.py`.

Axes: l and s two times within a chunk, s before l.
"""

from typing import NamedTuple

import triton
import triton.language as tl

from longstate.ops._triton import Pointer
from longstate.ops.chunk_scan.triton_tiles import (
    Frame,
    Rows,
    channels,
    channels_across,
    chunk_of,
    columns,
    decay_between,
    decay_to_end,
    dot,
    locate,
    mix,
    pairs,
    samples,
    slot,
    state_tile,
    whole_dot,
)  # fmt: skip


class Ends(NamedTuple):
    """Weights of paths across the ends of a chunk, in parts for each tile of channels."""

    leaving: Pointer  # b, t, h: from a sample to behind the chunk, without its weight
    entering: Pointer  # b, t, h: from before the chunk to a sample
    through: Pointer  # b, c, h: from before to behind


class Weights(NamedTuple):
    """Gradients of the weights of pairs of samples."""

    log_a: Pointer  # b, t, h
    weight: Pointer
    own: Pointer
    D: Pointer  # b, c, h


@triton.jit
def carry(
    f: Frame, v: Rows, w: Rows, first: tl.tensor, kept: tl.tensor, last: tl.tensor,
    BACK: tl.constexpr,
) -> None:  # fmt: skip
    """Writes h before each chunk, and the last; or, from x = dy and B = C, h's gradient after it.

    h' = total h + (to_end weight x)^T B; on the way back to_end weight becomes from_start.
    """
    b, h = (tl.program_id(0) // f.heads).to(tl.int64), tl.program_id(0) % f.heads
    i, j = tl.program_id(1) * f.P + tl.arange(0, f.P), tl.program_id(2) * f.N + tl.arange(0, f.N)
    inside, entry = (i < f.p)[:, None] & (j < f.n)[None, :], i[:, None] * f.n + j[None, :]
    state = tl.load(first + (b * f.heads + h) * f.p * f.n + entry, mask=inside, other=0.0)
    chunks = tl.cdiv(f.steps, f.CHUNK)
    for turn in range(chunks):
        c = turn
        if BACK:
            c = chunks - 1 - turn
        at = chunk_of(f, b, c, h)
        tl.store(slot(f, kept, at) + entry, state.to(kept.dtype.element_ty), mask=inside)
        decay = samples(f, f.log_a, at)
        if BACK:
            scale = tl.exp(tl.cumsum(decay, axis=0))
        else:
            scale = decay_to_end(f, at) * samples(f, f.weight, at)
        left = channels(f, v, at, i) * scale[:, None]
        state *= tl.exp(tl.sum(decay, axis=0))
        state = whole_dot(tl.trans(left), columns(f, w, at, j), state, f.PRECISION)
    tl.store(last + (b * f.heads + h) * f.p * f.n + entry, state, mask=inside)


@triton.jit
def outputs(f: Frame, kept: tl.tensor, y: tl.tensor) -> None:
    """y of one chunk, head and tile of channels."""
    b, c, h = locate(f, f.heads)
    at = chunk_of(f, b, c, h)
    k, i, lane = (
        tl.arange(0, f.CHUNK),
        tl.program_id(1) * f.P + tl.arange(0, f.P),
        tl.arange(0, f.N),
    )
    decay = samples(f, f.log_a, at)
    CB = tl.zeros((f.CHUNK, f.CHUNK), decay.dtype)
    seen = tl.zeros((f.CHUNK, f.P), decay.dtype)
    for first in range(0, f.n, f.N):
        left = columns(f, f.C, at, first + lane)
        CB = dot(left, tl.trans(columns(f, f.B, at, first + lane)), CB, f.PRECISION)
        state = state_tile(f, kept, at, i, first + lane, f.TYPE)
        seen = dot(left, tl.trans(state), seen, f.PRECISION)
    M = mix(f, at, CB, decay, samples(f, f.weight, at))
    value = channels(f, f.x, at, i)
    out = seen * tl.exp(tl.cumsum(decay, axis=0))[:, None] + value * tl.load(f.D + h)
    out = dot(M, value, out, f.PRECISION)
    inside = (k < at.size)[:, None] & (i < f.p)[None, :]
    place = y + (at.row * f.heads + h) * f.p + k[:, None] * (f.heads * f.p) + i[None, :]
    tl.store(place, out.to(y.dtype.element_ty), mask=inside)


@triton.jit
def input_gradients(
    f: Frame, dy: Rows, states: tl.tensor, grad_states: tl.tensor, dx: tl.tensor, ends: Ends
) -> None:
    """Of x, in one chunk, head and tile of channels; and the weights of paths across its ends."""
    chunks = tl.cdiv(f.steps, f.CHUNK)
    b, c, h = locate(f, f.heads)
    at = chunk_of(f, b, c, h)
    k, i, lane = (
        tl.arange(0, f.CHUNK),
        tl.program_id(1) * f.P + tl.arange(0, f.P),
        tl.arange(0, f.N),
    )
    decay, own_place = samples(f, f.log_a, at), (at.row + k) * f.heads + h
    part = tl.program_id(1) * (tl.num_programs(0) // chunks).to(tl.int64)  # of the sums over p

    # Transposed, (p, k): then the float32 matrix is the left operand of each product.
    grad = channels_across(f, dy, at, i)
    seen = tl.zeros((f.P, f.CHUNK), decay.dtype)
    for first in range(0, f.n, f.N):
        state = state_tile(f, states, at, i, first + lane, decay.dtype)
        left = columns(f, f.C, at, first + lane)
        seen = whole_dot(state, tl.trans(left), seen, f.PRECISION)
    enters = tl.sum(seen * grad, axis=0) * tl.exp(tl.cumsum(decay, axis=0))
    tl.store(ends.entering + part * f.steps + own_place, enters, mask=k < at.size)

    out = tl.zeros((f.P, f.CHUNK), decay.dtype)
    passes = tl.zeros((f.P,), decay.dtype)
    for first in range(0, f.n, f.N):
        grad_state = state_tile(f, grad_states, at, i, first + lane, decay.dtype)
        state = state_tile(f, states, at, i, first + lane, decay.dtype)
        passes += tl.sum(state * grad_state, axis=1)
        right = columns(f, f.B, at, first + lane)
        out = whole_dot(grad_state, tl.trans(right), out, f.PRECISION)
    total = tl.sum(passes, axis=0) * tl.exp(tl.sum(decay, axis=0))
    tl.store(ends.through + part * chunks + (b * chunks + c) * f.heads + h, total)
    out *= decay_to_end(f, at)[None, :]
    leaves = tl.sum(out * channels_across(f, f.x, at, i), axis=0)
    tl.store(ends.leaving + part * f.steps + own_place, leaves, mask=k < at.size)

    in_state = samples(f, f.weight, at)
    M = mix(f, at, pairs(f, at, decay.dtype), decay, in_state)
    out = out * in_state[None, :] + grad * tl.load(f.D + h)
    out = dot(grad, M.to(f.TYPE), out, f.PRECISION)
    place = dx + (at.row * f.heads + h) * f.p + k[None, :] * (f.heads * f.p) + i[:, None]
    inside = (i < f.p)[:, None] & (k < at.size)[None, :]
    tl.store(place, out.to(dx.dtype.element_ty), mask=inside)


@triton.jit
def pair_gradients(
    f: Frame, dy: Rows, ends: Ends, grads: Weights, dCB: tl.tensor, HEADS: tl.constexpr
) -> None:
    """Of the weights of pairs of samples: log_a, weight, own, D and C B^T; a chunk of a group."""
    per_group, chunks = f.heads // f.groups, tl.cdiv(f.steps, f.CHUNK)
    b, c, g = locate(f, f.groups)
    k, lane = tl.arange(0, f.CHUNK), tl.arange(0, f.P)
    earlier, same = k[:, None] > k[None, :], k[:, None] == k[None, :]
    CB = pairs(f, chunk_of(f, b, c, g * per_group), f.D.dtype.element_ty)
    of_CB = tl.zeros_like(CB)
    begin = tl.program_id(1) * HEADS
    for one in range(begin, tl.minimum(begin + HEADS, per_group)):
        h = g * per_group + one
        at = chunk_of(f, b, c, h)
        dM = tl.zeros_like(CB)
        for first in range(0, f.p, f.P):
            value = channels(f, f.x, at, first + lane)
            dM = dot(channels(f, dy, at, first + lane), tl.trans(value), dM, f.PRECISION)
        in_state, at_once = samples(f, f.weight, at), samples(f, f.own, at)
        of_D = tl.sum(tl.where(same, dM, 0.0), axis=0)
        tl.store(grads.D + (b * chunks + c) * f.heads + h, tl.sum(of_D, axis=0))
        dM *= decay_between(f, samples(f, f.log_a, at))
        of_CB += dM * tl.where(same, at_once[None, :], in_state[None, :])
        dM *= CB
        place = (at.row + k) * f.heads + h
        tl.store(grads.own + place, tl.sum(tl.where(same, dM, 0.0), axis=0), mask=k < at.size)
        dM = tl.where(earlier, dM, 0.0)
        leaves = samples(f, ends.leaving, at)
        tl.store(grads.weight + place, tl.sum(dM, axis=0) + leaves, mask=k < at.size)
        # A decay at l weighs every path that is in the state before l and is seen at l or later.
        dM = (tl.cumsum(dM, axis=0, reverse=True) + leaves[None, :]) * in_state[None, :]
        crossing = tl.sum(tl.where(earlier, dM, 0.0), axis=1)
        crossing += tl.cumsum(samples(f, ends.entering, at), axis=0, reverse=True)
        crossing += tl.load(ends.through + (b * chunks + c) * f.heads + h)
        tl.store(grads.log_a + place, crossing, mask=k < at.size)
    tl.store(_pair_slot(f, dCB), of_CB)


@triton.jit
def _pair_slot(f: Frame, dCB: tl.tensor) -> tl.tensor:
    """Where a program's gradient of C B^T is."""
    k, part = tl.arange(0, f.CHUNK), tl.program_id(1).to(tl.int64)
    first = (part * tl.num_programs(0) + tl.program_id(0)) * f.CHUNK * f.CHUNK
    return dCB + first + k[:, None] * f.CHUNK + k[None, :]


@triton.jit
def shared_gradients(
    f: Frame, dy: Rows, states: tl.tensor, grad_states: tl.tensor, dCB: tl.tensor, dB: tl.tensor,
    dC: tl.tensor, HEADS: tl.constexpr,
) -> None:  # fmt: skip
    """Of B and C, in one chunk and tile of columns, from up to `HEADS` heads of a group."""
    per_group, chunks = f.heads // f.groups, tl.cdiv(f.steps, f.CHUNK)
    b, c, g = locate(f, f.groups)
    here = chunk_of(f, b, c, g * per_group)
    k, lane = tl.arange(0, f.CHUNK), tl.arange(0, f.P)
    j = tl.program_id(2) * f.N + tl.arange(0, f.N)
    of_CB = tl.load(_pair_slot(f, dCB))
    of_B, of_C = tl.zeros((f.CHUNK, f.N), of_CB.dtype), tl.zeros((f.CHUNK, f.N), of_CB.dtype)
    of_B = dot(tl.trans(of_CB), columns(f, f.C, here, j), of_B, f.PRECISION)
    of_C = dot(of_CB, columns(f, f.B, here, j), of_C, f.PRECISION)
    begin = tl.program_id(1) * HEADS
    for one in range(begin, tl.minimum(begin + HEADS, per_group)):
        at = chunk_of(f, b, c, g * per_group + one)
        from_start = tl.exp(tl.cumsum(samples(f, f.log_a, at), axis=0))[:, None]
        to_end = (decay_to_end(f, at) * samples(f, f.weight, at))[:, None]
        for first in range(0, f.p, f.P):
            i = first + lane
            value = channels(f, f.x, at, i)
            grad_state = state_tile(f, grad_states, at, i, j, f.TYPE)
            of_B += tl.dot(value, grad_state, input_precision=f.PRECISION) * to_end
            grad = channels(f, dy, at, i)
            state = state_tile(f, states, at, i, j, f.TYPE)
            of_C += tl.dot(grad, state, input_precision=f.PRECISION) * from_start
    # of the earlier parts
    before = tl.program_id(1).to(tl.int64) * (tl.num_programs(0) // f.groups // chunks) * f.steps
    row = ((before + here.row) * f.groups + g) * f.n
    out = row + k[:, None] * (f.groups * f.n) + j[None, :]
    inside = (k < here.size)[:, None] & (j < f.n)[None, :]
    tl.store(dB + out, of_B.to(dB.dtype.element_ty), mask=inside)
    tl.store(dC + out, of_C.to(dC.dtype.element_ty), mask=inside)
