"""Numba: what stands between the matrix products of `cpu.py`, each in one pass over its operands.

    a_l = exp(log_a_l)     L_ls = a_{s+1} ... a_l     from_start_l = a_0 ... a_l

Decays are products of at most `k` numbers that are not above 1: sums of logarithms, whose
difference is inaccurate for samples that are close together, do not occur. A decay below the
smallest normal number becomes 0, because processors compute slowly with smaller ones.

A block is a head of a chunk of a sequence, counted in this order: row of the tile, chunk, head.

Axes: b batch, t time, h heads, p channels per head, n state, g groups, m heads per group, k time
within a chunk, l and s two of its samples, i blocks, q groups of a chunk of a sequence.
"""

from typing import NamedTuple

import numpy as np

from longstate.ops._layout import Rows
from longstate.ops._numba import inlined, kernel
from longstate.ops._numba.math import exp
from longstate.ops._numba.rows import load, store

_TINY = 2.0**-126


class Given(NamedTuple):
    """Inputs; those with one number per head in the type of states."""

    x: Rows  # b, t, h p
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
    column: int  # of its first channel, in its group


class Spread(NamedTuple):
    """Operands of products, and decays."""

    M: np.ndarray  # i, k, k
    x: np.ndarray  # i, k, p
    weighed: np.ndarray  # q, k, m p: to_end * weight * x
    from_start: np.ndarray  # i, k
    total: np.ndarray  # i


class Back(NamedTuple):
    """Further operands for the backward."""

    grad_y: Rows  # b, t, h p
    dy: np.ndarray  # i, k, p
    weighed: np.ndarray  # q, k, m p: from_start * dy
    to_end: np.ndarray  # i, k


@kernel
def place(given: Given, tile: Tile, i: int) -> Place:
    heads = given.log_a.shape[2]
    h, chunk = i % heads, i // heads % tile.chunks
    b = i // heads // tile.chunks
    first = (tile.chunk + chunk) * given.k
    size = min(given.k, given.log_a.shape[1] - first)
    per_group = heads // given.groups
    q = (b * tile.chunks + chunk) * given.groups + h // per_group
    return Place(tile.row + b, h, first, size, q, h % per_group * given.p)


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


@inlined
def copy(x: np.ndarray, into: np.ndarray) -> None:
    for j in range(into.shape[0]):
        store(into, j, load(x, j))


@inlined
def scaled(x: np.ndarray, scale: float, into: np.ndarray) -> None:
    for j in range(into.shape[0]):
        store(into, j, load(x, j) * scale)


@inlined
def zeros(into: np.ndarray) -> None:
    for j in range(into.shape[0]):
        into[j] = 0


@kernel
def spread(
    start: int, stop: int, given: Given, tile: Tile, CB: np.ndarray, out: Spread,
    back: Back | None,
) -> None:  # fmt: skip
    """Fills `out` from C B^T (q, k, k), and `back`."""
    x, p, k = given.x, given.p, given.k
    space = np.empty((5, k), given.D.dtype)
    a, weight, own, to_end, L = space[0], space[1], space[2], space[3], space[4]
    for i in range(start, stop):
        at = place(given, tile, i)
        samples(given.log_a, at, a)
        samples(given.weight, at, weight)
        samples(given.own, at, own)
        decays(a, out.from_start[i], to_end)
        out.total[i] = out.from_start[i, k - 1]
        mixing(a, weight, own, given.D[at.h], CB[at.q], L, out.M[i])
        for l in range(k):
            into = out.weighed[at.q, l, at.column : at.column + p]
            if l < at.size:
                o = at.b * x.batch + (at.first + l) * x.time + at.h * p
                copy(x.data[o : o + p], out.x[i, l])
                scaled(x.data[o : o + p], to_end[l] * weight[l], into)
            else:
                zeros(out.x[i, l])
                zeros(into)
        if back is not None:
            dy = back.grad_y
            for l in range(k):
                back.to_end[i, l] = to_end[l]
                into = back.weighed[at.q, l, at.column : at.column + p]
                if l < at.size:
                    o = at.b * dy.batch + (at.first + l) * dy.time + at.h * p
                    copy(dy.data[o : o + p], back.dy[i, l])
                    scaled(dy.data[o : o + p], out.from_start[i, l], into)
                else:
                    zeros(back.dy[i, l])
                    zeros(into)


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
    for i in range(start, stop):
        at = place(given, tile, i)
        for l in range(at.size):
            o = at.b * y.batch + (at.first + l) * y.time + at.h * p
            _sum(
                seen[at.q, l, at.column : at.column + p], from_start[i, l], inside[i, l],
                y.data[o : o + p],
            )  # fmt: skip
