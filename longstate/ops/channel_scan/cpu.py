"""Numba: the recurrence, with lanes over channels and the states of a tile in the cache.

Eight multiply-adds a sample and mode, no state ever written to memory: reads `u`, writes `y`. The
backward pass needs nothing from the forward pass; it runs the states forward once, keeping those at
the start of each tile, then goes back tile by tile and recomputes the states of each.

A block is one sequence and `_LANES` channels. What belongs to one mode of a block lies in one flat
array, row after row, so that the compiler sees constant distances and needs no checks for overlap.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import dense, on_large_pages
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.rows import copy_row, load_columns, store_columns
from longstate.ops.channel_scan import Inputs

_LANES = 64
_TILE = 64  # samples; a tile of u is 16 KiB in float32
_ROWS = 16
# Rows of one mode: the state, the system, and in the backward pass the gradient of the state and
# the sums for the gradients of the system; each as real and imaginary part.
_H, _A, _B, _C, _G, _GA, _GB, _GC = (2 * _LANES * i for i in range(8))


# LLVM vectorises the three innermost loops only if it can prove that every index is at least 0:
# hence constants plus j, and views of single rows where time runs backwards.


@inlined
def _advance(ws: np.ndarray, u: np.ndarray, y: np.ndarray, steps: int) -> None:
    """Run one mode over a tile and add its share to y."""
    for t in range(steps):
        for j in range(_LANES):
            x = u[t, j]
            re, im = ws[j], ws[_LANES + j]
            a_re, a_im = ws[_A + j], ws[_A + _LANES + j]
            new_re = a_re * re - a_im * im + ws[_B + j] * x
            new_im = a_re * im + a_im * re + ws[_B + _LANES + j] * x
            ws[j] = new_re
            ws[_LANES + j] = new_im
            y[t, j] += ws[_C + j] * new_re - ws[_C + _LANES + j] * new_im


@inlined
def _advance_keeping(ws: np.ndarray, u: np.ndarray, past: np.ndarray, steps: int) -> None:
    """Run one mode over a tile; keep its state before every sample."""
    for t in range(steps):
        for j in range(_LANES):
            x = u[t, j]
            re, im = ws[j], ws[_LANES + j]
            a_re, a_im = ws[_A + j], ws[_A + _LANES + j]
            past[t, j] = re
            past[t, _LANES + j] = im
            ws[j] = a_re * re - a_im * im + ws[_B + j] * x
            ws[_LANES + j] = a_re * im + a_im * re + ws[_B + _LANES + j] * x


@inlined
def _retreat(
    ws: np.ndarray, past: np.ndarray, u: np.ndarray, dy: np.ndarray, du: np.ndarray, steps: int
) -> None:
    """Backward through a tile: the gradient of one mode's state, and those that depend on it."""
    for back in range(steps):
        t = steps - 1 - back
        x, g, add = u[t], dy[t], du[t]
        before, after = past[t], past[t + 1]
        for j in range(_LANES):
            ws[_GC + j] += g[j] * after[j]
            ws[_GC + _LANES + j] -= g[j] * after[_LANES + j]
            re = ws[_G + j] + ws[_C + j] * g[j]
            im = ws[_G + _LANES + j] - ws[_C + _LANES + j] * g[j]
            h_re, h_im = before[j], before[_LANES + j]
            ws[_GA + j] += re * h_re + im * h_im
            ws[_GA + _LANES + j] += im * h_re - re * h_im
            ws[_GB + j] += re * x[j]
            ws[_GB + _LANES + j] += im * x[j]
            add[j] += ws[_B + j] * re + ws[_B + _LANES + j] * im
            a_re, a_im = ws[_A + j], ws[_A + _LANES + j]
            ws[_G + j] = a_re * re + a_im * im
            ws[_G + _LANES + j] = a_re * im - a_im * re


