"""Numba. Lanes run along the state, which is contiguous; time is the outer loop.

Bound by memory: forward reads `a` and `x` and writes `h`; backward reads `a`, `h` and the gradient
of `h`, and writes two gradients. `a` is passed as rows: one row when it is constant, `b * t` when
it varies, so that the row of (b, t) is `b * a_batch + t * a_time`.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from longstate.ops._layout import dense, flags
from longstate.ops._memory import on_large_pages
from longstate.ops._threads import KERNEL, parallel_for

_LANES = 256  # states per block: a row of complex64 fills 32 cache lines


@njit(**KERNEL)
def _advance(a, x, previous, h):
    for j in range(h.shape[0]):
        h[j] = a[j] * previous[j] + x[j]


@njit(**KERNEL)
def _copy(x, h):
    for j in range(h.shape[0]):
        h[j] = x[j]


@njit(**KERNEL)
def _forward(start, stop, a, a_batch, a_time, x, h0, reset, has_reset, h, lanes):
    steps, n = x.shape[1], x.shape[2]
    per_row = (n + lanes - 1) // lanes
    for block in range(start, stop):
        b, lo = block // per_row, (block % per_row) * lanes
        hi = min(lo + lanes, n)
        for t in range(steps):
            if has_reset and reset[b, t]:
                _copy(x[b, t, lo:hi], h[b, t, lo:hi])
                continue
            row = a[b * a_batch + t * a_time, lo:hi]
            if t == 0:
                _advance(row, x[b, t, lo:hi], h0[b, lo:hi], h[b, t, lo:hi])
            else:
                _advance(row, x[b, t, lo:hi], h[b, t - 1, lo:hi], h[b, t, lo:hi])


@njit(**KERNEL)
def _retreat(a, carry, grad_h, grad_x):
    # carry: what the later steps add to the gradient of this state
    for j in range(carry.shape[0]):
        g = grad_h[j] + carry[j]
        grad_x[j] = g
        carry[j] = g * np.conj(a[j])


@njit(**KERNEL)
def _set_product(g, h, out):
    for j in range(out.shape[0]):
        out[j] = g[j] * np.conj(h[j])


@njit(**KERNEL)
def _add_product(g, h, out):
    for j in range(out.shape[0]):
        out[j] += g[j] * np.conj(h[j])


@njit(**KERNEL)
def _restart(carry, grad_h, grad_x):
    for j in range(carry.shape[0]):
        grad_x[j] = grad_h[j] + carry[j]
        carry[j] = 0


@njit(**KERNEL)
def _backward(
    start, stop, a, a_batch, a_time, h0, h, reset, has_reset, grad_h, carry, grad_a, grad_x, lanes
):
    steps, n = h.shape[1], h.shape[2]
    per_row = (n + lanes - 1) // lanes
    for block in range(start, stop):
        b, lo = block // per_row, (block % per_row) * lanes
        hi = min(lo + lanes, n)
        for t in range(steps - 1, -1, -1):
            g = grad_x[b, t, lo:hi]
            if has_reset and reset[b, t]:
                _restart(carry[b, lo:hi], grad_h[b, t, lo:hi], g)
                if a_time:
                    grad_a[b * a_batch + t, lo:hi] = 0
                continue
            _retreat(a[b * a_batch + t * a_time, lo:hi], carry[b, lo:hi], grad_h[b, t, lo:hi], g)
            previous = h0[b, lo:hi] if t == 0 else h[b, t - 1, lo:hi]
            if a_time:
                _set_product(g, previous, grad_a[b * a_batch + t, lo:hi])
            else:
                _add_product(g, previous, grad_a[b, lo:hi])


def _rows(a: Tensor, x: Tensor) -> tuple[np.ndarray, int, int]:
    n = x.shape[-1]
    if a.dim() == 1:
        return a.reshape(1, n).numpy(), 0, 0
    return a.reshape(-1, n).numpy(), x.shape[1], 1


def _blocks(x: Tensor) -> int:
    return x.shape[0] * -(-x.shape[2] // _LANES)


def forward(a: Tensor, x: Tensor, h0: Tensor | None, reset: Tensor | None) -> tuple[Tensor, Tensor]:
    a, x = dense(a), dense(x)
    h0 = torch.zeros_like(x[:, 0]) if h0 is None else dense(h0)
    h = on_large_pages(torch.empty_like(x))
    parallel_for(
        _forward, _blocks(x), x.numel(),
        *_rows(a, x), x.numpy(), h0.numpy(), flags(reset, x).numpy(), reset is not None,
        h.numpy(), _LANES,
    )  # fmt: skip
    return h, h[:, -1].clone()


def backward(
    a: Tensor,
    h0: Tensor | None,
    h: Tensor,
    reset: Tensor | None,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `a`, `x` and `h0`."""
    a = dense(a)
    start = torch.zeros_like(h[:, 0]) if h0 is None else dense(h0)
    grad_h = torch.zeros_like(h) if grad_h is None else dense(grad_h)
    carry = torch.zeros_like(start) if grad_last is None else dense(grad_last).clone()
    grad_x = on_large_pages(torch.empty_like(h))
    # Constant `a`: one row of sums for each sequence, added up below in a fixed order.
    constant = a.dim() == 1
    grad_a = h.new_zeros(h.shape[0], h.shape[2]) if constant else torch.empty_like(a)
    on_large_pages(grad_a)
    parallel_for(
        _backward, _blocks(h), h.numel(),
        *_rows(a, h), start.numpy(), h.numpy(), flags(reset, h).numpy(), reset is not None,
        grad_h.numpy(), carry.numpy(),
        grad_a.view(-1, h.shape[2]).numpy(), grad_x.numpy(), _LANES,
    )  # fmt: skip
    return grad_a.sum(0) if constant else grad_a, grad_x, carry
