"""Numba: the recurrence, with lanes over channels; one loop over the modes for each sample.

    h_t = a h_{t-1} + p w_t + b u_t        w_t = sum of Re(q h_{t-1}) over modes, for each rank
    y_t = sum of Re(c h_t) over modes

The loop that moves the modes on also reads them: y_t, and w_{t+1}, which the next sample needs.
A sample costs 8 multiply-adds for each mode, as in a diagonal system, and 4 for each rank. The
gradient runs in the same way, backward in time. The forward pass writes one state in CHUNK, from
which the backward pass recomputes the others; CHUNK is even, so that the two columns of states
between which it goes back and forth are where they were after every tile.

A block is one sequence and `LANES` channels. What belongs to one mode of a block lies in one flat
array, row after row; all modes of a block fit in the cache.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import CHUNK, dense, on_large_pages
from longstate.ops._numba import kernel, parallel_for
from longstate.ops._numba.rows import copy_row, load_columns, store_columns
from longstate.ops.dplr_channel_scan import Inputs
from longstate.ops.dplr_channel_scan.cpu_modes import (
    LANES,
    PAIR,
    add_up,
    advance,
    last_output,
    read,
    read_back,
    retreat,
)


class Tile(NamedTuple):
    """What the backward pass holds of the samples of a tile. Where there are CHUNK + 1 of
    something, the first is of the sample before the tile."""

    u: np.ndarray  # CHUNK, LANES
    dy: np.ndarray  # CHUNK, LANES: of the sample before each
    w: np.ndarray  # CHUNK + 1, r * LANES: of each, and the next
    states: np.ndarray  # n, CHUNK + 1, PAIR
    grads: np.ndarray  # n, CHUNK + 1, PAIR
    dw: np.ndarray  # CHUNK + 1, r * LANES
    du: np.ndarray  # CHUNK + 1, LANES


class System(NamedTuple):
    """Channels are next to each other."""

    ranks: tuple[int, ...]  # a zero for each
    rows: np.ndarray  # n, 3 + 2 r, 2, d: a, b, c, then p and q of each rank
    h0: np.ndarray  # b, n, 2, d
    lengths: np.ndarray  # b


class Gradients(NamedTuple):
    u: np.ndarray  # b, t, d
    h0: np.ndarray  # b, n, 2, d
    rows: np.ndarray  # b, n, 3 + 2 r, 2, d, for each sequence


@kernel
def _load_row(row: np.ndarray, x: np.ndarray, lo: int, hi: int) -> None:
    """One row of all modes, (n, PAIR) from x (n, 2, d)."""
    for m in range(x.shape[0]):
        for part in range(2):
            for j in range(hi - lo):
                row[m, part * LANES + j] = x[m, part, lo + j]


@kernel
def _store_row(row: np.ndarray, x: np.ndarray, lo: int, hi: int) -> None:
    for m in range(x.shape[0]):
        for part in range(2):
            for j in range(hi - lo):
                x[m, part, lo + j] = row[m, part * LANES + j]


@kernel
def _forward(
    start: int, stop: int, system: System, u: np.ndarray, y: np.ndarray, last: np.ndarray,
    kept: np.ndarray,
) -> None:  # fmt: skip
    n, r = system.rows.shape[0], len(system.ranks)
    groups = (u.shape[2] + LANES - 1) // LANES
    rows = np.zeros((n, (3 + 2 * r) * PAIR), u.dtype)
    states = np.zeros((n, 2, PAIR), u.dtype)
    w = np.zeros((2, r * LANES), u.dtype)
    u_tile, y_tile = np.zeros((CHUNK, LANES), u.dtype), np.zeros((CHUNK, LANES), u.dtype)
    for block in range(start, stop):
        b, lo = block // groups, (block % groups) * LANES
        hi, length = min(lo + LANES, u.shape[2]), system.lengths[b]
        for row in range(3 + 2 * r):
            _load_row(rows[:, row * PAIR :], system.rows[:, row], lo, hi)
        _load_row(states[:, 0], system.h0[b], lo, hi)
        read(rows, system.ranks, states, w[0])
        for begin in range(0, length, CHUNK):
            steps = min(CHUNK, length - begin)
            if kept.shape[1] > 0:
                _store_row(states[:, 0], kept[b, begin // CHUNK], lo, hi)
            load_columns(u_tile, u[b], begin, steps, lo, hi)
            for t in range(steps):
                now, after = t % 2, 1 - t % 2
                advance(
                    rows, system.ranks, states, now, states, after, u_tile[t], w[now], y_tile[t],
                    w[after],
                )  # fmt: skip
            store_columns(y_tile, y[b], begin, steps, lo, hi)
        y[b, length:, lo:hi] = 0
        _store_row(states[:, length % 2], last[b], lo, hi)


@kernel
def _load_tile(
    tile: Tile, u: np.ndarray, dy: np.ndarray, begin: int, steps: int, lo: int, hi: int
) -> None:
    load_columns(tile.u, u, begin, steps, lo, hi)
    if begin > 0:
        load_columns(tile.dy, dy, begin - 1, steps, lo, hi)
    else:
        tile.dy[0] = 0
        load_columns(tile.dy[1:], dy, 0, steps - 1, lo, hi)


@kernel
def _enter(
    tile: Tile, rows: np.ndarray, sums: np.ndarray, ranks: tuple, steps: int, dy: np.ndarray,
    lo: int, hi: int,
) -> None:  # fmt: skip
    """Gradients after the last sample of a tile: those before the first one of the next tile, and
    at the end of the sequence, where `dy` is (1, d) and not (0, d), of the last output."""
    for m in range(rows.shape[0]):
        copy_row(tile.grads[m, 0], tile.grads[m, steps])
    if len(dy) > 0:
        load_columns(tile.du, dy, 0, 1, lo, hi)
        last_output(rows, sums, tile.states, tile.grads, steps, tile.du[0])
        read_back(rows, ranks, tile.grads, steps, tile.du[0], tile.dw[0])
    copy_row(tile.du[0], tile.du[steps])
    copy_row(tile.dw[0], tile.dw[steps])


@kernel
def _run(tile: Tile, rows: np.ndarray, ranks: tuple, steps: int) -> None:
    """The states of a tile, forward."""
    states, w, unused = tile.states, tile.w, tile.du[CHUNK]
    read(rows, ranks, states, w[0])
    for t in range(steps):
        advance(rows, ranks, states, t, states, t + 1, tile.u[t], w[t], unused, w[t + 1])


@kernel
def _run_back(tile: Tile, rows: np.ndarray, sums: np.ndarray, ranks: tuple, steps: int) -> None:
    """Their gradients, backward, and with both the sums."""
    grads, du, dw = tile.grads, tile.du, tile.dw
    for i in range(steps):
        t = steps - 1 - i
        retreat(rows, ranks, grads, grads, t, tile.dy[t], dw[t + 1], du[t], dw[t])
    for m in range(rows.shape[0]):
        add_up(sums[m], ranks, tile.states[m], grads[m], tile.u, tile.w, tile.dy, dw, steps)


@kernel
def _backward(
    start: int, stop: int, system: System, u: np.ndarray, kept: np.ndarray, dy: np.ndarray,
    dlast: np.ndarray, grads: Gradients,
) -> None:  # fmt: skip
    ranks, n, r = system.ranks, system.rows.shape[0], len(system.ranks)
    groups = (u.shape[2] + LANES - 1) // LANES
    rows = np.zeros((n, (3 + 2 * r) * PAIR), u.dtype)
    sums = np.zeros_like(rows)
    tile = Tile(
        np.zeros((CHUNK, LANES), u.dtype), np.zeros((CHUNK, LANES), u.dtype),
        np.zeros((CHUNK + 1, r * LANES), u.dtype), np.zeros((n, CHUNK + 1, PAIR), u.dtype),
        np.zeros((n, CHUNK + 1, PAIR), u.dtype), np.zeros((CHUNK + 1, r * LANES), u.dtype),
        np.zeros((CHUNK + 1, LANES), u.dtype),
    )  # fmt: skip
    for block in range(start, stop):
        b, lo = block // groups, (block % groups) * LANES
        hi, length = min(lo + LANES, u.shape[2]), system.lengths[b]
        for row in range(3 + 2 * r):
            _load_row(rows[:, row * PAIR :], system.rows[:, row], lo, hi)
        sums[:] = 0
        _load_row(tile.grads[:, 0], dlast[b], lo, hi)
        for i in range((length + CHUNK - 1) // CHUNK - 1, -1, -1):
            end = min((i + 1) * CHUNK, length)
            steps = end - i * CHUNK
            _load_row(tile.states[:, 0], kept[b, i], lo, hi)
            _load_tile(tile, u[b], dy[b], i * CHUNK, steps, lo, hi)
            _run(tile, rows, ranks, steps)
            last = dy[b, end - 1 : end if end == length else 0]
            _enter(tile, rows, sums, ranks, steps, last, lo, hi)
            _run_back(tile, rows, sums, ranks, steps)
            store_columns(tile.du[1:], grads.u[b], i * CHUNK, steps, lo, hi)
        grads.u[b, length:, lo:hi] = 0
        _store_row(tile.grads[:, 0], grads.h0[b], lo, hi)
        for row in range(3 + 2 * r):
            _store_row(sums[:, row * PAIR :], grads.rows[b, :, row], lo, hi)


def _modes_first(x: Tensor) -> np.ndarray:
    """(..., d, n) complex -> (..., n, 2, d) real, contiguous."""
    return dense(torch.view_as_real(dense(x)).movedim(-3, -1)).numpy()


def _channels_first(x: Tensor) -> Tensor:
    """(..., n, 2, d) real -> (..., d, n) complex."""
    return torch.complex(*x.unbind(-2)).mT.contiguous()


def _system(s: Inputs) -> System:
    # conj_physical: inside an op of a compiled graph, arithmetic does not see a lazy conjugation
    low_rank = torch.stack([-s.P, 2 * s.Q.conj_physical()], -1).flatten(-2)  # (d, n, 2 r)
    rows = torch.cat([torch.stack([s.A, s.B, 2 * s.C], -1), low_rank], -1)  # (d, n, 3 + 2 r)
    rows = torch.view_as_real(dense(rows)).permute(1, 2, 3, 0)
    ranks = (0,) * s.P.shape[-1]
    return System(ranks, dense(rows).numpy(), _modes_first(s.h0), s.lengths.numpy())


def _work(s: Inputs) -> tuple[int, int]:
    return s.u.shape[0] * -(-s.u.shape[2] // LANES), s.u.numel() * s.A.shape[1]


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    u, (b, d, n) = dense(s.u), s.h0.shape
    y = on_large_pages(torch.empty_like(u))
    last = u.new_empty(b, n, 2, d)
    kept = u.new_zeros(b, -(-u.shape[1] // CHUNK) if s.keep else 0, n, 2, d)
    parallel_for(
        _forward, *_work(s), _system(s), u.numpy(), y.numpy(), last.numpy(), kept.numpy()
    )  # fmt: skip
    return y, _channels_first(last), kept


def backward(s: Inputs, kept: Tensor, grad_y: Tensor, grad_last: Tensor) -> dict[str, Tensor]:
    u, (b, d, n), r = dense(s.u), s.h0.shape, s.P.shape[-1]
    grad_u = on_large_pages(torch.empty_like(u))
    grad_h0 = u.new_empty(b, n, 2, d)
    sums = u.new_empty(b, n, 3 + 2 * r, 2, d)  # for each sequence; added in a fixed order
    parallel_for(
        _backward, *_work(s), _system(s), u.numpy(), kept.numpy(), dense(grad_y).numpy(),
        _modes_first(grad_last), Gradients(grad_u.numpy(), grad_h0.numpy(), sums.numpy()),
    )  # fmt: skip
    A, B, C, *factors = map(_channels_first, sums.sum(0).unbind(1))
    return {
        "u": grad_u, "A": A, "P": -torch.stack(factors[::2], -1),
        "Q": 2 * torch.stack(factors[1::2], -1).conj_physical(), "B": B, "C": 2 * C,
        "h0": _channels_first(grad_h0),
    }  # fmt: skip