@kernel
def _load_mode(ws: np.ndarray, row: int, x: np.ndarray, lo: int, hi: int) -> None:
    """Rows of real and imaginary parts from x (channels, 2)."""
    for j in range(_LANES):
        inside = lo + j < hi
        ws[row + j] = x[lo + j, 0] if inside else 0
        ws[row + _LANES + j] = x[lo + j, 1] if inside else 0


@kernel
def _store_mode(ws: np.ndarray, row: int, x: np.ndarray, lo: int, hi: int) -> None:
    for j in range(hi - lo):
        x[lo + j, 0] = ws[row + j]
        x[lo + j, 1] = ws[row + _LANES + j]


@kernel
def _load_system(
    ws: np.ndarray, A: np.ndarray, B: np.ndarray, C: np.ndarray, h0: np.ndarray, lo: int, hi: int
) -> None:
    for m in range(A.shape[0]):
        _load_mode(ws[m], _H, h0[m], lo, hi)
        _load_mode(ws[m], _A, A[m], lo, hi)
        _load_mode(ws[m], _B, B[m], lo, hi)
        _load_mode(ws[m], _C, C[m], lo, hi)


class System(NamedTuple):
    """Channels are next to each other; complex numbers are pairs."""

    A: np.ndarray  # n, d, 2
    B: np.ndarray
    C: np.ndarray
    h0: np.ndarray  # b, n, d, 2
    lengths: np.ndarray  # b


class Gradients(NamedTuple):
    u: np.ndarray  # b, t, d
    h0: np.ndarray  # b, n, d, 2
    sums: np.ndarray  # b, 3, n, d, 2: of A, B and C, for each sequence


@kernel
def _forward(
    start: int, stop: int, system: System, u: np.ndarray, y: np.ndarray, last: np.ndarray
) -> None:
    A, B, C, h0, lengths = system
    d, n = u.shape[2], A.shape[0]
    groups = (d + _LANES - 1) // _LANES
    ws = np.zeros((n, _ROWS * _LANES), u.dtype)
    u_tile, y_tile = np.zeros((_TILE, _LANES), u.dtype), np.zeros((_TILE, _LANES), u.dtype)
    for block in range(start, stop):
        b, lo = block // groups, (block % groups) * _LANES
        hi = min(lo + _LANES, d)
        _load_system(ws, A, B, C, h0[b], lo, hi)
        for begin in range(0, lengths[b], _TILE):
            steps = min(_TILE, lengths[b] - begin)
            load_columns(u_tile, u[b], begin, steps, lo, hi)
            y_tile[:] = 0
            for m in range(n):
                _advance(ws[m], u_tile, y_tile, steps)
            store_columns(y_tile, y[b], begin, steps, lo, hi)
        y[b, lengths[b] :, lo:hi] = 0
        for m in range(n):
            _store_mode(ws[m], _H, last[b, m], lo, hi)


