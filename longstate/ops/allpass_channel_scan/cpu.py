"""Numba: the recurrence, with lanes over channels, section after section for each sample.

    o^k_t = o^{k-1}_{t-1} + rho (o^k_{t-1} - o^{k-1}_t)        y_t = sum of C_k o^k_t

A section waits for the one before it, four cycles, for all lanes at once. The gradient g^k_t of
o^k_t is the same chain, from the last section and the last sample to the first:

    g^k_t = C_k dy_t + g^{k+1}_{t+1} + rho (g^k_{t+1} - g^{k+1}_t)

The forward pass writes one state in CHUNK, from which the backward pass recomputes the others.

A block is one sequence and `_LANES` channels.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from longstate.ops._layout import CHUNK, dense, on_large_pages
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.rows import add_row, load_columns, store_columns
from longstate.ops.allpass_channel_scan import Inputs

_LANES = 32


@inlined
def _advance(
    rho: np.ndarray, C: np.ndarray, states: np.ndarray, now: int, into: np.ndarray, after: int,
    u: np.ndarray, y: np.ndarray, above: np.ndarray,
) -> None:  # fmt: skip
    """One sample: into[after] from states[now].

    `into` and `states` are one array; as two arguments the compiler takes them for separate ones.
    """
    for j in range(_LANES):
        into[after, 0, j] = u[j]
        above[j] = u[j]
        y[j] = 0
    for k in range(C.shape[0]):
        weight, below, old, out = C[k], states[now, k], states[now, k + 1], into[after, k + 1]
        for j in range(_LANES):
            new = below[j] + rho[j] * old[j] - rho[j] * above[j]
            out[j] = new
            above[j] = new
            y[j] += weight[j] * new


@inlined
def _retreat(
    rho: np.ndarray, C: np.ndarray, carry: np.ndarray, old: np.ndarray, new: np.ndarray,
    dy: np.ndarray, du: np.ndarray, drho: np.ndarray, dC: np.ndarray, below: np.ndarray,
) -> None:  # fmt: skip
    """One sample back. carry (n + 1, _LANES): what later samples add to the gradients of the state
    after this sample, and then, to those of the state before it. `old` and `new` are these states.
    """
    for j in range(_LANES):
        below[j] = 0
    n = C.shape[0]
    for i in range(n):
        k = n - i
        weight, add, total, c = C[k - 1], new[k], dC[k - 1], carry[k]
        before, above = old[k], new[k - 1]
        for j in range(_LANES):
            g = weight[j] * dy[j] + c[j] - rho[j] * below[j]
            c[j] = below[j] + rho[j] * g
            drho[j] += g * (before[j] - above[j])
            total[j] += dy[j] * add[j]
            below[j] = g
    for j in range(_LANES):
        du[j] = carry[0, j] - rho[j] * below[j]
        carry[0, j] = below[j]


class System(NamedTuple):
    """Channels are next to each other."""

    rho: np.ndarray  # 1, d
    C: np.ndarray  # n, d
    h0: np.ndarray  # b, n + 1, d
    lengths: np.ndarray  # b


class Gradients(NamedTuple):
    """Those of rho and C for each sequence."""

    u: np.ndarray  # b, t, d
    rho: np.ndarray  # b, 1, d
    C: np.ndarray  # b, n, d
    h0: np.ndarray  # b, n + 1, d


@kernel
def _forward(
    start: int, stop: int, system: System, u: np.ndarray, y: np.ndarray, last: np.ndarray,
    kept: np.ndarray,
) -> None:  # fmt: skip
    n = system.C.shape[0]
    groups = (u.shape[2] + _LANES - 1) // _LANES
    rho, C = np.zeros((1, _LANES), u.dtype), np.zeros((n, _LANES), u.dtype)
    states, above = np.zeros((2, n + 1, _LANES), u.dtype), np.zeros(_LANES, u.dtype)
    u_tile, y_tile = np.zeros((CHUNK, _LANES), u.dtype), np.zeros((CHUNK, _LANES), u.dtype)
    for block in range(start, stop):
        b, lo = block // groups, (block % groups) * _LANES
        hi, length = min(lo + _LANES, u.shape[2]), system.lengths[b]
        load_columns(rho, system.rho, 0, 1, lo, hi)
        load_columns(C, system.C, 0, n, lo, hi)
        load_columns(states[0], system.h0[b], 0, n + 1, lo, hi)
        for begin in range(0, length, CHUNK):
            steps = min(CHUNK, length - begin)
            if kept.shape[1] > 0:
                store_columns(states[0], kept[b, begin // CHUNK], 0, n + 1, lo, hi)
            load_columns(u_tile, u[b], begin, steps, lo, hi)
            for t in range(steps):
                now, after = t % 2, 1 - t % 2
                _advance(rho[0], C, states, now, states, after, u_tile[t], y_tile[t], above)
            store_columns(y_tile, y[b], begin, steps, lo, hi)
        y[b, length:, lo:hi] = 0
        store_columns(states[length % 2], last[b], 0, n + 1, lo, hi)


@kernel
def _backward(
    start: int, stop: int, system: System, u: np.ndarray, kept: np.ndarray, dy: np.ndarray,
    dlast: np.ndarray, grads: Gradients,
) -> None:  # fmt: skip
    n = system.C.shape[0]
    groups = (u.shape[2] + _LANES - 1) // _LANES
    rho, C = np.zeros((1, _LANES), u.dtype), np.zeros((n, _LANES), u.dtype)
    drho, dC, part = np.zeros_like(rho), np.zeros_like(C), np.zeros_like(rho[0])
    states, carry = (
        np.zeros((CHUNK + 1, n + 1, _LANES), u.dtype),
        np.zeros((n + 1, _LANES), u.dtype),
    )
    u_tile, g_tile = np.zeros((CHUNK, _LANES), u.dtype), np.zeros((CHUNK, _LANES), u.dtype)
    du_tile, beside = np.zeros((CHUNK, _LANES), u.dtype), np.zeros(_LANES, u.dtype)
    for block in range(start, stop):
        b, lo = block // groups, (block % groups) * _LANES
        hi, length = min(lo + _LANES, u.shape[2]), system.lengths[b]
        load_columns(rho, system.rho, 0, 1, lo, hi)
        load_columns(C, system.C, 0, n, lo, hi)
        load_columns(carry, dlast[b], 0, n + 1, lo, hi)
        drho[:] = 0
        dC[:] = 0
        for i in range((length + CHUNK - 1) // CHUNK - 1, -1, -1):
            begin = i * CHUNK
            steps = min(CHUNK, length - begin)
            load_columns(u_tile, u[b], begin, steps, lo, hi)
            load_columns(g_tile, dy[b], begin, steps, lo, hi)
            load_columns(states[0], kept[b, i], 0, n + 1, lo, hi)
            for t in range(steps):
                _advance(rho[0], C, states, t, states, t + 1, u_tile[t], du_tile[t], beside)
            part[:] = 0  # sums of sums lose fewer digits
            for back in range(steps):
                t = steps - 1 - back
                _retreat(
                    rho[0], C, carry, states[t], states[t + 1], g_tile[t], du_tile[t], part, dC,
                    beside,
                )  # fmt: skip
            add_row(part, drho[0])
            store_columns(du_tile, grads.u[b], begin, steps, lo, hi)
        grads.u[b, length:, lo:hi] = 0
        store_columns(drho, grads.rho[b], 0, 1, lo, hi)
        store_columns(dC, grads.C[b], 0, n, lo, hi)
        store_columns(carry, grads.h0[b], 0, n + 1, lo, hi)


def _channels_last(x: Tensor) -> np.ndarray:
    return dense(x.mT).numpy()


def _system(s: Inputs) -> System:
    rho = dense(s.rho)[None].numpy()
    return System(rho, _channels_last(s.C), _channels_last(s.h0), s.lengths.numpy())


def _work(s: Inputs) -> tuple[int, int]:
    return s.u.shape[0] * -(-s.u.shape[2] // _LANES), s.u.numel() * s.C.shape[1]


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    u, (b, d, n) = dense(s.u), s.h0.shape
    y = on_large_pages(u.new_empty(u.shape))
    last = u.new_empty(b, n, d)
    kept = u.new_zeros(b, (u.shape[1] + CHUNK - 1) // CHUNK if s.keep else 0, n, d)
    parallel_for(
        _forward, *_work(s), _system(s), u.numpy(), y.numpy(), last.numpy(), kept.numpy()
    )  # fmt: skip
    return y, last.mT.contiguous(), kept


def backward(s: Inputs, kept: Tensor, grad_y: Tensor, grad_last: Tensor) -> dict[str, Tensor]:
    u, (b, d, n) = dense(s.u), s.h0.shape
    grad_u = on_large_pages(u.new_empty(u.shape))
    # of each sequence; added in a fixed order
    rho, C, h0 = u.new_empty(b, 1, d), u.new_empty(b, n - 1, d), u.new_empty(b, n, d)
    parallel_for(
        _backward, *_work(s), _system(s), u.numpy(), kept.numpy(), dense(grad_y).numpy(),
        _channels_last(grad_last), Gradients(grad_u.numpy(), rho.numpy(), C.numpy(), h0.numpy()),
    )  # fmt: skip
    return {"u": grad_u, "rho": rho.sum((0, 1)), "C": C.sum(0).mT, "h0": h0.mT}
