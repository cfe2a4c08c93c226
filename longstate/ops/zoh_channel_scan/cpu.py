"""Numba: the rule of the zero-order hold in many small systems, for `ops/_numba/lanes.py`.

    h_t = a h_{t-1} + b B u_t        y_t = Re(2 C h_t)        a = exp(A dt), b = (a - 1) / A

A block has the states of whole channels, real and imaginary parts in rows of their own. For each
step one loop fills rows with a and b, a second one advances the states, and short sums over the
states of each channel give the outputs. All of it stays in the cache; states are written every
CHUNK steps. The backward pass recomputes those of a chunk, and keeps their factors.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import dense
from longstate.ops._numba import inlined
from longstate.ops._numba.lanes import Place, clear, copy, parts, scan
from longstate.ops.zoh_channel_scan import CHUNK, Inputs
from longstate.ops.zoh_scan import LANES, pole_rows
from longstate.ops.zoh_scan.cpu import factors, slopes

# Rows of the constants: five of `pole_rows`, then B and 2 C.
_B, _C, _CONSTANTS = 5 * LANES, 7 * LANES, 9 * LANES
# Rows of a thread: input and output gradient, once for each state; products, to be added over the
# states of a channel; a state of zeros; the gradient of a state, from the later steps; those of A,
# B and 2 C; the states of a chunk, from the one before its first step; and six rows of factors for
# each step.
_U, _TO_Y, _OUT, _ZEROS, _CARRY, _SUMS, _STATES = (LANES * i for i in (0, 1, 2, 3, 5, 7, 13))
_FACTORS = _STATES + 2 * (CHUNK + 1) * LANES
_SCRATCH = _FACTORS + 6 * CHUNK * LANES


@inlined
def _spread(x: np.ndarray, n: int, into: np.ndarray) -> None:
    for i in range(x.shape[0]):
        for j in range(n):
            into[i * n + j] = x[i]


@inlined
def _gather(x: np.ndarray, n: int, into: np.ndarray) -> None:
    for i in range(into.shape[0]):
        total = x[0] - x[0]
        for j in range(n):
            total += x[i * n + j]
        into[i] = total


@inlined
def _advance(c: np.ndarray, f: np.ndarray, h: np.ndarray, u: np.ndarray, after: np.ndarray) -> None:
    for j in range(u.shape[0]):
        h_re, h_im = h[j], h[LANES + j]
        a_re, a_im, b_re, b_im = f[j], f[LANES + j], f[2 * LANES + j], f[3 * LANES + j]
        x_re, x_im = c[_B + j] * u[j], c[_B + LANES + j] * u[j]
        after[j] = a_re * h_re - a_im * h_im + (b_re * x_re - b_im * x_im)
        after[LANES + j] = a_re * h_im + a_im * h_re + (b_re * x_im + b_im * x_re)


@inlined
def _read(c: np.ndarray, h: np.ndarray, out: np.ndarray) -> None:
    for j in range(out.shape[0]):
        out[j] = c[_C + j] * h[j] - c[_C + LANES + j] * h[LANES + j]


@inlined
def _retreat(
    c: np.ndarray, f: np.ndarray, h: np.ndarray, after: np.ndarray, u: np.ndarray,
    to_y: np.ndarray, dt: float, carry: np.ndarray, sums: np.ndarray, to_u: np.ndarray,
) -> float:  # fmt: skip
    # carry: what the later steps add to the gradient of the state; sums: gradients of A, B and 2 C
    grad_dt = to_y[0] - to_y[0]
    for j in range(u.shape[0]):
        g_re = carry[j] + c[_C + j] * to_y[j]
        g_im = carry[LANES + j] - c[_C + LANES + j] * to_y[j]
        sums[4 * LANES + j] += to_y[j] * after[j]
        sums[5 * LANES + j] -= to_y[j] * after[LANES + j]
        a_re, a_im, b_re, b_im = f[j], f[LANES + j], f[2 * LANES + j], f[3 * LANES + j]
        d_re, d_im = f[4 * LANES + j], f[5 * LANES + j]
        B_re, B_im = c[_B + j], c[_B + LANES + j]
        # conj(b) g is the gradient of the drive x = B u
        x_re, x_im = b_re * g_re + b_im * g_im, b_re * g_im - b_im * g_re
        to_u[j] = B_re * x_re + B_im * x_im
        sums[2 * LANES + j] += u[j] * x_re
        sums[3 * LANES + j] += u[j] * x_im
        # conj(a) g is the gradient of the state before
        c_re, c_im = a_re * g_re + a_im * g_im, a_re * g_im - a_im * g_re
        carry[j] = c_re
        carry[LANES + j] = c_im
        # dh/ddt = a (A h_before + x)
        h_re, h_im = h[j], h[LANES + j]
        slope_re = c[j] * h_re - c[LANES + j] * h_im + B_re * u[j]
        slope_im = c[j] * h_im + c[LANES + j] * h_re + B_im * u[j]
        grad_dt += slope_re * c_re + slope_im * c_im
        # dh/dA = dt a h_before + d x
        dx_re, dx_im = (d_re * B_re - d_im * B_im) * u[j], (d_re * B_im + d_im * B_re) * u[j]
        sums[j] += dt * (h_re * c_re + h_im * c_im) + (dx_re * g_re + dx_im * g_im)
        sums[LANES + j] += dt * (h_re * c_im - h_im * c_re) + (dx_re * g_im - dx_im * g_re)
    return grad_dt


class Gradients(NamedTuple):
    y: np.ndarray  # b, t, d
    sums: np.ndarray  # b, 6, n: of A, B and 2 C; a row for each sequence
    dt: np.ndarray  # b, t, blocks


class Channels(NamedTuple):
    """n counts the states of all channels."""

    constants: np.ndarray  # blocks, 9 * lanes
    dt: np.ndarray  # b, t
    state: np.ndarray  # b, 2, n: of the state, or its gradient, which moves on in place
    kept: np.ndarray  # b, chunks, 2, n
    out: np.ndarray  # b, t, d: outputs, or gradients of the inputs
    n: int  # of a channel

    def scratch(rule: "Channels") -> np.ndarray:
        return np.zeros(_SCRATCH, rule.dt.dtype)

    def advance(rule: "Channels", at: Place, x: np.ndarray, work: np.ndarray) -> None:
        b, t, lo, hi, n, size = at.b, at.t, at.lo, at.hi, rule.n, at.hi - at.lo
        h, c, f = work[_STATES:], rule.constants[at.part], work[_FACTORS:]
        if t == 0:
            for row in range(2):
                copy(rule.state[b, row, lo:hi], h[row * LANES : row * LANES + size])
        if t % CHUNK == 0 and rule.kept.shape[1] > 0:
            for row in range(2):
                copy(h[row * LANES : row * LANES + size], rule.kept[b, t // CHUNK, row, lo:hi])
        before = work[_ZEROS:] if at.fresh else h
        u, out = work[_U : _U + size], work[_OUT : _OUT + size]
        _spread(x[b, t, lo // n : hi // n], n, u)
        factors(c, rule.dt[b, t], f, size)
        _advance(c, f, before, u, h)
        _read(c, h, out)
        _gather(out, n, rule.out[b, t, lo // n : hi // n])
        if t == x.shape[1] - 1:
            for row in range(2):
                copy(h[row * LANES : row * LANES + size], rule.state[b, row, lo:hi])

    def again(rule: "Channels", at: Place, x: np.ndarray, work: np.ndarray) -> None:
        """The states of a chunk: before its first step, then after each; and their factors."""
        b, t, lo, hi, n, size = at.b, at.t, at.lo, at.hi, rule.n, at.hi - at.lo
        i = t % CHUNK
        h, c = work[_STATES + 2 * i * LANES :], rule.constants[at.part]
        f = work[_FACTORS + 6 * i * LANES :]
        if i == 0:
            for row in range(2):
                copy(rule.kept[b, t // CHUNK, row, lo:hi], h[row * LANES : row * LANES + size])
        before = work[_ZEROS:] if at.fresh else h
        u = work[_U : _U + size]
        _spread(x[b, t, lo // n : hi // n], n, u)
        factors(c, rule.dt[b, t], f, size)
        _advance(c, f, before, u, h[2 * LANES :])

    def retreat(
        rule: "Channels", at: Place, x: np.ndarray, grads: Gradients, work: np.ndarray
    ) -> None:
        b, t, lo, hi, n, size = at.b, at.t, at.lo, at.hi, rule.n, at.hi - at.lo
        i = t % CHUNK
        h, c = work[_STATES + 2 * i * LANES :], rule.constants[at.part]
        f, after = work[_FACTORS + 6 * i * LANES :], h[2 * LANES :]
        u, to_y, out = (
            work[_U : _U + size], work[_TO_Y : _TO_Y + size], work[_OUT : _OUT + size],
        )  # fmt: skip
        _spread(x[b, t, lo // n : hi // n], n, u)
        _spread(grads.y[b, t, lo // n : hi // n], n, to_y)
        carry, sums = work[_CARRY:], work[_SUMS:]
        if t == x.shape[1] - 1:
            clear(sums[: 6 * LANES])
            for row in range(2):
                copy(rule.state[b, row, lo:hi], carry[row * LANES : row * LANES + size])
        slopes(c, rule.dt[b, t], f, size)
        before = work[_ZEROS:] if at.fresh else h
        grads.dt[b, t, at.part] = _retreat(
            c, f, before, after, u, to_y, rule.dt[b, t], carry, sums, out
        )
        _gather(out, n, rule.out[b, t, lo // n : hi // n])
        if at.fresh:
            clear(carry[: 2 * LANES])
        if t == 0:
            for row in range(2):
                copy(carry[row * LANES : row * LANES + size], rule.state[b, row, lo:hi])
            for row in range(6):
                copy(sums[row * LANES : row * LANES + size], grads.sums[b, row, lo:hi])


def _planes(x: Tensor) -> Tensor:
    """Real and imaginary parts: (b, 2, n)."""
    return torch.stack([x.real, x.imag], 1).flatten(2)


def _joined(x: Tensor, like: Tensor) -> Tensor:
    return torch.complex(x[:, 0], x[:, 1]).view_as(like)


def _constants(s: Inputs, lanes: int) -> np.ndarray:
    rows = torch.cat([pole_rows(s.A.flatten()), _planes(s.B[None])[0], _planes(2 * s.C[None])[0]])
    blocks = parts(rows.shape[1], lanes)
    rows = torch.nn.functional.pad(rows, (0, blocks * lanes - rows.shape[1]))
    rows = torch.nn.functional.pad(rows.unflatten(1, (blocks, lanes)), (0, LANES - lanes))
    return rows.transpose(0, 1).flatten(1).numpy()


def _lanes(s: Inputs) -> int:
    n = s.A.shape[1]
    return n * (LANES // n)


def _rule(s: Inputs, state: Tensor, kept: Tensor, out: Tensor) -> Channels:
    return Channels(
        _constants(s, _lanes(s)), dense(s.dt).numpy(), state.numpy(), kept.numpy(), out.numpy(),
        s.A.shape[1],
    )  # fmt: skip


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, _), n, u = s.u.shape, s.A.numel(), dense(s.u)
    kept = u.new_empty(b, parts(t, CHUNK) if s.keep else 0, 2, n)
    y, state = torch.empty_like(u), _planes(s.h0)
    rule = _rule(s, state, kept, y)
    scan(rule, u.numpy(), n, s.reset, 4 * b * t * n, lanes=_lanes(s))
    return y, _joined(state, s.h0), kept


def backward(s: Inputs, kept: Tensor, grad_y: Tensor, grad_last: Tensor) -> dict[str, Tensor]:
    (b, t, _), n, u = s.u.shape, s.A.numel(), dense(s.u)
    lanes = _lanes(s)
    # One row for each sequence and one column for each block, added up below in a fixed order.
    sums, grad_dt = u.new_zeros(b, 6, n), u.new_empty(b, t, parts(n, lanes))
    grad_u, carry = torch.empty_like(u), _planes(grad_last)
    rule = _rule(s, carry, kept, grad_u)
    grads = Gradients(dense(grad_y).numpy(), sums.numpy(), grad_dt.numpy())
    scan(rule, u.numpy(), n, s.reset, 12 * b * t * n, grads, lanes=lanes, chunk=CHUNK)
    total = sums.sum(0)
    A, B, C = (_joined(total[None, i : i + 2], s.A) for i in (0, 2, 4))
    return {
        "u": grad_u, "A": A, "B": B, "C": 2 * C, "dt": grad_dt.sum(-1),
        "h0": _joined(carry, s.h0),
    }  # fmt: skip
