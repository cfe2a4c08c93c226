"""Numba: what stands between the matrix products of `cpu.py`, each in one pass over its operands.

    a_l = exp(log_a_l)     L_ls = a_{s+1} ... a_l     from_start_l = a_0 ... a_l

Decays are products of at most `k` numbers that are not above 1: sums of logarithms, whose
difference is inaccurate for samples that are close together, do not occur. A decay below the
smallest normal number becomes 0, because processors compute slowly with smaller ones.

A block is a head of a chunk of a sequence, counted in this order: row of the tile, chunk, head.

Axes: b batch, t time, h heads, p channels per head, n state, g groups, m heads per group, k time
within a chunk, l and s two of its samples, i blocks, q groups of a chunk of a sequence, j samples of a tile.
"""

from typing import NamedTuple

import numpy as np

from longstate.ops._layout import Rows
from longstate.ops._numba import inlined, kernel
from longstate.ops._numba.math import exp
from longstate.ops._numba.rows import load, store

_TINY = 2.0**-126


class Given(NamedTuple):
    """Inputs with one number per head, in the type of states."""

    log_a: np.ndarray  # b, t, h
    weight: np.ndarray
    own: np.ndarray
    D: np.ndarray  # h
    groups: int
    p: int
    k: int


class Tile(NamedTuple):
    """Some chunks of some sequences."""

    row: int  # the first sequence
    chunk: int  # the first chunk
    chunks: int


class Place(NamedTuple):
    """Of a block."""

    b: int
    h: int
    first: int  # sample
    size: int  # samples, at most k
    q: int


class Decays(NamedTuple):
    """Of the blocks of a tile."""

    from_start: np.ndarray  # i, k
    to_end: np.ndarray  # i, k
    in_state: np.ndarray  # i, k: to_end * weight
    total: np.ndarray  # i


@kernel
def place(given: Given, tile: Tile, i: int) -> Place:
    heads = given.log_a.shape[2]
    h, chunk = i % heads, i // heads % tile.chunks
    b = i // heads // tile.chunks
    first = (tile.chunk + chunk) * given.k
    size = min(given.k, given.log_a.shape[1] - first)
    q = (b * tile.chunks + chunk) * given.groups + h * given.groups // heads
    return Place(tile.row + b, h, first, size, q)


class Row(NamedTuple):
    """A sample of every head, in a tile."""

    b: int
    t: int
    l: int
    inside: bool  # before the end of the sequence
    i: int  # block of the first head
    q: int  # of the first group


