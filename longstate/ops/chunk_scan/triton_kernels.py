"""Kernels of `triton.py`.

Axes: l and s two times within a chunk, s before l.
"""

import triton
import triton.language as tl


@triton.jit
def _load(x, rows, columns, step, height, width, TYPE: tl.constexpr):
    """A tile of a matrix, rows `step` apart; 0 beyond its height and width."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    return tl.load(x + rows[:, None] * step + columns[None, :], mask=inside, other=0.0).to(TYPE)


@triton.jit
def _dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b, with `a` rounded to the type of `b`."""
    return tl.dot(a.to(b.dtype), b, acc, input_precision=PRECISION)


@triton.jit
def _whole_dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b, with all of a wide `a`."""
    if b.dtype == tl.bfloat16:
        high = a.to(tl.bfloat16)
        rest = a - high.to(a.dtype)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(a.dtype)).to(tl.bfloat16)
        acc = tl.dot(high, b, tl.dot(middle, b, tl.dot(low, b, acc)))
    else:
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def _place(chunks, heads):
    """Sequence, chunk, head of a program; heads are neighbours, because they share B and C."""
    h = tl.program_id(0) % heads
    c = tl.program_id(0) // heads % chunks
    return (tl.program_id(0) // heads // chunks).to(tl.int64), c, h


@triton.jit
def _per_sample(v, row, h, heads, size, CHUNK: tl.constexpr):
    """v (b, t, h) of a head in the chunk that starts at `row`; 0 behind the last sample."""
    k = tl.arange(0, CHUNK)
    return tl.load(v + (row + k) * heads + h, mask=k < size, other=0.0)


@triton.jit
def _to_end(log_a, row, h, heads, size, CHUNK: tl.constexpr):
    """Decay from each sample to the last of the chunk: the sum of what is behind, no difference."""
    k = tl.arange(0, CHUNK) + 1
    behind = (k < size) & (k < CHUNK)
    later = tl.load(log_a + (row + k) * heads + h, mask=behind, other=0.0)
    return tl.exp(tl.cumsum(later, axis=0, reverse=True))


@triton.jit
def _between(decay, CHUNK: tl.constexpr):
    """Decay (l, s) from s to l, from logarithms (l); every sum has only what lies between."""
    k = tl.arange(0, CHUNK)
    later = k[:, None] > k[None, :]
    L = tl.exp(tl.cumsum(tl.where(later, decay[:, None], 0.0), axis=0))
    return tl.where(k[:, None] >= k[None, :], L, 0.0)


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
        decay = _per_sample(log_a, row, h, heads, size, CHUNK)
        if BACK:
            scale = tl.exp(tl.cumsum(decay, axis=0))
        else:
            scale = _to_end(log_a, row, h, heads, size, CHUNK)
            scale *= _per_sample(weight, row, h, heads, size, CHUNK)
        left = _load(v + row * step_v + h * p, k, i, step_v, size, p, TYPE) * scale[:, None]
        right = _load(w + row * step_w + g * n, k, j, step_w, size, n, TYPE)
        state *= tl.exp(tl.sum(decay, axis=0))
        state = _whole_dot(tl.trans(left), right, state, PRECISION)
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
    b, c, h = _place(chunks, heads)
    g = h // (heads // groups)
    row, size = b * steps + c * CHUNK, steps - c * CHUNK
    k, i, lane = tl.arange(0, CHUNK), tl.program_id(1) * P + tl.arange(0, P), tl.arange(0, N)
    decay = _per_sample(log_a, row, h, heads, size, CHUNK)
    CB = tl.zeros((CHUNK, CHUNK), decay.dtype)
    seen = tl.zeros((CHUNK, P), decay.dtype)
    slot = kept + ((b * chunks + c) * heads + h) * p * n
    for first in range(0, n, N):
        j = first + lane
        right = _load(B + row * step_B + g * n, k, j, step_B, size, n, TYPE)
        left = _load(C + row * step_C + g * n, k, j, step_C, size, n, TYPE)
        CB = _dot(left, tl.trans(right), CB, PRECISION)
        state = _load(slot, i, j, n, p, n, TYPE)
        seen = _dot(left, tl.trans(state), seen, PRECISION)
    in_state = _per_sample(weight, row, h, heads, size, CHUNK)
    at_once = _per_sample(own, row, h, heads, size, CHUNK)
    M = _between(decay, CHUNK) * CB
    M *= tl.where(k[:, None] == k[None, :], at_once[None, :], in_state[None, :])
    value = _load(x + row * step_x + h * p, k, i, step_x, size, p, TYPE)
    out = seen * tl.exp(tl.cumsum(decay, axis=0))[:, None] + value * tl.load(D + h)
    out = _dot(M, value, out, PRECISION)
    inside = (k < size)[:, None] & (i < p)[None, :]
    place = y + (row * heads + h) * p + k[:, None] * (heads * p) + i[None, :]
    tl.store(place, out.to(y.dtype.element_ty), mask=inside)


@triton.jit
def gradients(
    x, dy, log_a, weight, own, B, C, D, states, grad_states,
    dx, d_log_a, d_weight, d_own, dD, step_x, step_dy, step_B, step_C,
    steps, heads, groups, p, n,
    CHUNK: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of x, log_a, weight, own and D, in one chunk of one head."""
    chunks = tl.cdiv(steps, CHUNK)
    b, c, h = _place(chunks, heads)
    g = h // (heads // groups)
    row, size = b * steps + c * CHUNK, steps - c * CHUNK
    k, lane_p, lane_n = tl.arange(0, CHUNK), tl.arange(0, P), tl.arange(0, N)
    decay = _per_sample(log_a, row, h, heads, size, CHUNK)
    in_state = _per_sample(weight, row, h, heads, size, CHUNK)
    at_once = _per_sample(own, row, h, heads, size, CHUNK)
    to_end = _to_end(log_a, row, h, heads, size, CHUNK)
    direct = tl.load(D + h)
    B, C = B + row * step_B + g * n, C + row * step_C + g * n
    slot = ((b * chunks + c) * heads + h) * p * n

    LCB = tl.zeros((CHUNK, CHUNK), decay.dtype)
    for first in range(0, n, N):
        right = _load(B, k, first + lane_n, step_B, size, n, TYPE)
        left = _load(C, k, first + lane_n, step_C, size, n, TYPE)
        LCB = _dot(left, tl.trans(right), LCB, PRECISION)
    LCB *= _between(decay, CHUNK)
    diagonal = k[:, None] == k[None, :]
    M = (LCB * tl.where(diagonal, at_once[None, :], in_state[None, :])).to(TYPE)

    # Tiles of channels, transposed: then what is wide is the left operand of each product.
    dM = tl.zeros((CHUNK, CHUNK), decay.dtype)
    leaving, entering = tl.zeros_like(decay), tl.zeros_like(decay)
    through = tl.zeros((P,), decay.dtype)
    for first_p in range(0, p, P):
        i = first_p + lane_p
        ending = tl.zeros((P, CHUNK), decay.dtype)
        starting = tl.zeros((P, CHUNK), decay.dtype)
        for first_n in range(0, n, N):
            j = first_n + lane_n
            state = _load(states + slot, i, j, n, p, n, decay.dtype)
            grad_state = _load(grad_states + slot, i, j, n, p, n, decay.dtype)
            right = _load(B, k, j, step_B, size, n, TYPE)
            left = _load(C, k, j, step_C, size, n, TYPE)
            ending = _whole_dot(grad_state, tl.trans(right), ending, PRECISION)
            starting = _whole_dot(state, tl.trans(left), starting, PRECISION)
            through += tl.sum(state * grad_state, axis=1)
        value = tl.trans(_load(x + row * step_x + h * p, k, i, step_x, size, p, TYPE))
        grad = tl.trans(_load(dy + row * step_dy + h * p, k, i, step_dy, size, p, TYPE))
        leaving += tl.sum(ending * value, axis=0)
        entering += tl.sum(starting * grad, axis=0)
        dM = _dot(tl.trans(grad), value, dM, PRECISION)
        out = _dot(grad, M, ending * (to_end * in_state)[None, :] + grad * direct, PRECISION)
        place = dx + (row * heads + h) * p + k[None, :] * (heads * p) + i[:, None]
        inside = (i < p)[:, None] & (k < size)[None, :]
        tl.store(place, out.to(dx.dtype.element_ty), mask=inside)

    of_D = tl.sum(tl.where(diagonal, dM, 0.0), axis=0)
    tl.store(dD + (b * chunks + c) * heads + h, tl.sum(of_D, axis=0))
    paths = dM * LCB
    at, real = (row + k) * heads + h, k < size
    tl.store(d_own + at, tl.sum(tl.where(diagonal, paths, 0.0), axis=0), mask=real)
    paths = tl.where(diagonal, 0.0, paths)
    leaving *= to_end
    tl.store(d_weight + at, tl.sum(paths, axis=0) + leaving, mask=real)
    # A decay at r weighs every path that is in the state before r and is seen at r or later.
    entering *= tl.exp(tl.cumsum(decay, axis=0))
    passing = tl.sum(through, axis=0) * tl.exp(tl.sum(decay, axis=0))
    later = tl.cumsum(paths, axis=0, reverse=True) + leaving[None, :]
    later = tl.where(k[:, None] > k[None, :], later * in_state[None, :], 0.0)
    total = tl.sum(later, axis=1) + tl.cumsum(entering, axis=0, reverse=True) + passing
    tl.store(d_log_a + at, total, mask=real)


