"""Numba: as `cpu_kernels.py`, for the backward.

Axes: as there; n state.
"""

from typing import NamedTuple

import numpy as np

from longstate.ops._layout import Rows
from longstate.ops._numba import inlined, kernel
from longstate.ops._numba.math import exp
from longstate.ops._numba.rows import load, store
from longstate.ops.chunk_scan.cpu_kernels import Decays, Given, Tile, flushed, place, row_of, samples


class Sums(NamedTuple):
    """Of each block and sample (i, k), and of each block (i)."""

    weight: np.ndarray  # gradients through M
    own: np.ndarray
    diagonal: np.ndarray  # dy . x
    within: np.ndarray  # weights of the paths in a chunk that a decay is on
    starting: np.ndarray  # of the paths from the state before it
    ended: np.ndarray  # gradients of the weight through the state after it
    through: np.ndarray  # i: of the paths from one of these states to the other


class Gradients(NamedTuple):
    log_a: np.ndarray  # b, t, h
    weight: np.ndarray
    own: np.ndarray


@inlined
def _retreat(
    grad: np.ndarray, total: float, added: np.ndarray, before: np.ndarray, after: np.ndarray
) -> float:
    seen = grad.dtype.type(0)
    for j in range(grad.shape[0]):
        seen += grad[j] * load(before, j)
        store(after, j, grad[j])
        grad[j] = total * grad[j] + load(added, j)
    return seen * total


@kernel
def carry_back(
    start: int, stop: int, heads: int, tile: Tile, total: np.ndarray, added: np.ndarray,
    grad: np.ndarray, before: np.ndarray, after: np.ndarray, through: np.ndarray,
) -> None:  # fmt: skip
    """Gradient of the state (b h, p n), in place; fills those after each chunk (i, p n)."""
    for block in range(start, stop):
        r, h = block // heads, block % heads
        for c in range(tile.chunks - 1, -1, -1):
            i = (r * tile.chunks + c) * heads + h
            through[i] = _retreat(
                grad[tile.row * heads + block], total[i], added[i], before[i], after[i]
            )


@inlined
def _row(
    weight: np.ndarray, L: np.ndarray, CB: np.ndarray, dM: np.ndarray, d_weight: np.ndarray,
    paths: np.ndarray,
) -> None:  # fmt: skip
    for s in range(L.shape[0]):
        through = load(dM, s) * L[s]
        path = through * load(CB, s)
        d_weight[s] += path
        paths[s] = path * weight[s]
        store(dM, s, through * weight[s])


@inlined
def _within(paths: np.ndarray, ahead: np.ndarray, out: np.ndarray) -> None:
    """out_r = sum of paths_ls over s < r <= l; `ahead` is space for a row."""
    zero = ahead.dtype.type(0)
    for s in range(ahead.shape[0]):
        ahead[s] = zero
    for l in range(ahead.shape[0] - 1, -1, -1):
        total = zero
        for s in range(ahead.shape[0]):
            ahead[s] += paths[l, s]
        for s in range(l):
            total += ahead[s]
        out[l] = total


@kernel
def pairs(
    start: int, stop: int, given: Given, tile: Tile, CB: np.ndarray, dM: np.ndarray, sums: Sums
) -> None:
    """Through M = (L * CB) weight + diag(own * CB + D): dM (i, k, k) becomes the gradient of CB."""
    k = given.k
    space, paths = np.empty((4, k), given.D.dtype), np.empty((k, k), given.D.dtype)
    a, weight, own, L = space[0], space[1], space[2], space[3]
    zero, one = a.dtype.type(0), a.dtype.type(1)
    for i in range(start, stop):
        at = place(given, tile, i)
        samples(given.log_a, at, a)
        samples(given.weight, at, weight)
        samples(given.own, at, own)
        d_weight = sums.weight[i]
        for l in range(k):
            a[l] = exp(a[l])
            L[l] = zero
            d_weight[l] = zero
        for l in range(k):
            for s in range(k):
                L[s] = flushed(L[s] * a[l], zero)
            direct, pair = load(dM[i, l], l), load(CB[at.q, l], l)
            _row(weight, L, CB[at.q, l], dM[i, l], d_weight, paths[l])
            store(dM[i, l], l, direct * own[l])
            sums.own[i, l], sums.diagonal[i, l] = direct * pair, direct
            L[l] = one
        _within(paths, L, sums.within[i])


