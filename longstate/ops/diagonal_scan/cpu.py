"""Numba: the rule of the diagonal scan, for the engine in `ops/_numba/lanes.py`.

    h_t = a_t h_{t-1} + x_t

Bound by memory: forward reads `a` and `x` and writes `h`; backward reads `a`, `h` and the gradient
of `h`, and writes two gradients. `a` is passed as rows: one row when it is constant, `b * t` when
it varies, so that the row of (b, t) is `b * a_batch + t * a_time`.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import dense, on_large_pages
from longstate.ops._numba import apart
from longstate.ops._numba.lanes import Place, clear, copy, scan
from longstate.ops.diagonal_scan import Inputs

_LANES = 256  # a row of complex64 fills 32 cache lines


@apart
def _add_decayed(a: np.ndarray, previous: np.ndarray, x: np.ndarray, h: np.ndarray) -> None:
    for j in range(h.shape[0]):
        h[j] = a[j] * previous[j] + x[j]


@apart
def _decay_back(a: np.ndarray, carry: np.ndarray, grad_h: np.ndarray, grad_x: np.ndarray) -> None:
    for j in range(carry.shape[0]):
        g = grad_h[j] + carry[j]
        grad_x[j] = g
        carry[j] = g * np.conj(a[j])


@apart
def _restart(carry: np.ndarray, grad_h: np.ndarray, grad_x: np.ndarray) -> None:
    for j in range(carry.shape[0]):
        grad_x[j] = grad_h[j] + carry[j]
        carry[j] = 0


@apart
def _set_product(g: np.ndarray, h: np.ndarray, out: np.ndarray) -> None:
    for j in range(out.shape[0]):
        out[j] = g[j] * np.conj(h[j])


@apart
def _add_product(g: np.ndarray, h: np.ndarray, out: np.ndarray) -> None:
    for j in range(out.shape[0]):
        out[j] += g[j] * np.conj(h[j])


class Gradients(NamedTuple):
    h: np.ndarray
    carry: np.ndarray  # b, n: what the later steps add to the gradient of this state
    a: np.ndarray  # rows, n; one row of sums for each sequence when `a` is constant


class Diagonal(NamedTuple):
    a: np.ndarray  # rows, n
    a_batch: int
    a_time: int
    h0: np.ndarray  # b, n
    h: np.ndarray  # b, t, n

    def scratch(rule: "Diagonal") -> np.ndarray:
        return np.empty(0, rule.h.dtype)

    def advance(rule: "Diagonal", at: Place, x: np.ndarray, work: np.ndarray) -> None:
        b, t, lo, hi = at.b, at.t, at.lo, at.hi
        if at.fresh:
            copy(x[b, t, lo:hi], rule.h[b, t, lo:hi])
            return
        a = rule.a[b * rule.a_batch + t * rule.a_time, lo:hi]
        if t == 0:
            _add_decayed(a, rule.h0[b, lo:hi], x[b, t, lo:hi], rule.h[b, t, lo:hi])
        else:
            _add_decayed(a, rule.h[b, t - 1, lo:hi], x[b, t, lo:hi], rule.h[b, t, lo:hi])

    def retreat(
        rule: "Diagonal", at: Place, x: np.ndarray, grads: Gradients, work: np.ndarray
    ) -> None:
        b, t, lo, hi = at.b, at.t, at.lo, at.hi
        g, carry, row = x[b, t, lo:hi], grads.carry[b, lo:hi], b * rule.a_batch + t
        if at.fresh:
            _restart(carry, grads.h[b, t, lo:hi], g)
            if rule.a_time:
                clear(grads.a[row, lo:hi])
            return
        a = rule.a[b * rule.a_batch + t * rule.a_time, lo:hi]
        _decay_back(a, carry, grads.h[b, t, lo:hi], g)
        previous = rule.h0[b, lo:hi] if t == 0 else rule.h[b, t - 1, lo:hi]
        if rule.a_time:
            _set_product(g, previous, grads.a[row, lo:hi])
        else:
            _add_product(g, previous, grads.a[b, lo:hi])


def _rule(s: Inputs, h0: Tensor, h: Tensor) -> Diagonal:
    _, t, n = h.shape
    a_batch, a_time = (0, 0) if s.a.dim() == 1 else (t, 1)
    a = dense(s.a).view(-1, n).numpy()
    return Diagonal(a, a_batch, a_time, dense(h0).numpy(), h.numpy())


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    x = dense(s.x)
    h0 = torch.zeros_like(x[:, 0]) if s.h0 is None else s.h0
    h = on_large_pages(torch.empty_like(x))
    scan(_rule(s, h0, h), x.numpy(), x.shape[2], s.reset, x.numel(), lanes=_LANES)
    return h, h[:, -1].clone()


def backward(s: Inputs, h0: Tensor, h: Tensor, grad_h: Tensor, carry: Tensor) -> dict[str, Tensor]:
    """Overwrites `carry`, the gradient of the last state, with that of h0."""
    carry, n = dense(carry), h.shape[2]
    grad_x = on_large_pages(torch.empty_like(h))
    # Constant `a`: one row of sums for each sequence, added up below in a fixed order.
    constant = s.a.dim() == 1
    grad_a = h.new_zeros(h.shape[0], n) if constant else h.new_empty(h.shape)
    on_large_pages(grad_a)
    grads = Gradients(dense(grad_h).numpy(), carry.numpy(), grad_a.view(-1, n).numpy())
    scan(_rule(s, h0, h), grad_x.numpy(), n, s.reset, h.numel(), grads, lanes=_LANES)
    return {"a": grad_a.sum(0) if constant else grad_a, "x": grad_x, "h0": carry}