@triton.jit
def shared_gradients(
    x, dy, log_a, weight, own, B, C, states, grad_states,
    dB, dC, step_x, step_dy, step_B, step_C,
    steps, heads, groups, p, n,
    HEADS: tl.constexpr, CHUNK: tl.constexpr, P: tl.constexpr, N: tl.constexpr,
    TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Of B and C, in one chunk and tile of columns, from up to `HEADS` heads of a group."""
    chunks = tl.cdiv(steps, CHUNK)
    b, c, g = _place(chunks, groups)
    per_group = heads // groups
    row, size = b * steps + c * CHUNK, steps - c * CHUNK
    k, lane, j = tl.arange(0, CHUNK), tl.arange(0, P), tl.program_id(1) * N + tl.arange(0, N)
    WIDE: tl.constexpr = log_a.dtype.element_ty
    of_B, of_C = tl.zeros((CHUNK, N), WIDE), tl.zeros((CHUNK, N), WIDE)
    dCB = tl.zeros((CHUNK, CHUNK), WIDE)
    begin = tl.program_id(2) * HEADS
    for one in range(begin, tl.minimum(begin + HEADS, per_group)):
        h = g * per_group + one
        slot = ((b * chunks + c) * heads + h) * p * n
        dM = tl.zeros((CHUNK, CHUNK), WIDE)
        to_B, to_C = tl.zeros((CHUNK, N), WIDE), tl.zeros((CHUNK, N), WIDE)
        for first in range(0, p, P):
            i = first + lane
            value = _load(x + row * step_x + h * p, k, i, step_x, size, p, TYPE)
            grad = _load(dy + row * step_dy + h * p, k, i, step_dy, size, p, TYPE)
            dM = _dot(grad, tl.trans(value), dM, PRECISION)
            grad_state = _load(grad_states + slot, i, j, n, p, n, TYPE)
            to_B = _dot(value, grad_state, to_B, PRECISION)
            state = _load(states + slot, i, j, n, p, n, TYPE)
            to_C = _dot(grad, state, to_C, PRECISION)
        decay = _per_sample(log_a, row, h, heads, size, CHUNK)
        in_state = _per_sample(weight, row, h, heads, size, CHUNK)
        at_once = _per_sample(own, row, h, heads, size, CHUNK)
        of_B += to_B * (_to_end(log_a, row, h, heads, size, CHUNK) * in_state)[:, None]
        of_C += to_C * tl.exp(tl.cumsum(decay, axis=0))[:, None]
        diagonal = k[:, None] == k[None, :]
        dM *= _between(decay, CHUNK)
        dCB += dM * tl.where(diagonal, at_once[None, :], in_state[None, :])
    right = _load(B + row * step_B + g * n, k, j, step_B, size, n, TYPE)
    left = _load(C + row * step_C + g * n, k, j, step_C, size, n, TYPE)
    of_B = _dot(tl.trans(dCB), left, of_B, PRECISION)
    of_C = _dot(dCB, right, of_C, PRECISION)
    before = tl.program_id(2).to(tl.int64) * (tl.num_programs(0) // groups // chunks) * steps
    out = ((before + row) * groups + g) * n + k[:, None] * (groups * n) + j[None, :]
    inside = (k < size)[:, None] & (j < n)[None, :]
    tl.store(dB + out, of_B.to(dB.dtype.element_ty), mask=inside)
    tl.store(dC + out, of_C.to(dC.dtype.element_ty), mask=inside)
