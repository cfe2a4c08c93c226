"""Kernels of `triton.py`.

Axes: l and s two times within a chunk, s before l.
"""

import triton
import triton.language as tl

from longstate.ops.chunk_scan.triton_tiles import (
    add_pairs,
    decay_between,
    decay_to_end,
    dot,
    load_samples,
    load_tile,
    locate,
    mix,
    whole_dot,
)


@triton.jit
def carry(
    v, w, log_a, weight, first, kept, last, step_v, step_w, steps, heads, groups, p, n,
    BACK: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Writes h before each chunk, and the last; or, from x = dy and B = C, h's gradient after it.

    h' = total h + (to_end weight x)^T B; on the way back to_end weight becomes from_start.
    """
    b, h = (tl.program_id(0) // heads).to(tl.int64), tl.program_id(0) % heads
    g = h // (heads // groups)
    k = tl.arange(0, CHUNK)
    i, j = tl.program_id(1) * P + tl.arange(0, P), tl.program_id(2) * N + tl.arange(0, N)
    inside, entry = (i < p)[:, None] & (j < n)[None, :], i[:, None] * n + j[None, :]
    state = tl.load(first + (b * heads + h) * p * n + entry, mask=inside, other=0.0)
    chunks = tl.cdiv(steps, CHUNK)
    for turn in range(chunks):
        c = turn
        if BACK:
            c = chunks - 1 - turn
        slot = kept + ((b * chunks + c) * heads + h) * p * n
        tl.store(slot + entry, state.to(kept.dtype.element_ty), mask=inside)
        row, size = b * steps + c * CHUNK, steps - c * CHUNK
        decay = load_samples(log_a, row, h, heads, size, CHUNK)
        if BACK:
            scale = tl.exp(tl.cumsum(decay, axis=0))
        else:
            scale = decay_to_end(log_a, row, h, heads, size, CHUNK)
            scale *= load_samples(weight, row, h, heads, size, CHUNK)
        left = load_tile(v + row * step_v + h * p, k, i, step_v, 1, size, p, TYPE) * scale[:, None]
        right = load_tile(w + row * step_w + g * n, k, j, step_w, 1, size, n, TYPE)
        state *= tl.exp(tl.sum(decay, axis=0))
        state = whole_dot(tl.trans(left), right, state, PRECISION)
    tl.store(last + (b * heads + h) * p * n + entry, state, mask=inside)


@triton.jit
def outputs(
    x, log_a, weight, own, B, C, D, kept, y, step_x, step_B, step_C,
    steps, heads, groups, p, n,
    CHUNK: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """y of one chunk, head and tile of channels."""
    chunks = tl.cdiv(steps, CHUNK)
    b, c, h = locate(chunks, heads)
    g = h // (heads // groups)
    row, size = b * steps + c * CHUNK, steps - c * CHUNK
    k, i, lane = tl.arange(0, CHUNK), tl.program_id(1) * P + tl.arange(0, P), tl.arange(0, N)
    decay = load_samples(log_a, row, h, heads, size, CHUNK)
    CB = tl.zeros((CHUNK, CHUNK), decay.dtype)
    seen = tl.zeros((CHUNK, P), decay.dtype)
    slot = kept + ((b * chunks + c) * heads + h) * p * n
    for first in range(0, n, N):
        j = first + lane
        right = load_tile(B + row * step_B + g * n, k, j, step_B, 1, size, n, TYPE)
        left = load_tile(C + row * step_C + g * n, k, j, step_C, 1, size, n, TYPE)
        CB = dot(left, tl.trans(right), CB, PRECISION)
        state = load_tile(slot, i, j, n, 1, p, n, TYPE)
        seen = dot(left, tl.trans(state), seen, PRECISION)
    in_state = load_samples(weight, row, h, heads, size, CHUNK)
    at_once = load_samples(own, row, h, heads, size, CHUNK)
    M = mix(CB, decay, in_state, at_once, CHUNK)
    value = load_tile(x + row * step_x + h * p, k, i, step_x, 1, size, p, TYPE)
    out = seen * tl.exp(tl.cumsum(decay, axis=0))[:, None] + value * tl.load(D + h)
    out = dot(M, value, out, PRECISION)
    inside = (k < size)[:, None] & (i < p)[None, :]
    place = y + (row * heads + h) * p + k[:, None] * (heads * p) + i[None, :]
    tl.store(place, out.to(y.dtype.element_ty), mask=inside)


@triton.jit
def input_gradients(
    x, dy, B, C, log_a, weight, own, D, states, grad_states,
    dx, leaving, entering, through, step_x, step_dy, step_B, step_C,
    steps, heads, groups, p, n,
    CHUNK: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of x, in one chunk, head and tile of channels; and what paths across its ends weigh.

    leaving: from a sample to behind the chunk, without its weight. entering: from before the chunk
    to a sample. through: from before to behind.
    """
    chunks = tl.cdiv(steps, CHUNK)
    b, c, h = locate(chunks, heads)
    g = h // (heads // groups)
    row, size = b * steps + c * CHUNK, steps - c * CHUNK
    k, i, lane = tl.arange(0, CHUNK), tl.program_id(1) * P + tl.arange(0, P), tl.arange(0, N)
    decay = load_samples(log_a, row, h, heads, size, CHUNK)
    slot, at = ((b * chunks + c) * heads + h) * p * n, (row + k) * heads + h
    part = tl.program_id(1) * (tl.num_programs(0) // chunks).to(tl.int64)  # of the sums over p
    B, C = B + row * step_B + g * n, C + row * step_C + g * n

    # Transposed, (p, k): then what is wide is the left operand of each product.
    grad = load_tile(dy + row * step_dy + h * p, i, k, 1, step_dy, p, size, TYPE)
    seen = tl.zeros((P, CHUNK), decay.dtype)
    for first in range(0, n, N):
        state = load_tile(states + slot, i, first + lane, n, 1, p, n, decay.dtype)
        left = load_tile(C, k, first + lane, step_C, 1, size, n, TYPE)
        seen = whole_dot(state, tl.trans(left), seen, PRECISION)
    enters = tl.sum(seen * grad, axis=0) * tl.exp(tl.cumsum(decay, axis=0))
    tl.store(entering + part * steps + at, enters, mask=k < size)

    out = tl.zeros((P, CHUNK), decay.dtype)
    passes = tl.zeros((P,), decay.dtype)
    for first in range(0, n, N):
        grad_state = load_tile(grad_states + slot, i, first + lane, n, 1, p, n, decay.dtype)
        state = load_tile(states + slot, i, first + lane, n, 1, p, n, decay.dtype)
        passes += tl.sum(state * grad_state, axis=1)
        right = load_tile(B, k, first + lane, step_B, 1, size, n, TYPE)
        out = whole_dot(grad_state, tl.trans(right), out, PRECISION)
    total = tl.sum(passes, axis=0) * tl.exp(tl.sum(decay, axis=0))
    tl.store(through + part * chunks + (b * chunks + c) * heads + h, total)
    value = load_tile(x + row * step_x + h * p, i, k, 1, step_x, p, size, TYPE)
    out *= decay_to_end(log_a, row, h, heads, size, CHUNK)[None, :]
    tl.store(leaving + part * steps + at, tl.sum(out * value, axis=0), mask=k < size)

    CB = tl.zeros((CHUNK, CHUNK), decay.dtype)
    CB = add_pairs(B, C, CB, step_B, step_C, size, n, CHUNK, N, TYPE, PRECISION)
    in_state = load_samples(weight, row, h, heads, size, CHUNK)
    M = mix(CB, decay, in_state, load_samples(own, row, h, heads, size, CHUNK), CHUNK)
    out = out * in_state[None, :] + grad * tl.load(D + h)
    out = dot(grad, M.to(TYPE), out, PRECISION)
    place = dx + (row * heads + h) * p + k[None, :] * (heads * p) + i[:, None]
    tl.store(place, out.to(dx.dtype.element_ty), mask=(i < p)[:, None] & (k < size)[None, :])


@triton.jit
def pair_gradients(
    x, dy, B, C, log_a, weight, own, leaving, entering, through,
    d_log_a, d_weight, d_own, dD, dCB, step_x, step_dy, step_B, step_C,
    steps, heads, groups, p, n,
    HEADS: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of what weighs pairs of samples: log_a, weight, own, D and C B^T; for a chunk of a group."""
    chunks = tl.cdiv(steps, CHUNK)
    b, c, g = locate(chunks, groups)
    row, size = b * steps + c * CHUNK, steps - c * CHUNK
    k, lane = tl.arange(0, CHUNK), tl.arange(0, P)
    WIDE: tl.constexpr = log_a.dtype.element_ty
    CB, of_CB = tl.zeros((CHUNK, CHUNK), WIDE), tl.zeros((CHUNK, CHUNK), WIDE)
    B, C = B + row * step_B + g * n, C + row * step_C + g * n
    CB = add_pairs(B, C, CB, step_B, step_C, size, n, CHUNK, N, TYPE, PRECISION)
    earlier, same = k[:, None] > k[None, :], k[:, None] == k[None, :]
    begin, per_group = tl.program_id(1) * HEADS, heads // groups
    for one in range(begin, tl.minimum(begin + HEADS, per_group)):
        h = g * per_group + one
        dM = tl.zeros((CHUNK, CHUNK), WIDE)
        for first in range(0, p, P):
            i = first + lane
            value = load_tile(x + row * step_x + h * p, k, i, step_x, 1, size, p, TYPE)
            grad = load_tile(dy + row * step_dy + h * p, k, i, step_dy, 1, size, p, TYPE)
            dM = dot(grad, tl.trans(value), dM, PRECISION)
        decay = load_samples(log_a, row, h, heads, size, CHUNK)
        in_state = load_samples(weight, row, h, heads, size, CHUNK)
        at_once = load_samples(own, row, h, heads, size, CHUNK)
        of_D = tl.sum(tl.where(same, dM, 0.0), axis=0)
        tl.store(dD + (b * chunks + c) * heads + h, tl.sum(of_D, axis=0))
        dM *= decay_between(decay, CHUNK)
        of_CB += dM * tl.where(same, at_once[None, :], in_state[None, :])
        dM *= CB
        at = (row + k) * heads + h
        tl.store(d_own + at, tl.sum(tl.where(same, dM, 0.0), axis=0), mask=k < size)
        dM = tl.where(earlier, dM, 0.0)
        leaves = load_samples(leaving, row, h, heads, size, CHUNK)
        tl.store(d_weight + at, tl.sum(dM, axis=0) + leaves, mask=k < size)
        # A decay at l weighs every path that is in the state before l and is seen at l or later.
        dM = (tl.cumsum(dM, axis=0, reverse=True) + leaves[None, :]) * in_state[None, :]
        crossing = tl.sum(tl.where(earlier, dM, 0.0), axis=1)
        enters = load_samples(entering, row, h, heads, size, CHUNK)
        crossing += tl.cumsum(enters, axis=0, reverse=True)
        crossing += tl.load(through + (b * chunks + c) * heads + h)
        tl.store(d_log_a + at, crossing, mask=k < size)
    slot = (tl.program_id(1).to(tl.int64) * tl.num_programs(0) + tl.program_id(0)) * CHUNK * CHUNK
    tl.store(dCB + slot + k[:, None] * CHUNK + k[None, :], of_CB)


@triton.jit
def shared_gradients(
    x, dy, B, C, log_a, weight, states, grad_states, dCB,
    dB, dC, step_x, step_dy, step_B, step_C,
    steps, heads, groups, p, n,
    HEADS: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of B and C, in one chunk and tile of columns, from up to `HEADS` heads of a group."""
    chunks = tl.cdiv(steps, CHUNK)
    b, c, g = locate(chunks, groups)
    row, size = b * steps + c * CHUNK, steps - c * CHUNK
    k, lane, j = tl.arange(0, CHUNK), tl.arange(0, P), tl.program_id(2) * N + tl.arange(0, N)
    part = tl.program_id(1).to(tl.int64)
    pairs = dCB + (part * tl.num_programs(0) + tl.program_id(0)) * CHUNK * CHUNK
    of_CB = tl.load(pairs + k[:, None] * CHUNK + k[None, :])
    right = load_tile(B + row * step_B + g * n, k, j, step_B, 1, size, n, TYPE)
    left = load_tile(C + row * step_C + g * n, k, j, step_C, 1, size, n, TYPE)
    of_B, of_C = tl.zeros((CHUNK, N), of_CB.dtype), tl.zeros((CHUNK, N), of_CB.dtype)
    of_B = dot(tl.trans(of_CB), left, of_B, PRECISION)
    of_C = dot(of_CB, right, of_C, PRECISION)
    begin, per_group = tl.program_id(1) * HEADS, heads // groups
    for one in range(begin, tl.minimum(begin + HEADS, per_group)):
        h = g * per_group + one
        decay = load_samples(log_a, row, h, heads, size, CHUNK)
        from_start = tl.exp(tl.cumsum(decay, axis=0))[:, None]
        to_end = decay_to_end(log_a, row, h, heads, size, CHUNK)
        to_end = (to_end * load_samples(weight, row, h, heads, size, CHUNK))[:, None]
        slot = ((b * chunks + c) * heads + h) * p * n
        for first in range(0, p, P):
            i = first + lane
            value = load_tile(x + row * step_x + h * p, k, i, step_x, 1, size, p, TYPE)
            grad_state = load_tile(grad_states + slot, i, j, n, 1, p, n, TYPE)
            of_B += tl.dot(value, grad_state, input_precision=PRECISION) * to_end
            grad = load_tile(dy + row * step_dy + h * p, k, i, step_dy, 1, size, p, TYPE)
            state = load_tile(states + slot, i, j, n, 1, p, n, TYPE)
            of_C += tl.dot(grad, state, input_precision=PRECISION) * from_start
    samples = part * (tl.num_programs(0) // groups // chunks) * steps  # of the parts before
    out = ((samples + row) * groups + g) * n + k[:, None] * (groups * n) + j[None, :]
    inside = (k < size)[:, None] & (j < n)[None, :]
    tl.store(dB + out, of_B.to(dB.dtype.element_ty), mask=inside)
    tl.store(dC + out, of_C.to(dC.dtype.element_ty), mask=inside)
