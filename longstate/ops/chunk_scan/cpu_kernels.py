"""Numba: what stands between the matrix products of `cpu.py`, each in one pass over its operands.

    L_ls = a_{s+1} ... a_l     from_start_l = a_0 ... a_l     to_end_l = a_{l+1} ... a_{k-1}

Decays are products of at most `k` numbers that are not above 1: sums of logarithms, whose
difference is inaccurate for samples that are close together, do not occur. A decay below the
smallest normal number becomes 0, because processors compute slowly with smaller ones.

A block is a head of a chunk of a sequence. Blocks and samples are in the order of memory, and
count from the first of a tile.

Axes: b batch, t time, h heads, p channels per head, n state, g groups, m heads per group, k time
within a chunk, l and s two of its samples, i blocks, q groups of a chunk of a sequence.
"""

from typing import NamedTuple

import numpy as np

from longstate.ops._layout import Rows
from longstate.ops._numba import inlined, kernel
from longstate.ops._numba.rows import load, store

_TINY = 2.0**-126


class Sizes(NamedTuple):
    steps: int
    padded: int  # steps of whole chunks
    k: int
    heads: int
    groups: int
    p: int


class Heads(NamedTuple):
    """Of the blocks of a tile; after the last sample a is 1 and the weights are 0."""

    a: np.ndarray  # i, k
    weight: np.ndarray  # i, k
    own: np.ndarray  # i, k
    D: np.ndarray  # h


class Decays(NamedTuple):
    from_start: np.ndarray  # i, k
    to_end: np.ndarray  # i, k
    in_state: np.ndarray  # i, k: to_end * weight
    total: np.ndarray  # i


@inlined
def flushed(v: float, zero: float) -> float:
    return zero if v < _TINY else v


@inlined
def _decays(
    a: np.ndarray, weight: np.ndarray, from_start: np.ndarray, to_end: np.ndarray,
    in_state: np.ndarray,
) -> float:  # fmt: skip
    zero, one = a.dtype.type(0), a.dtype.type(1)
    total = one
    for l in range(a.shape[0]):
        total = flushed(total * a[l], zero)
        from_start[l] = total
    r = one
    for l in range(a.shape[0] - 1, -1, -1):
        to_end[l], in_state[l] = r, r * weight[l]
        r = flushed(r * a[l], zero)
    return total


@inlined
def _mix(
    a: np.ndarray, weight: np.ndarray, own: np.ndarray, D: float, CB: np.ndarray, L: np.ndarray,
    M: np.ndarray,
) -> None:  # fmt: skip
    zero, one = a.dtype.type(0), a.dtype.type(1)
    k = a.shape[0]
    for s in range(k):
        L[s] = zero
    for l in range(k):
        pairs, row = CB[l], M[l]
        for s in range(k):
            L[s] = flushed(L[s] * a[l], zero)
            store(row, s, L[s] * load(pairs, s) * weight[s])
        store(row, l, own[l] * load(pairs, l) + D)
        L[l] = one


@kernel
def mix(start: int, stop: int, heads: Heads, CB: np.ndarray, M: np.ndarray, out: Decays) -> None:
    """Fills M = (L * CB) weight + diag(own * CB + D) (i, k, k), and `out`. CB = C B^T (q, k, k)."""
    L = np.empty(heads.a.shape[1], heads.a.dtype)
    m = len(M) // len(CB)
    for i in range(start, stop):
        a, weight = heads.a[i], heads.weight[i]
        out.total[i] = _decays(a, weight, out.from_start[i], out.to_end[i], out.in_state[i])
        _mix(a, weight, heads.own[i], heads.D[i % len(heads.D)], CB[i // m], L, M[i])


class Row(NamedTuple):
    """A sample of every head."""

    b: int
    t: int
    c: int  # chunk of the tile
    l: int


@kernel
def row_of(sizes: Sizes, j: int, first: int) -> Row:
    """Of sample `j` of a tile that begins at `first`."""
    k, padded, at = sizes.k, sizes.padded, first + j
    return Row(at // padded, at % padded, j // k, j % k)


@inlined
def by_head(sizes: Sizes, at: Row, h: int) -> int:
    """Place in (i, k)."""
    return (at.c * sizes.heads + h) * sizes.k + at.l


@inlined
def by_group(sizes: Sizes, at: Row, h: int) -> int:
    """Place in (q, k, m)."""
    m = sizes.heads // sizes.groups
    return ((at.c * sizes.groups + h // m) * sizes.k + at.l) * m + h % m


@inlined
def _weigh(x: np.ndarray, scale: float, plain: np.ndarray, weighed: np.ndarray) -> None:
    for j in range(x.shape[0]):
        v = load(x, j)
        store(plain, j, v)
        store(weighed, j, v * scale)


@kernel
def weigh(
    start: int, stop: int, sizes: Sizes, first: int, x: Rows, scale: np.ndarray,
    plain: np.ndarray, weighed: np.ndarray,
) -> None:  # fmt: skip
    """Copies x (b, t, h p) by heads (i, k, p), and scale (i, k) * x by groups (q, k, m p). Samples
    after the last one stay as they are."""
    p = sizes.p
    for j in range(start, stop):
        at = row_of(sizes, j, first)
        if at.t >= sizes.steps:
            continue
        for h in range(sizes.heads):
            o, u = at.b * x.batch + at.t * x.time + h * p, by_head(sizes, at, h)
            v = by_group(sizes, at, h) * p
            _weigh(x.data[o : o + p], scale[u], plain[u * p : u * p + p], weighed[v : v + p])


@inlined
def _advance(state: np.ndarray, total: float, added: np.ndarray, before: np.ndarray) -> None:
    for j in range(state.shape[0]):
        store(before, j, state[j])
        state[j] = total * state[j] + load(added, j)


@kernel
def carry(
    start: int, stop: int, chunks: int, heads: int, total: np.ndarray, added: np.ndarray,
    state: np.ndarray, before: np.ndarray,
) -> None:  # fmt: skip
    """From chunk to chunk, for each row and head: state (r h, p n) = total (i) * state + added
    (i, p n), in place; keeps the states before each chunk (i, p n)."""
    for block in range(start, stop):
        for c in range(chunks):
            i = (block // heads * chunks + c) * heads + block % heads
            _advance(state[block], total[i], added[i], before[i])


@inlined
def _join(seen: np.ndarray, scale: float, inside: np.ndarray, y: np.ndarray) -> None:
    for j in range(y.shape[0]):
        store(y, j, load(seen, j) * scale + load(inside, j))


@kernel
def join(
    start: int, stop: int, sizes: Sizes, first: int, from_start: np.ndarray, seen: np.ndarray,
    inside: np.ndarray, y: Rows,
) -> None:  # fmt: skip
    """y = from_start (i, k) * seen (q, k, m p) + inside (i, k, p)."""
    p = sizes.p
    for j in range(start, stop):
        at = row_of(sizes, j, first)
        if at.t >= sizes.steps:
            continue
        for h in range(sizes.heads):
            o, u = at.b * y.batch + at.t * y.time + h * p, by_head(sizes, at, h)
            v = by_group(sizes, at, h) * p
            _join(seen[v : v + p], from_start[u], inside[u * p : u * p + p], y.data[o : o + p])