@inlined
def _add(x: np.ndarray, into: np.ndarray) -> None:
    for j in range(into.shape[0]):
        into[j] += load(x, j)


@inlined
def _add_scaled(x: np.ndarray, scale: float, C: np.ndarray, into: np.ndarray) -> float:
    """into += scale * x; returns scale * (x . C)."""
    total = into.dtype.type(0)
    for j in range(into.shape[0]):
        v = load(x, j)
        into[j] += scale * v
        total += v * load(C, j)
    return total * scale


@inlined
def _move(x: np.ndarray, into: np.ndarray) -> None:
    for j in range(into.shape[0]):
        store(into, j, x[j])
        x[j] = 0


@kernel
def gather(
    start: int, stop: int, from_start: np.ndarray, C: np.ndarray, dC: np.ndarray, dCB: np.ndarray,
    out_C: np.ndarray, out_CB: np.ndarray, starting: np.ndarray,
) -> None:  # fmt: skip
    """Sums over the heads of a group: of from_start * dC (i, k, n), and of dCB (i, k, k)."""
    k, n = dC.shape[1], dC.shape[2]
    m = len(dC) // len(C)
    of_C, of_CB = np.zeros(n, from_start.dtype), np.zeros(k, from_start.dtype)
    for block in range(start, stop):
        q, l = block // k, block % k
        for i in range(q * m, (q + 1) * m):
            _add(dCB[i, l], of_CB)
            starting[i, l] = _add_scaled(dC[i, l], from_start[i, l], C[q, l], of_C)
        _move(of_C, out_C[q, l])
        _move(of_CB, out_CB[q, l])


@inlined
def _join_row(
    inside: np.ndarray, ending: np.ndarray, scale: float, x: np.ndarray, dx: np.ndarray
) -> float:
    """dx = inside + scale * ending; returns ending . x."""
    total = scale * 0
    for j in range(dx.shape[0]):
        v = load(ending, j)
        store(dx, j, load(inside, j) + scale * v)
        total += v * load(x, j)
    return total


@kernel
def join_back(
    start: int, stop: int, given: Given, tile: Tile, decays: Decays, x: np.ndarray,
    inside: np.ndarray, ending: np.ndarray, ended: np.ndarray, dx: Rows,
) -> None:  # fmt: skip
    """dx = inside (i, k, p) + in_state * ending (q, k, m p), and fills `ended`."""
    p = given.p
    m = given.log_a.shape[2] // given.groups
    for j in range(start, stop):
        at = row_of(given, tile, j)
        if not at.inside:
            continue
        o, l = at.b * dx.batch + at.t * dx.time, at.l
        for h in range(given.log_a.shape[2]):
            i, first = at.i + h, h % m * p
            ended[i, l] = decays.to_end[i, l] * _join_row(
                inside[i, l], ending[at.q + h // m, l, first : first + p],
                decays.in_state[i, l], x[i, l], dx.data[o + h * p : o + h * p + p],
            )  # fmt: skip


@kernel
def of_heads(
    start: int, stop: int, given: Given, tile: Tile, sums: Sums, grads: Gradients
) -> None:
    """Gradients of log_a, weight and own, from the sums of a block."""
    for i in range(start, stop):
        at = place(given, tile, i)
        # log_a at l weighs every path that enters before l and leaves at l or later
        leaving, entered = sums.through[i], given.D.dtype.type(0)
        for l in range(at.size - 1, -1, -1):
            leaving += sums.starting[i, l]
            grads.log_a[at.b, at.first + l, at.h] = leaving + sums.within[i, l]
        for l in range(at.size):
            t = at.first + l
            grads.log_a[at.b, t, at.h] += entered
            entered += sums.ended[i, l] * given.weight[at.b, t, at.h]
            grads.weight[at.b, t, at.h] = sums.weight[i, l] + sums.ended[i, l]
            grads.own[at.b, t, at.h] = sums.own[i, l]
