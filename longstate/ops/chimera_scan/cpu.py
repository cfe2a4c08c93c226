"""Numba: the recurrence site by site, with lanes over the channels of a head.

A block of work is one sequence and up to `LANES` channels of one head. For each state of a site one
loop fills rows with the factors, and a second one advances both states; `cpu_site.py` has them.
The forward pass writes one state of all variates in CHUNK samples, from which the backward pass
recomputes the others.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import CHUNK, dense, on_large_pages
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.lanes import clear
from longstate.ops._numba.tiles import flags
from longstate.ops.chimera_scan import Inputs
from longstate.ops.chimera_scan.cpu_rows import (
    copy_states,
    forget,
    load,
    load_all,
    load_states,
    store,
    store_all,
    store_states,
)
from longstate.ops.chimera_scan.cpu_site import (
    CHANNEL,
    FACTORS,
    LANES,
    OF_CHANNEL,
    STATE,
    advance,
    factors,
    retreat,
    slopes,
)
from longstate.ops.zoh_scan import pole_rows


class Grid(NamedTuple):
    """Channels (head by head) are next to each other."""

    x: np.ndarray  # b, t, v, k p
    s: np.ndarray
    r: np.ndarray
    select: np.ndarray  # b, t, v, k, 6, n
    channels: np.ndarray  # n, 10, k p: the rows of `cpu_site`
    start: np.ndarray  # b, v, n, 4, k p: h and g, real and imaginary parts
    mask: np.ndarray  # b, t
    reset: np.ndarray  # b, t


class Block(NamedTuple):
    """The place of a block: a sequence, a head, and its channels from lo to hi."""

    b: int
    head: int
    group: int
    lo: int
    hi: int


@kernel
def _block(number: int, heads: int, p: int) -> Block:
    groups = (p + LANES - 1) // LANES
    b, rest = number // (heads * groups), number % (heads * groups)
    head, group = rest // groups, rest % groups
    lo = head * p + group * LANES
    return Block(b, head, group, lo, min(lo + LANES, (head + 1) * p))


class Work(NamedTuple):
    """What a thread works in, for one block."""

    channels: np.ndarray  # n, CHANNEL
    rows: np.ndarray  # 7, LANES: of a site
    zero: np.ndarray  # n, STATE: the variate before the first one


@kernel
def _work(grid: Grid) -> Work:
    n, dtype = grid.channels.shape[0], grid.x.dtype
    return Work(
        np.zeros((n, CHANNEL), dtype), np.zeros((7, LANES), dtype), np.zeros((n, STATE), dtype),
    )  # fmt: skip


@kernel
def _enter(grid: Grid, number: int, p: int, work: Work) -> Block:
    """The place of a block, whose channels are then in `work`."""
    at = _block(number, grid.select.shape[3], p)
    work.rows[:] = 0  # so that the lanes that this block does not use add nothing to any sum
    load_all(grid.channels, at.lo, at.hi, work.channels)
    return at


@inlined
def _sample(
    grid: Grid, at: Block, t: int, work: Work, f: np.ndarray, past: np.ndarray, states: np.ndarray,
    y: np.ndarray,
) -> None:  # fmt: skip
    """All variates of a sample: factors (v, n, FACTORS), states from past, (v, n, STATE), and y
    (v, LANES)."""
    x, s, r = work.rows[0], work.rows[1], work.rows[2]
    for v in range(past.shape[0]):
        load(grid.x[at.b, t, v], at.lo, at.hi, x, 0)
        load(grid.s[at.b, t, v], at.lo, at.hi, s, 0)
        load(grid.r[at.b, t, v], at.lo, at.hi, r, 0)
        factors(work.channels, s, r, f[v])
        before = work.zero if v == 0 else states[v - 1]
        select = grid.select[at.b, t, v, at.head]
        advance(work.channels, f[v], x, select, past[v], before, states[v], y[v])


@kernel
def _forward(
    start: int, stop: int, grid: Grid, p: int, y: np.ndarray, last: np.ndarray, kept: np.ndarray
) -> None:
    steps, variates, n = grid.x.shape[1], grid.x.shape[2], grid.channels.shape[0]
    states = np.zeros((2, variates, n, STATE), grid.x.dtype)
    outputs = np.zeros((variates, LANES), grid.x.dtype)
    f, work = np.zeros((variates, n, FACTORS), grid.x.dtype), _work(grid)
    for number in range(start, stop):
        at = _enter(grid, number, p, work)
        b, lo, hi = at.b, at.lo, at.hi
        now = 0
        load_states(grid.start[b], lo, hi, states[now])
        for t in range(steps):
            if kept.shape[1] > 0 and t % CHUNK == 0:
                store_states(states[now], kept[b, t // CHUNK], lo, hi)
            if grid.reset[b, t]:
                forget(states[now])
            if grid.mask[b, t]:
                _sample(grid, at, t, work, f, states[now], states[1 - now], outputs)
                now = 1 - now
            for v in range(variates):
                if grid.mask[b, t]:
                    store(outputs[v], 0, y[b, t, v], lo, hi)
                else:
                    clear(y[b, t, v, lo:hi])
        store_states(states[now], last[b], lo, hi)


class Gradients(NamedTuple):
    y: np.ndarray  # b, t, v, k p; it is read
    x: np.ndarray
    s: np.ndarray
    r: np.ndarray
    select: np.ndarray  # groups of a head, b, t, v, k, 6, n
    channels: np.ndarray  # b, n, 5, k p
    start: np.ndarray  # b, v, n, 4, k p; before, the gradients of the last states


@inlined
def _sample_back(
    grid: Grid, grads: Gradients, at: Block, t: int, work: Work, f: np.ndarray, past: np.ndarray,
    states: np.ndarray, carry: np.ndarray, above: np.ndarray, of_channels: np.ndarray,
) -> None:  # fmt: skip
    """carry: what later samples add to the gradients of the states after this sample, and then, to
    those of the states before it. above (n, STATE): the same of the next variate."""
    b, lo, hi = at.b, at.lo, at.hi
    rows = work.rows
    x, s, r, dy, dx, ds, dr = rows[0], rows[1], rows[2], rows[3], rows[4], rows[5], rows[6]
    for i in range(above.shape[0]):
        clear(above[i])
    for back in range(past.shape[0]):
        v = past.shape[0] - 1 - back
        load(grid.x[b, t, v], lo, hi, x, 0)
        load(grid.s[b, t, v], lo, hi, s, 0)
        load(grid.r[b, t, v], lo, hi, r, 0)
        load(grads.y[b, t, v], lo, hi, dy, 0)
        slopes(work.channels, s, r, f[v])
        before = work.zero if v == 0 else states[v - 1]
        retreat(
            work.channels, f[v], x, s, r, grid.select[b, t, v, at.head], past[v], before,
            states[v], dy, carry[v], above, dx, ds, dr,
            grads.select[at.group, b, t, v, at.head], of_channels,
        )  # fmt: skip
        store(dx, 0, grads.x[b, t, v], lo, hi)
        store(ds, 0, grads.s[b, t, v], lo, hi)
        store(dr, 0, grads.r[b, t, v], lo, hi)


@kernel
def _backward(
    start: int, stop: int, grid: Grid, p: int, kept: np.ndarray, grads: Gradients
) -> None:
    steps, variates, n = grid.x.shape[1], grid.x.shape[2], grid.channels.shape[0]
    dtype = grid.x.dtype
    states = np.zeros((CHUNK + 1, variates, n, STATE), dtype)
    none, carry = np.zeros_like(states[0]), np.zeros_like(states[0])
    above, outputs = np.zeros((n, STATE), dtype), np.zeros((variates, LANES), dtype)
    of_channels = np.zeros((n, OF_CHANNEL), dtype)
    f, work = np.zeros((CHUNK, variates, n, FACTORS), dtype), _work(grid)
    for number in range(start, stop):
        at = _enter(grid, number, p, work)
        b, lo, hi = at.b, at.lo, at.hi
        forget(carry)
        load_states(grads.start[b], lo, hi, carry)
        of_channels[:] = 0
        for first in range((steps - 1) // CHUNK * CHUNK, -1, -CHUNK):
            end = min(first + CHUNK, steps)
            load_states(kept[b, first // CHUNK], lo, hi, states[0])
            for t in range(first, end):
                past = none if grid.reset[b, t] else states[t - first]
                if grid.mask[b, t]:
                    _sample(grid, at, t, work, f[t - first], past, states[t - first + 1], outputs)
                else:
                    copy_states(past, states[t - first + 1])
            for back in range(end - first):
                t = end - 1 - back
                past = none if grid.reset[b, t] else states[t - first]
                after = states[t - first + 1]
                if grid.mask[b, t]:
                    _sample_back(
                        grid, grads, at, t, work, f[t - first], past, after, carry, above,
                        of_channels,
                    )  # fmt: skip
                if grid.reset[b, t]:
                    forget(carry)
        store_all(of_channels, grads.channels[b], lo, hi)
        store_states(carry, grads.start[b], lo, hi)


def _states(h: Tensor, g: Tensor) -> Tensor:
    """h and g (b, v, k, p, n) as one array (b, v, n, 4, k p)."""
    parts = torch.stack([h.real, h.imag, g.real, g.imag], 2)  # b, v, 4, k, p, n
    return parts.flatten(3, 4).permute(0, 1, 4, 2, 3).contiguous()


def _complex(states: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """The inverse of `_states`, in the shape of `like`."""
    pairs = states.unflatten(3, (2, 2)).permute(3, 0, 1, 5, 2, 4)  # 2, b, v, k p, n, 2
    h, g = torch.view_as_complex(pairs.contiguous()).reshape(2, *like.shape).unbind()
    return h.clone(), g.clone()


def _channels(s: Inputs) -> np.ndarray:
    """Rows of every channel and state: those of a, the same of -c, K1 and K2."""
    of_a = pole_rows(dense(s.a).flatten())
    of_c = pole_rows(torch.complex(-s.c, torch.zeros_like(s.c)).flatten())[[0, 2, 4]]
    rows = torch.cat([of_a, of_c, s.coupling.flatten(1)])
    return rows.unflatten(1, (-1, s.a.shape[2])).permute(2, 0, 1).contiguous().numpy()


def _grid(s: Inputs) -> Grid:
    x, steps, r = (dense(part).flatten(3).numpy() for part in (s.x, s.s, s.r))
    everywhere = torch.ones(s.x.shape[:2], dtype=torch.bool) if s.mask is None else s.mask
    nowhere = torch.zeros(s.x.shape[:2], dtype=torch.bool) if s.reset is None else s.reset
    select, start = dense(s.select).numpy(), _states(s.h0, s.g0).numpy()
    return Grid(x, steps, r, select, _channels(s), start, flags(everywhere), flags(nowhere))


def _size(s: Inputs) -> tuple[int, int]:
    b, _, _, k, p = s.x.shape
    return b * k * -(-p // LANES), 8 * s.x.numel() * s.a.shape[2]


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grid = _grid(s)
    b, t, v, k, p = s.x.shape
    y, last = on_large_pages(s.x.new_empty(s.x.shape)), torch.from_numpy(grid.start).clone()
    kept = s.x.new_empty(b, -(-t // CHUNK) if s.keep else 0, v, s.a.shape[2], 4, k * p)
    out = y.flatten(3).numpy(), last.numpy(), kept.numpy()
    parallel_for(_forward, *_size(s), grid, p, *out)
    return y, *_complex(last, s.h0), kept


def backward(s: Inputs, kept: Tensor, y: Tensor, h: Tensor, g: Tensor) -> dict[str, Tensor]:
    """Gradients, from those of y and of the last states."""
    grid = _grid(s)
    k, p, n = s.a.shape
    x, steps, r = (torch.zeros_like(part, memory_format=torch.contiguous_format) for part in s[:3])
    select = s.select.new_zeros(-(-p // LANES), *s.select.shape)
    # of each sequence; added in a fixed order
    channels, start = s.x.new_empty(len(s.x), n, OF_CHANNEL // LANES, k * p), _states(h, g)
    dy, dx, ds, dr = (part.flatten(3).numpy() for part in (dense(y), x, steps, r))
    grads = Gradients(dy, dx, ds, dr, select.numpy(), channels.numpy(), start.numpy())
    parallel_for(_backward, *_size(s), grid, p, kept.numpy(), grads)
    total = channels.sum(0).permute(1, 2, 0).reshape(-1, k, p, n)
    h0, g0 = _complex(start, s.h0)
    return {
        "x": x, "s": steps, "r": r, "select": select.sum(0), "a": torch.complex(*total[:2]),
        "c": total[2].clone(), "coupling": total[3:].clone(), "h0": h0, "g0": g0,
    }  # fmt: skip