@kernel
def row_of(given: Given, tile: Tile, j: int) -> Row:
    l, c = j % given.k, j // given.k
    t = (tile.chunk + c % tile.chunks) * given.k + l
    steps, heads = given.log_a.shape[1:]
    return Row(tile.row + c // tile.chunks, t, l, t < steps, c * heads, c * given.groups)


@inlined
def samples(v: np.ndarray, at: Place, out: np.ndarray) -> None:
    """A head's numbers in a chunk; 0 after the last sample."""
    for l in range(out.shape[0]):
        out[l] = v[at.b, at.first + l, at.h] if l < at.size else out.dtype.type(0)


@inlined
def flushed(v: float, zero: float) -> float:
    return zero if v < _TINY else v


@inlined
def decays(a: np.ndarray, from_start: np.ndarray, to_end: np.ndarray) -> None:
    """Changes `a` from logarithms to decays."""
    zero, one = a.dtype.type(0), a.dtype.type(1)
    k = a.shape[0]
    for l in range(k):
        a[l] = exp(a[l])
    r = one
    for l in range(k):
        r = flushed(r * a[l], zero)
        from_start[l] = r
    r = one
    for l in range(k - 1, -1, -1):
        to_end[l] = r
        r = flushed(r * a[l], zero)


@inlined
def mixing(
    a: np.ndarray, weight: np.ndarray, own: np.ndarray, D: float, CB: np.ndarray, L: np.ndarray,
    M: np.ndarray,
) -> None:  # fmt: skip
    """M = (L * CB) weight below the diagonal, own * CB + D on it. `L` is space for a row."""
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
def mix(
    start: int, stop: int, given: Given, tile: Tile, CB: np.ndarray, M: np.ndarray, out: Decays
) -> None:
    """Fills M (i, k, k) from C B^T (q, k, k), and `out`."""
    k = given.k
    space = np.empty((4, k), given.D.dtype)
    a, weight, own, L = space[0], space[1], space[2], space[3]
    for i in range(start, stop):
        at = place(given, tile, i)
        samples(given.log_a, at, a)
        samples(given.weight, at, weight)
        samples(given.own, at, own)
        decays(a, out.from_start[i], out.to_end[i])
        out.total[i] = out.from_start[i, k - 1]
        for l in range(k):
            out.in_state[i, l] = out.to_end[i, l] * weight[l]
        mixing(a, weight, own, given.D[at.h], CB[at.q], L, M[i])


@inlined
def _weigh(x: np.ndarray, scale: float, plain: np.ndarray, weighed: np.ndarray) -> None:
    for j in range(plain.shape[0]):
        v = load(x, j)
        store(plain, j, v)
        store(weighed, j, v * scale)


@inlined
def _clear(plain: np.ndarray, weighed: np.ndarray) -> None:
    for j in range(plain.shape[0]):
        plain[j], weighed[j] = 0, 0


@kernel
def weigh(
    start: int, stop: int, given: Given, tile: Tile, x: Rows, scale: np.ndarray,
    plain: np.ndarray, weighed: np.ndarray,
) -> None:  # fmt: skip
    """Copies x (b, t, h p) head by head (i, k, p), and scale (i, k) * x by groups (q, k, m p)."""
    p = given.p
    m = given.log_a.shape[2] // given.groups
    for j in range(start, stop):
        at = row_of(given, tile, j)
        o = at.b * x.batch + at.t * x.time
        for h in range(given.log_a.shape[2]):
            i, first = at.i + h, h % m * p
            into = weighed[at.q + h // m, at.l, first : first + p]
            if at.inside:
                _weigh(x.data[o + h * p : o + h * p + p], scale[i, at.l], plain[i, at.l], into)
            else:
                _clear(plain[i, at.l], into)


@inlined
def advance(state: np.ndarray, total: float, added: np.ndarray, before: np.ndarray) -> None:
    for j in range(state.shape[0]):
        store(before, j, state[j])
        state[j] = total * state[j] + load(added, j)


@kernel
def carry(
    start: int, stop: int, heads: int, tile: Tile, total: np.ndarray, added: np.ndarray,
    state: np.ndarray, before: np.ndarray,
) -> None:  # fmt: skip
    """From chunk to chunk: state (b h, p n) = total (i) * state + added (i, p n), in place; keeps
    the states before each chunk (i, p n)."""
    for block in range(start, stop):
        r, h = block // heads, block % heads
        for c in range(tile.chunks):
            i = (r * tile.chunks + c) * heads + h
            advance(state[tile.row * heads + block], total[i], added[i], before[i])


@inlined
def _sum(seen: np.ndarray, scale: float, inside: np.ndarray, y: np.ndarray) -> None:
    for j in range(y.shape[0]):
        store(y, j, load(seen, j) * scale + load(inside, j))


@kernel
def join(
    start: int, stop: int, given: Given, tile: Tile, from_start: np.ndarray, seen: np.ndarray,
    inside: np.ndarray, y: Rows,
) -> None:  # fmt: skip
    """y = from_start * seen (q, k, m p) + inside (i, k, p)."""
    p = given.p
    m = given.log_a.shape[2] // given.groups
    for j in range(start, stop):
        at = row_of(given, tile, j)
        if not at.inside:
            continue
        o = at.b * y.batch + at.t * y.time
        for h in range(given.log_a.shape[2]):
            i, first = at.i + h, h % m * p
            _sum(
                seen[at.q + h // m, at.l, first : first + p], from_start[i, at.l],
                inside[i, at.l], y.data[o + h * p : o + h * p + p],
            )  # fmt: skip
