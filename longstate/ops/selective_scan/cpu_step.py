"""Numba: one step, for decoding. No gradients, no masks; the state in its layout, by channels.

Converting the state to the tiles of `cpu.py` and back would take longer than the step.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import array
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.math import exp, softplus
from longstate.ops._numba.rows import load, read_out

_CHANNELS = 64  # per block
_WIDTH = 16  # numbers in a vector
_ALIGNED = 8  # a state of so many numbers, or of a multiple, fills vectors by itself


@inlined
def _begin(
    u: np.ndarray, dt: np.ndarray, bias: np.ndarray, smooth: bool, delta: np.ndarray, du: np.ndarray
) -> None:
    for j in range(len(delta)):
        delta[j] = load(dt, j)
    for j in range(len(bias)):
        delta[j] += bias[j]
    if smooth:
        for j in range(len(delta)):
            delta[j] = softplus(delta[j])
    for j in range(len(delta)):
        du[j] = delta[j] * load(u, j)


@inlined
def _advance(
    delta: float, du: float, A: np.ndarray, B: np.ndarray, C: np.ndarray, h: np.ndarray,
    last: np.ndarray,
) -> float:  # fmt: skip
    """One channel: writes its next state, and returns the output C h."""
    y = h.dtype.type(0)
    for i in range(len(A)):
        last[i] = exp(delta * A[i]) * h[i] + du * B[i]
        y += last[i] * C[i]
    return y


@inlined
def _spread(v: np.ndarray, n: int, out: np.ndarray) -> None:
    """Each number n times in a row, for n of at most `_WIDTH`: one vector for each, of which the
    next overwrites what is too much."""
    for j in range(len(v)):
        one, here = v[j], out[j * n : j * n + _WIDTH]
        for i in range(_WIDTH):
            here[i] = one


@inlined
def _advance_few(
    delta: np.ndarray, du: np.ndarray, A: np.ndarray, B: np.ndarray, h: np.ndarray,
    last: np.ndarray,
) -> None:  # fmt: skip
    """All states of some channels, one after another."""
    for i in range(len(h)):
        last[i] = exp(delta[i] * A[i]) * h[i] + du[i] * B[i]


@inlined
def _read_few(last: np.ndarray, C: np.ndarray, y: np.ndarray) -> None:
    for j in range(len(y)):
        total = last.dtype.type(0)
        for i in range(len(C)):
            total += last[j, i] * C[i]
        y[j] = total


@inlined
def _repeat(B: np.ndarray, out: np.ndarray) -> None:
    n = len(B)
    for j in range(len(out) // n):
        for i in range(n):
            out[j * n + i] = B[i]


class Sample(NamedTuple):
    """What a step reads, as arrays; an empty one where there is none."""

    u: np.ndarray  # (b, 1, d), as are dt and z
    dt: np.ndarray
    bias: np.ndarray  # (d)
    smooth: bool
    A: np.ndarray  # (d, n)
    B: np.ndarray  # (b or 1, g, n), as is C
    C: np.ndarray
    D: np.ndarray  # (d)
    z: np.ndarray
    has_z: bool


@kernel
def _step(
    start: int, stop: int, sample: tuple, h: np.ndarray, last: np.ndarray, out: np.ndarray
) -> None:
    s = Sample(*sample)  # a plain tuple takes less time to pass from Python than a NamedTuple
    u, dt, A, B, C, z = s.u, s.dt, s.A, s.B, s.C, s.z
    d = u.shape[2]
    per_row = (d + _CHANNELS - 1) // _CHANNELS
    delta, du = np.empty(_CHANNELS, h.dtype), np.empty(_CHANNELS, h.dtype)
    y = np.empty(_CHANNELS, h.dtype)
    n = A.shape[1]
    shared = B.shape[1] == 1 and C.shape[1] == 1  # by all channels
    few = shared and n < _WIDTH and n % _ALIGNED != 0
    room = _CHANNELS * n + _WIDTH if few else 0
    each_delta, each_du = np.empty(room, h.dtype), np.empty(room, h.dtype)
    each_B, row = np.empty(_CHANNELS * n if few else 0, h.dtype), -1
    for block in range(start, stop):
        b, lo = block // per_row, block % per_row * _CHANNELS
        hi = min(lo + _CHANNELS, d)
        m = hi - lo
        _begin(u[b, 0, lo:hi], dt[b, 0, lo:hi], s.bias[lo:hi], s.smooth, delta[:m], du[:m])
        # one row of B and C for all sequences where these are constant
        of_B, of_C = B[b % len(B)], C[b % len(C)]
        if few:
            if row != b:
                row = b
                _repeat(of_B[0], each_B)
            _spread(delta[:m], n, each_delta)
            _spread(du[:m], n, each_du)
            k = m * n
            new = last[b, lo:hi].reshape(k)
            _advance_few(
                each_delta[:k], each_du[:k], A[lo:hi].reshape(k), each_B[:k],
                h[b, lo:hi].reshape(k), new,
            )  # fmt: skip
            _read_few(last[b, lo:hi], of_C[0], y[:m])
        elif shared:
            one_B, one_C = of_B[0], of_C[0]
            for j in range(m):
                c = lo + j
                y[j] = _advance(delta[j], du[j], A[c], one_B, one_C, h[b, c], last[b, c])
        for j in range(0 if shared else m):
            c = lo + j
            y[j] = _advance(
                delta[j], du[j], A[c], of_B[c * len(of_B) // d], of_C[c * len(of_C) // d],
                h[b, c], last[b, c],
            )  # fmt: skip
        gate = z[b, 0, lo:hi] if s.has_z else u[b, 0, :0]
        read_out(y[:m], u[b, 0, lo:hi], s.D[lo:hi], gate, out[b, 0, lo:hi])


def forward(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor,
    dt_bias: Tensor | None,
    dt_softplus: bool,
) -> tuple[Tensor, Tensor]:
    """y (b, 1, d) and the state (b, d, n) after it, of the type of `h0`."""
    b, _, d = u.shape
    wide, inputs, state = h0.dtype, array(u), array(h0)
    y, last = u.new_empty(b, 1, d), h0.new_empty(h0.shape)
    nothing = state[:0, 0, 0]
    sample = Sample(
        u=inputs,
        dt=array(dt),
        bias=nothing if dt_bias is None else array(dt_bias, wide),
        smooth=dt_softplus,
        A=array(A, wide),
        B=_by_group(B, wide),
        C=_by_group(C, wide),
        D=nothing if D is None else array(D, wide),
        z=inputs if z is None else array(z),
        has_z=z is not None,
    )
    blocks = b * -(-d // _CHANNELS)
    parallel_for(_step, blocks, h0.numel(), tuple(sample), state, array(last), array(y))
    return y, last


def _by_group(x: Tensor, dtype: torch.dtype) -> np.ndarray:
    """B or C as (b or 1, g, n)."""
    found = array(x, dtype)
    if found.ndim == 2:
        return found[None]
    return found if found.ndim == 3 else found[:, 0]
