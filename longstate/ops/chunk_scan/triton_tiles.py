"""What the kernels of `triton_kernels.py` share: tiles, products, and decays within a chunk.

Axes: l and s two times within a chunk, s before l.
"""

import triton
import triton.language as tl


@triton.jit
def load_tile(x, rows, columns, down, right, height, width, TYPE: tl.constexpr):
    """A tile of a matrix, with the steps from row to row and column to column; 0 beyond its end."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    place = x + rows[:, None] * down + columns[None, :] * right
    return tl.load(place, mask=inside, other=0.0).to(TYPE)


@triton.jit
def dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b, with `a` rounded to the type of `b`."""
    return tl.dot(a.to(b.dtype), b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def whole_dot(a, b, acc, PRECISION: tl.constexpr):
    """acc + a b, with all of a wide `a`: three bfloat16 numbers hold the 24 bits of a float32."""
    if b.dtype == tl.bfloat16:
        high = a.to(tl.bfloat16)
        rest = a - high.to(a.dtype)
        middle = rest.to(tl.bfloat16)
        low = (rest - middle.to(a.dtype)).to(tl.bfloat16)
        acc = tl.dot(high, b, tl.dot(middle, b, tl.dot(low, b, acc)))
    else:
        acc = dot(a, b, acc, PRECISION)
    return acc


@triton.jit
def locate(chunks, heads):
    """Sequence, chunk, head of a program; heads are neighbours, because they share B and C."""
    h = tl.program_id(0) % heads
    c = tl.program_id(0) // heads % chunks
    return (tl.program_id(0) // heads // chunks).to(tl.int64), c, h


@triton.jit
def load_samples(v, row, h, heads, size, CHUNK: tl.constexpr):
    """v (b, t, h) of a head in the chunk that starts at `row`; 0 behind the last sample."""
    k = tl.arange(0, CHUNK)
    return tl.load(v + (row + k) * heads + h, mask=k < size, other=0.0)


@triton.jit
def decay_to_end(log_a, row, h, heads, size, CHUNK: tl.constexpr):
    """Decay from each sample to the last of the chunk: the sum of what is behind, no difference."""
    k = tl.arange(0, CHUNK) + 1
    behind = (k < size) & (k < CHUNK)
    later = tl.load(log_a + (row + k) * heads + h, mask=behind, other=0.0)
    return tl.exp(tl.cumsum(later, axis=0, reverse=True))


@triton.jit
def decay_between(decay, CHUNK: tl.constexpr):
    """Decay (l, s) from s to l, from logarithms (l); every sum has only what lies between."""
    k = tl.arange(0, CHUNK)
    later = k[:, None] > k[None, :]
    L = tl.exp(tl.cumsum(tl.where(later, decay[:, None], 0.0), axis=0))
    return tl.where(k[:, None] >= k[None, :], L, 0.0)


@triton.jit
def add_pairs(
    B, C, CB, step_B, step_C, size, n,
    CHUNK: tl.constexpr, N: tl.constexpr, TYPE: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """C B^T (l, s), added to `CB`."""
    k = tl.arange(0, CHUNK)
    for first in range(0, n, N):
        j = first + tl.arange(0, N)
        right = load_tile(B, k, j, step_B, 1, size, n, TYPE)
        left = load_tile(C, k, j, step_C, 1, size, n, TYPE)
        CB = dot(left, tl.trans(right), CB, PRECISION)
    return CB


@triton.jit
def mix(CB, decay, in_state, at_once, CHUNK: tl.constexpr):
    """What a sample (s) adds to an output (l), D apart."""
    k = tl.arange(0, CHUNK)
    per_sample = tl.where(k[:, None] == k[None, :], at_once[None, :], in_state[None, :])
    return decay_between(decay, CHUNK) * CB * per_sample
