"""Numba: as `cpu_kernels.py`, for the backward.

Axes: as there; n state.
"""

from typing import NamedTuple

import numpy as np

from longstate.ops._layout import Rows
from longstate.ops._numba import inlined, kernel
from longstate.ops._numba.rows import load, store
from longstate.ops.chunk_scan.cpu_kernels import (
    Decays,
    Heads,
    Sizes,
    by_group,
    by_head,
    flushed,
    row_of,
)


class Sums(NamedTuple):
    """Of each block and sample (i, k)."""

    weight: np.ndarray  # gradients through M
    own: np.ndarray
    diagonal: np.ndarray  # dy . x
    within: np.ndarray  # weights of the paths in a chunk that a decay is on
    starting: np.ndarray  # of the paths from the state before it
    ended: np.ndarray  # gradients of the weight through the state after it


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
    start: int, stop: int, chunks: int, heads: int, total: np.ndarray, added: np.ndarray,
    grad: np.ndarray, before: np.ndarray, after: np.ndarray, through: np.ndarray,
) -> None:  # fmt: skip
    """Gradient of the state (r h, p n), in place; fills those after each chunk (i, p n), and the
    weights of the paths from one of the states to the next (i)."""
    for block in range(start, stop):
        for c in range(chunks - 1, -1, -1):
            i = (block // heads * chunks + c) * heads + block % heads
            through[i] = _retreat(grad[block], total[i], added[i], before[i], after[i])


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


@inlined
def _pairs(
    a: np.ndarray, weight: np.ndarray, own: np.ndarray, CB: np.ndarray, dM: np.ndarray,
    L: np.ndarray, paths: np.ndarray, d_weight: np.ndarray, d_own: np.ndarray,
    diagonal: np.ndarray,
) -> None:  # fmt: skip
    zero, one = a.dtype.type(0), a.dtype.type(1)
    k = a.shape[0]
    for s in range(k):
        L[s], d_weight[s] = zero, zero
    for l in range(k):
        for s in range(k):
            L[s] = flushed(L[s] * a[l], zero)
        direct = load(dM[l], l)
        _row(weight, L, CB[l], dM[l], d_weight, paths[l])
        store(dM[l], l, direct * own[l])
        d_own[l], diagonal[l] = direct * load(CB[l], l), direct
        L[l] = one


@kernel
def pairs(start: int, stop: int, heads: Heads, CB: np.ndarray, dM: np.ndarray, sums: Sums) -> None:
    """Through M = (L * CB) weight + diag(own * CB + D): dM (i, k, k) becomes the gradient of CB."""
    k, m = CB.shape[1], len(dM) // len(CB)
    L, paths = np.empty(k, heads.a.dtype), np.empty((k, k), heads.a.dtype)
    for i in range(start, stop):
        _pairs(
            heads.a[i], heads.weight[i], heads.own[i], CB[i // m], dM[i], L, paths,
            sums.weight[i], sums.own[i], sums.diagonal[i],
        )  # fmt: skip
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
    start: int, stop: int, sizes: Sizes, first: int, decays: Decays, x: np.ndarray,
    inside: np.ndarray, ending: np.ndarray, ended: np.ndarray, dx: Rows,
) -> None:  # fmt: skip
    """dx = inside (i, k, p) + in_state * ending (q, k, m p), and fills `ended`."""
    p = sizes.p
    for j in range(start, stop):
        at = row_of(sizes, j, first)
        if at.t >= sizes.steps:
            continue
        for h in range(sizes.heads):
            o, i = at.b * dx.batch + at.t * dx.time + h * p, at.c * sizes.heads + h
            v, w = by_group(sizes, at, h) * p, by_head(sizes, at, h) * p
            ended[i, at.l] = decays.to_end[i, at.l] * _join_row(
                inside[w : w + p], ending[v : v + p], decays.in_state[i, at.l], x[w : w + p],
                dx.data[o : o + p],
            )  # fmt: skip
