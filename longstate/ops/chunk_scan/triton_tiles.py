"""What the kernels of `triton_kernels.py` share: tiles, products, and decays within a chunk.

Axes: l and s two times within a chunk, s before l.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl

from longstate.ops._triton import Pointer


class Rows(NamedTuple):
    """Samples (b, t, heads, size) and how far apart they are, so that part of a projection is read
    in place."""

    data: Pointer
    step: Any


class Frame(NamedTuple):
    """What the kernels read, all or some of it."""

    x: Rows  # b, t, h, p
    B: Rows  # b, t, g, n
    C: Rows
    log_a: Pointer  # b, t, h
    weight: Pointer
    own: Pointer
    D: Pointer  # h
    steps: Any
    heads: Any
    groups: Any
    p: Any
    n: Any
    CHUNK: Any  # samples
    P: Any  # channels, and states, in a tile
    N: Any
    TYPE: Any  # of the operands of products, and their precision
    PRECISION: Any


class Chunk(NamedTuple):
    """A chunk of a head."""

    b: Any
    c: Any
    h: Any
    g: Any
    row: Any  # of its first sample
    size: Any  # samples from there to the end of the sequence


@triton.jit
def chunk_of(f: Frame, b: tl.tensor, c: tl.tensor, h: tl.tensor) -> Chunk:
    g = h // (f.heads // f.groups)
    return Chunk(b, c, h, g, b * f.steps + c * f.CHUNK, f.steps - c * f.CHUNK)


@triton.jit
def locate(f: Frame, heads: tl.tensor) -> tl.tuple:
    """Sequence, chunk and head of a program; heads are adjacent, as they share B and C."""
    i, chunks = tl.program_id(0), tl.cdiv(f.steps, f.CHUNK)
    return (i // heads // chunks).to(tl.int64), i // heads % chunks, i % heads


@triton.jit
def load_tile(
    x: tl.tensor, rows: tl.tensor, columns: tl.tensor, down: tl.tensor, right: tl.tensor,
    height: tl.tensor, width: tl.tensor, TYPE: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """A tile of a matrix, with the steps from row to row and column to column; 0 beyond its end."""
    inside = (rows < height)[:, None] & (columns < width)[None, :]
    place = x + rows[:, None] * down + columns[None, :] * right
    return tl.load(place, mask=inside, other=0.0).to(TYPE)


@triton.jit
def channels(f: Frame, x: Rows, at: Chunk, i: tl.tensor) -> tl.tensor:
    """Channels `i` of a head of x (b, t, h, p) in a chunk, (k, i)."""
    place, k = x.data + at.row * x.step + at.h * f.p, tl.arange(0, f.CHUNK)
    return load_tile(place, k, i, x.step, 1, at.size, f.p, f.TYPE)


@triton.jit
def channels_across(f: Frame, x: Rows, at: Chunk, i: tl.tensor) -> tl.tensor:
    """`channels` transposed, (i, k)."""
    place, k = x.data + at.row * x.step + at.h * f.p, tl.arange(0, f.CHUNK)
    return load_tile(place, i, k, 1, x.step, f.p, at.size, f.TYPE)


@triton.jit
def columns(f: Frame, x: Rows, at: Chunk, j: tl.tensor) -> tl.tensor:
    """Columns `j` of a group of x (b, t, g, n) in a chunk, (k, j)."""
    place, k = x.data + at.row * x.step + at.g * f.n, tl.arange(0, f.CHUNK)
    return load_tile(place, k, j, x.step, 1, at.size, f.n, f.TYPE)


@triton.jit
def slot(f: Frame, states: tl.tensor, at: Chunk) -> tl.tensor:
    """Where the state of a chunk is in `states` (b, c, h, p, n)."""
    return states + ((at.b * tl.cdiv(f.steps, f.CHUNK) + at.c) * f.heads + at.h) * f.p * f.n


@triton.jit
def state_tile(
    f: Frame, states: tl.tensor, at: Chunk, i: tl.tensor, j: tl.tensor, TYPE: tl.constexpr
) -> tl.tensor:
    return load_tile(slot(f, states, at), i, j, f.n, 1, f.p, f.n, TYPE)


@triton.jit
def samples(f: Frame, v: tl.tensor, at: Chunk) -> tl.tensor:
    """v (b, t, h) of a head in a chunk; 0 behind the last sample."""
    k = tl.arange(0, f.CHUNK)
    return tl.load(v + (at.row + k) * f.heads + at.h, mask=k < at.size, other=0.0)


@triton.jit
def dot(a: tl.tensor, b: tl.tensor, acc: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
    """acc + a b, with `a` rounded to the type of `b`."""
    return tl.dot(a.to(b.dtype), b, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def whole_dot(a: tl.tensor, b: tl.tensor, acc: tl.tensor, PRECISION: tl.constexpr) -> tl.tensor:
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
def decay_to_end(f: Frame, at: Chunk) -> tl.tensor:
    """Decay from each sample to the last of the chunk: a sum over later samples, no difference."""
    k = tl.arange(0, f.CHUNK) + 1
    behind = (k < at.size) & (k < f.CHUNK)
    later = tl.load(f.log_a + (at.row + k) * f.heads + at.h, mask=behind, other=0.0)
    return tl.exp(tl.cumsum(later, axis=0, reverse=True))


@triton.jit
def decay_between(f: Frame, decay: tl.tensor) -> tl.tensor:
    """Decay (l, s) from s to l, from logarithms (l); every sum is over the samples between."""
    k = tl.arange(0, f.CHUNK)
    later = k[:, None] > k[None, :]
    L = tl.exp(tl.cumsum(tl.where(later, decay[:, None], 0.0), axis=0))
    return tl.where(k[:, None] >= k[None, :], L, 0.0)


@triton.jit
def pairs(f: Frame, at: Chunk, TYPE: tl.constexpr) -> tl.tensor:
    """C B^T (l, s)."""
    CB = tl.zeros((f.CHUNK, f.CHUNK), TYPE)
    for first in range(0, f.n, f.N):
        j = first + tl.arange(0, f.N)
        CB = dot(columns(f, f.C, at, j), tl.trans(columns(f, f.B, at, j)), CB, f.PRECISION)
    return CB


@triton.jit
def mix(f: Frame, at: Chunk, CB: tl.tensor, decay: tl.tensor, in_state: tl.tensor) -> tl.tensor:
    """What a sample (s) adds to an output (l), without D."""
    k, at_once = tl.arange(0, f.CHUNK), samples(f, f.own, at)
    per_sample = tl.where(k[:, None] == k[None, :], at_once[None, :], in_state[None, :])
    return decay_between(f, decay) * CB * per_sample
