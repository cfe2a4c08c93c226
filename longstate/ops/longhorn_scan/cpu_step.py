"""Numba: one step, for decoding. No gradients, no masks; the state in its layout, by channels.

Converting the state to the tiles of `cpu.py` and back would take longer than the step.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from longstate.ops._layout import array
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.math import sigmoid
from longstate.ops._numba.rows import load, read_out

_CHANNELS = 64  # per block


@inlined
def _begin(beta: np.ndarray, bias: np.ndarray, squash: bool, size: float, rate: np.ndarray) -> None:
    """rate = beta / (1 + beta |k|^2)."""
    one = rate.dtype.type(1)
    for j in range(len(rate)):
        rate[j] = load(beta, j)
    for j in range(len(bias)):
        rate[j] += bias[j]
    if squash:
        for j in range(len(rate)):
            rate[j] = sigmoid(rate[j])
    for j in range(len(rate)):
        rate[j] /= one + rate[j] * size


@inlined
def _diagonal(
    rate: float, x: float, k: np.ndarray, q: np.ndarray, h: np.ndarray, last: np.ndarray
) -> float:
    """One channel: writes its next state, and returns the output q h."""
    y = h.dtype.type(0)
    one = h.dtype.type(1)
    for i in range(len(k)):
        last[i] = (one - rate * (k[i] * k[i])) * h[i] + rate * x * k[i]
        y += last[i] * q[i]
    return y


@inlined
def _exact(
    rate: float, x: float, k: np.ndarray, q: np.ndarray, h: np.ndarray, last: np.ndarray
) -> float:
    seen = h.dtype.type(0)
    for i in range(len(k)):
        seen += h[i] * k[i]
    drive = rate * (x - seen)
    y = h.dtype.type(0)
    for i in range(len(k)):
        last[i] = h[i] + drive * k[i]
        y += last[i] * q[i]
    return y


class Sample(NamedTuple):
    """What a step reads, as arrays; an empty one where there is none."""

    x: np.ndarray  # (b, 1, d), as are beta and z
    beta: np.ndarray
    bias: np.ndarray  # (d)
    squash: bool
    k: np.ndarray  # (b, 1, n), as is q
    q: np.ndarray
    exact: bool
    D: np.ndarray  # (d)
    z: np.ndarray
    has_z: bool


@kernel
def _step(
    start: int, stop: int, sample: tuple, h: np.ndarray, last: np.ndarray, out: np.ndarray
) -> None:
    s = Sample(*sample)  # a plain tuple takes less time to pass from Python than a NamedTuple
    x, beta, k, q, z = s.x, s.beta, s.k, s.q, s.z
    d = x.shape[2]
    per_row = (d + _CHANNELS - 1) // _CHANNELS
    rate, y = np.empty(_CHANNELS, h.dtype), np.empty(_CHANNELS, h.dtype)
    for block in range(start, stop):
        b, lo = block // per_row, block % per_row * _CHANNELS
        hi = min(lo + _CHANNELS, d)
        m = hi - lo
        key, query, now = k[b, 0], q[b, 0], x[b, 0, lo:hi]
        size = h.dtype.type(0)
        for i in range(len(key)):
            size += key[i] * key[i]
        _begin(beta[b, 0, lo:hi], s.bias[lo:hi], s.squash, size, rate[:m])
        for j in range(m):
            if s.exact:
                y[j] = _exact(rate[j], load(now, j), key, query, h[b, lo + j], last[b, lo + j])
            else:
                y[j] = _diagonal(rate[j], load(now, j), key, query, h[b, lo + j], last[b, lo + j])
        gate = z[b, 0, lo:hi] if s.has_z else now[:0]
        read_out(y[:m], now, s.D[lo:hi], gate, out[b, 0, lo:hi])


def forward(
    x: Tensor,
    beta: Tensor,
    k: Tensor,
    q: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor,
    beta_bias: Tensor | None,
    beta_sigmoid: bool,
    exact: bool,
) -> tuple[Tensor, Tensor]:
    """y (b, 1, d) and the state (b, d, n) after it, of the type of `h0`."""
    b, _, d = x.shape
    wide, inputs, state = h0.dtype, array(x), array(h0)
    y, last = x.new_empty(b, 1, d), h0.new_empty(h0.shape)
    nothing = state[:0, 0, 0]
    sample = Sample(
        x=inputs,
        beta=array(beta),
        bias=nothing if beta_bias is None else array(beta_bias, wide),
        squash=beta_sigmoid,
        k=array(k, wide),
        q=array(q, wide),
        exact=exact,
        D=nothing if D is None else array(D, wide),
        z=inputs if z is None else array(z),
        has_z=z is not None,
    )
    blocks = b * -(-d // _CHANNELS)
    parallel_for(_step, blocks, h0.numel(), tuple(sample), state, array(last), array(y))
    return y, last