@kernel
def _remember_borders(
    ws: np.ndarray,
    u: np.ndarray,
    length: int,
    lo: int,
    hi: int,
    u_tile: np.ndarray,
    past: np.ndarray,
    borders: np.ndarray,
) -> None:
    """Run all states forward; keep the states at the start of each tile."""
    for i in range((length + _TILE - 1) // _TILE):
        steps = min(_TILE, length - i * _TILE)
        load_columns(u_tile, u, i * _TILE, steps, lo, hi)
        for m in range(ws.shape[0]):
            copy_row(ws[m], borders[i, m])
            _advance_keeping(ws[m], u_tile, past, steps)


@kernel
def _backward(
    start: int, stop: int, system: System, u: np.ndarray, dy: np.ndarray, dlast: np.ndarray,
    grads: Gradients,
) -> None:  # fmt: skip
    A, B, C, h0, lengths = system
    du, dh0, sums = grads
    d, n = u.shape[2], A.shape[0]
    groups = (d + _LANES - 1) // _LANES
    ws = np.zeros((n, _ROWS * _LANES), u.dtype)
    u_tile, g_tile = np.zeros((_TILE, _LANES), u.dtype), np.zeros((_TILE, _LANES), u.dtype)
    du_tile = np.zeros((_TILE, _LANES), u.dtype)
    past = np.zeros((_TILE + 1, 2 * _LANES), u.dtype)
    borders = np.empty(((u.shape[1] + _TILE - 1) // _TILE, n, 2 * _LANES), u.dtype)
    for block in range(start, stop):
        b, lo = block // groups, (block % groups) * _LANES
        hi = min(lo + _LANES, d)
        ws[:] = 0
        _load_system(ws, A, B, C, h0[b], lo, hi)
        _remember_borders(ws, u[b], lengths[b], lo, hi, u_tile, past, borders)
        for m in range(n):
            _load_mode(ws[m], _G, dlast[b, m], lo, hi)
        for i in range((lengths[b] + _TILE - 1) // _TILE - 1, -1, -1):
            steps = min(_TILE, lengths[b] - i * _TILE)
            load_columns(u_tile, u[b], i * _TILE, steps, lo, hi)
            load_columns(g_tile, dy[b], i * _TILE, steps, lo, hi)
            du_tile[:] = 0
            for m in range(n):
                copy_row(borders[i, m], ws[m, : 2 * _LANES])
                _advance_keeping(ws[m], u_tile, past, steps)
                copy_row(ws[m], past[steps])
                _retreat(ws[m], past, u_tile, g_tile, du_tile, steps)
            store_columns(du_tile, du[b], i * _TILE, steps, lo, hi)
        du[b, lengths[b] :, lo:hi] = 0
        for m in range(n):
            _store_mode(ws[m], _G, dh0[b, m], lo, hi)
            _store_mode(ws[m], _GA, sums[b, 0, m], lo, hi)
            _store_mode(ws[m], _GB, sums[b, 1, m], lo, hi)
            _store_mode(ws[m], _GC, sums[b, 2, m], lo, hi)


def _modes_first(x: Tensor) -> np.ndarray:
    """(..., d, n) complex -> (..., n, d, 2) real, contiguous."""
    return torch.view_as_real(dense(x.mT)).numpy()


def _channels_first(x: Tensor) -> Tensor:
    """(..., n, d, 2) real -> (..., d, n) complex; a copy: an op's outputs must not share memory."""
    return torch.view_as_complex(x).mT.clone(memory_format=torch.contiguous_format)


def _work(u: Tensor, A: Tensor) -> tuple[int, int]:
    return u.shape[0] * -(-u.shape[2] // _LANES), u.numel() * A.shape[1]


def _system(s: Inputs) -> System:
    A, B, C, h0 = map(_modes_first, (s.A, s.B, s.C, s.h0))
    return System(A, B, C, h0, s.lengths.numpy())


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    """y (b, t, d) = Re(C h) and the last state; A, B, C (d, n) and h0 (b, d, n) complex."""
    u, (b, d, n) = dense(s.u), s.h0.shape
    y = on_large_pages(torch.empty_like(u))
    last = torch.empty(b, n, d, 2, dtype=u.dtype)
    parallel_for(_forward, *_work(u, s.A), _system(s), u.numpy(), y.numpy(), last.numpy())
    return y, _channels_first(last)


def backward(s: Inputs, grad_y: Tensor, grad_last: Tensor) -> dict[str, Tensor]:
    u, (b, d, n) = dense(s.u), s.h0.shape
    grad_u = on_large_pages(torch.empty_like(u))
    grad_h0 = torch.empty(b, n, d, 2, dtype=u.dtype)
    sums = torch.empty(b, 3, n, d, 2, dtype=u.dtype)  # for each sequence; added in a fixed order
    parallel_for(
        _backward, *_work(u, s.A), _system(s), u.numpy(), dense(grad_y).numpy(),
        _modes_first(grad_last), Gradients(grad_u.numpy(), grad_h0.numpy(), sums.numpy()),
    )  # fmt: skip
    grad_A, grad_B, grad_C = (_channels_first(x) for x in sums.sum(0))
    return {"u": grad_u, "A": grad_A, "B": grad_B, "C": grad_C, "h0": _channels_first(grad_h0)}
