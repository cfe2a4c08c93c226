"""Numba: the series of the exponential on the state, sample after sample.

A block of work is one sequence and one of its g matrices. The gradient goes through the same series
backward: with q_j the gradient of p_j, and g that of the state after a step of length l,

    q_J = g        q_{j-1} = g + (l / j) q_j M^T
    M: sum of (l / j) p_{j-1}^T q_j, p_0 the state        v: l q_1        state: g + l q_1 M^T
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._choice import expect
from longstate.ops._layout import dense, on_large_pages
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.rows import add_row, copy_row
from longstate.ops.expm_scan import Inputs

_REACH = 3.0  # norm of M in one step; terms grow to 3^3 / 3! at most, so few digits cancel
_TERMS = 40  # more than a norm of 3 needs in float64
_LIMIT = 2e5  # norm above which a sample would take seconds


@inlined
def _times(x: np.ndarray, M: np.ndarray, scale: float, out: np.ndarray) -> None:
    """out = scale x M, eight rows of M at a time."""
    k = x.shape[0]
    for c in range(k):
        out[c] = 0
    whole = k // 8 * 8
    for r in range(0, whole, 8):
        x0, x1, x2, x3 = scale * x[r], scale * x[r + 1], scale * x[r + 2], scale * x[r + 3]
        x4, x5, x6, x7 = scale * x[r + 4], scale * x[r + 5], scale * x[r + 6], scale * x[r + 7]
        m0, m1, m2, m3 = M[r], M[r + 1], M[r + 2], M[r + 3]
        m4, m5, m6, m7 = M[r + 4], M[r + 5], M[r + 6], M[r + 7]
        for c in range(k):
            first = (x0 * m0[c] + x1 * m1[c]) + (x2 * m2[c] + x3 * m3[c])
            second = (x4 * m4[c] + x5 * m5[c]) + (x6 * m6[c] + x7 * m7[c])
            out[c] += first + second
    for r in range(whole, k):
        a, row = scale * x[r], M[r]
        for c in range(k):
            out[c] += a * row[c]


@inlined
def _size(x: np.ndarray) -> float:
    total = x[0] - x[0]
    for c in range(x.shape[0]):
        total += abs(x[c])
    return total


@inlined
def _norm(M: np.ndarray) -> float:
    """The largest sum of sizes in a row, by which the size of x M is bounded."""
    largest = _size(M[0])
    for r in range(1, M.shape[0]):
        largest = max(largest, _size(M[r]))
    return largest


@inlined
def _series(
    M: np.ndarray, v: np.ndarray, scales: np.ndarray, reach: float, exact: float, least: int,
    p: np.ndarray, x: np.ndarray,
) -> int:  # fmt: skip
    """One step: x in place, and its terms p[1], p[2], ...; p[0] is x before. Returns their number,
    `least` or more.

    scales: length / j for every j. reach: norm of length * M. The terms after p[j] add up to at
    most norm(p[j]) reach / (j + 1 - reach), as a geometric series.
    """
    copy_row(x, p[0])
    _times(x, M, scales[1], p[1])
    for c in range(x.shape[0]):
        p[1, c] += scales[1] * v[c]
    add_row(p[1], x)
    j = 1
    while j < _TERMS:
        enough = j >= least and j + 1 > reach
        if enough and _size(p[j]) * reach <= exact * (j + 1 - reach) * _size(x):
            break
        j += 1
        _times(p[j - 1], M, scales[j], p[j])
        add_row(p[j], x)
    return j


@inlined
def _outer(p: np.ndarray, q: np.ndarray, count: int, into: np.ndarray) -> None:
    """into += sum over j of p[j - 1]^T q[j], four terms at a time; q[count + 1 :] is zero."""
    k = into.shape[0]
    for r in range(k):
        row = into[r]
        for j in range(1, count + 1, 4):
            a0, a1, a2, a3 = p[j - 1, r], p[j, r], p[j + 1, r], p[j + 2, r]
            q0, q1, q2, q3 = q[j], q[j + 1], q[j + 2], q[j + 3]
            for c in range(k):
                row[c] += (a0 * q0[c] + a1 * q1[c]) + (a2 * q2[c] + a3 * q3[c])


@inlined
def _series_back(
    turned: np.ndarray, scales: np.ndarray, count: int, p: np.ndarray, q: np.ndarray, g: np.ndarray,
    dM: np.ndarray, dv: np.ndarray, scratch: np.ndarray,
) -> None:  # fmt: skip
    """One step back: g in place, and what the step adds to the gradients of M and v."""
    copy_row(g, q[count])
    for j in range(count, 1, -1):
        _times(q[j], turned, scales[j], scratch)
        for c in range(g.shape[0]):
            q[j - 1, c] = g[c] + scratch[c]
    for j in range(1, count + 1):
        for c in range(g.shape[0]):
            q[j, c] *= scales[j]
    for j in range(count + 1, count + 4):
        q[j] = 0
        p[j - 1] = 0
    add_row(q[1], dv)
    _outer(p, q, count, dM)
    _times(q[1], turned, scales[0], scratch)
    add_row(scratch, g)


@inlined
def _turn(M: np.ndarray, into: np.ndarray) -> None:
    for r in range(M.shape[0]):
        for c in range(M.shape[0]):
            into[c, r] = M[r, c]


class Steps(NamedTuple):
    M: np.ndarray  # b, t, g, k, k
    v: np.ndarray  # b, t, g, k
    h0: np.ndarray  # b, g, k
    start: np.ndarray  # g, k
    reset: np.ndarray  # b, t; or 0, 0


class Gradients(NamedTuple):
    """That of `start` for each sequence."""

    M: np.ndarray
    v: np.ndarray
    h0: np.ndarray
    start: np.ndarray  # b, g, k


@kernel
def _cut(norm: float, scales: np.ndarray) -> tuple[int, float]:
    """Into how many steps a sample is cut, the norm of M in one of them, and its length over j in
    `scales`, of the type of M; the first is 1."""
    count = int(np.ceil(norm / _REACH)) if 0 < norm <= _LIMIT else 1
    scales[0] = 1
    for j in range(1, scales.shape[0]):
        scales[j] = 1 / (count * j)
    return count, norm / count


@kernel
def _largest(start: int, stop: int, M: np.ndarray, into: np.ndarray) -> None:
    """The largest finite norm of a block, into (b, g)."""
    for block in range(start, stop):
        b, g = block // into.shape[1], block % into.shape[1]
        into[b, g] = 0
        for t in range(M.shape[1]):
            norm = _norm(M[b, t, g])
            if np.isfinite(norm):
                into[b, g] = max(into[b, g], norm)


@kernel
def _least(reach: float, exact: float) -> int:
    """Terms that a gradient needs: where a term is zero for this state, its derivative may not be.
    The derivatives of all further terms add up to at most reach^j / j!."""
    j, size = 1, reach
    while size > exact and j < _TERMS - 1:
        j += 1
        size *= reach / j
    return j + 1


@kernel
def _forward(
    start: int, stop: int, s: Steps, exact: float, h: np.ndarray, largest: np.ndarray
) -> None:
    """All states, and the largest finite norm of a block (b, g)."""
    groups, k = s.h0.shape[1], s.h0.shape[2]
    p, x = np.zeros((_TERMS + 1, k), h.dtype), np.zeros(k, h.dtype)
    scales = np.zeros(_TERMS + 1, h.dtype)
    for block in range(start, stop):
        b, g = block // groups, block % groups
        copy_row(s.h0[b, g], x)
        largest[b, g] = 0
        for t in range(h.shape[1]):
            if s.reset.shape[0] > 0 and s.reset[b, t]:
                copy_row(s.start[g], x)
            norm = _norm(s.M[b, t, g])
            largest[b, g] = max(largest[b, g], norm if norm < np.inf else 0)
            count, reach = _cut(norm, scales)
            for _ in range(count):
                _series(s.M[b, t, g], s.v[b, t, g], scales, reach, exact, 1, p, x)
            copy_row(x, h[b, t, g])


@kernel
def _backward(
    start: int, stop: int, s: Steps, exact: float, h: np.ndarray, dh: np.ndarray,
    dlast: np.ndarray, most: int, grads: Gradients,
) -> None:  # fmt: skip
    groups, k = s.h0.shape[1], s.h0.shape[2]
    p, counts = np.zeros((most, _TERMS + 4, k), h.dtype), np.zeros(most, np.int64)
    q, turned = np.zeros((_TERMS + 4, k), h.dtype), np.zeros((k, k), h.dtype)
    scales = np.zeros(_TERMS + 1, h.dtype)
    x, d, scratch = np.zeros(k, h.dtype), np.zeros(k, h.dtype), np.zeros(k, h.dtype)
    for block in range(start, stop):
        b, g = block // groups, block % groups
        copy_row(dlast[b, g], d)
        grads.start[b, g] = 0
        for back in range(h.shape[1]):
            t = h.shape[1] - 1 - back
            M, v, dM, dv = s.M[b, t, g], s.v[b, t, g], grads.M[b, t, g], grads.v[b, t, g]
            fresh = s.reset.shape[0] > 0 and s.reset[b, t]
            if fresh:
                copy_row(s.start[g], x)
            elif t > 0:
                copy_row(h[b, t - 1, g], x)
            else:
                copy_row(s.h0[b, g], x)
            add_row(dh[b, t, g], d)
            count, reach = _cut(_norm(M), scales)
            least = _least(reach, exact)
            for i in range(count):
                counts[i] = _series(M, v, scales, reach, exact, least, p[i], x)
            _turn(M, turned)
            dM[:] = 0
            dv[:] = 0
            for i in range(count - 1, -1, -1):
                _series_back(turned, scales, counts[i], p[i], q, d, dM, dv, scratch)
            if fresh:
                add_row(d, grads.start[b, g])
                d[:] = 0
        copy_row(d, grads.h0[b, g])


def _steps(s: Inputs) -> Steps:
    reset = torch.zeros(0, 0, dtype=torch.bool) if s.reset is None else s.reset
    return Steps(*(dense(x).numpy() for x in (s.M, s.v, s.h0, s.start, reset)))


def largest_norm(M: Tensor) -> float:
    """Of all samples where it is finite."""
    norms = M.new_empty(M.shape[0], M.shape[2]).numpy()
    parallel_for(_largest, norms.size, M.numel(), dense(M.detach()).numpy(), norms)
    return float(norms.max(initial=0))


def _work(s: Inputs) -> tuple[int, int]:
    return s.h0.shape[0] * s.h0.shape[1], 16 * s.M.numel()


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    h = torch.empty_like(s.v, memory_format=torch.contiguous_format)
    largest = torch.empty_like(s.h0[..., 0]).numpy()
    exact = torch.finfo(h.dtype).eps / 2
    parallel_for(_forward, *_work(s), _steps(s), exact, h.numpy(), largest)
    found = largest.max(initial=0)
    expect(
        found <= _LIMIT,
        f"the norm of a matrix is {found:.3g}; the series of impl='cpu' takes up to {_LIMIT:g}, "
        "impl='reference' any",
    )
    return h, h[:, -1].clone()


def backward(s: Inputs, h: Tensor, grad_h: Tensor, grad_last: Tensor) -> dict[str, Tensor]:
    M, v, h0 = (x.new_empty(x.shape) for x in (s.M, s.v, s.h0))
    start = torch.empty_like(h0)
    grads = Gradients(on_large_pages(M).numpy(), v.numpy(), h0.numpy(), start.numpy())
    # one more than `_cut` finds: compiled in another place, a norm may be rounded otherwise
    most = int(np.ceil(largest_norm(s.M) / _REACH)) + 1
    parallel_for(
        _backward, *_work(s), _steps(s), torch.finfo(h.dtype).eps / 2, dense(h).numpy(),
        dense(grad_h).numpy(), dense(grad_last).numpy(), most, grads,
    )  # fmt: skip
    return {"M": M, "v": v, "h0": h0, "start": start.sum(0)}
