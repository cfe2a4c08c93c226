"""Numba: the kernels of the parts, called one after the other without going through Python."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import array, compute_dtype
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.math import sigmoid
from longstate.ops._numba.rows import load
from longstate.ops.selective_step import Linear, Norm, Panels, Weights
from longstate.ops.selective_step.cpu_parts import (
    Taps,
    Window,
    convolve,
    named_map,
    product,
    read,
    steps,
)

# A second thread takes as long to wake up as one thread takes to read so many bytes of weights.
_ALONE = 6_000_000
_SHARED = 10**9  # work that `parallel_for` never takes for small


@inlined
def _normed(u: np.ndarray, weight: np.ndarray, eps: float, v: np.ndarray) -> None:
    total = v.dtype.type(0)
    for j in range(len(u)):
        total += u[j] * u[j]
    scale = v.dtype.type(1 / np.sqrt(total / len(u) + eps))
    for j in range(len(u)):
        v[j] = u[j] * scale * weight[j]


@inlined
def _finish(y: np.ndarray, u: np.ndarray, D: np.ndarray, z: np.ndarray) -> None:
    for j in range(len(y)):
        y[j] = (y[j] + load(D, j) * u[j]) * z[j] * sigmoid(z[j])


@inlined
def _add(x: np.ndarray, y: np.ndarray) -> None:
    for j in range(len(x)):
        y[j] += x[j]


@kernel
def _between(
    start: int,
    stop: int,
    xz: np.ndarray,
    state: Window | Taps,
    rates: np.ndarray,
    weights: Any,
    y: np.ndarray,
) -> None:
    """From x and z to what `out_proj` takes, for sequences `start` to `stop`."""
    count, (d, n), rank = stop - start, rates.shape, weights.dt_proj[0].shape[1]
    x, steer = np.empty((count, d), xz.dtype), np.empty((count, rank + 2 * n), xz.dtype)
    dt, drive = np.empty_like(x), np.empty_like(x)
    convolve(start, stop, xz, state, weights.conv_weight, weights.conv_bias, x)
    product(0, len(weights.x_proj[0]), weights.x_proj, x, steer)
    steps(weights.dt_proj, steer[:, :rank].copy(), x, dt, drive)
    for r in range(count):
        B, C, b = steer[r, rank : rank + n], steer[r, rank + n :], start + r
        read(b, state, rates, dt[r], drive[r], B, C, y[b])
        _finish(y[b], x[r], weights.D, xz[b, d:])


@kernel
def _named(weights: tuple) -> Any:
    """Plain tuples of arrays, which Python hands over faster than named ones, with their names."""
    into, conv_weight, conv_bias, steering, step, A_log, D, out = weights
    return Weights(
        named_map(into), conv_weight, conv_bias, named_map(steering), named_map(step), A_log, D,
        named_map(out),
    )  # fmt: skip


@kernel
def _layer(
    u: np.ndarray, state: Window | Taps, rates: np.ndarray, weights: Any, y: np.ndarray
) -> None:
    """The whole layer, without norm and residual."""
    (b, _), (d, _) = u.shape, rates.shape
    xz, gated = np.empty((b, 2 * d), u.dtype), np.empty((b, d), u.dtype)
    product(0, len(weights.in_proj[0]), weights.in_proj, u, xz)
    _between(0, b, xz, state, rates, weights, gated)
    product(0, len(weights.out_proj[0]), weights.out_proj, gated, y)


@kernel
def _step(
    start: int,
    stop: int,
    u: np.ndarray,
    norm: np.ndarray,
    eps: float,
    state: tuple,
    rates: np.ndarray,
    weights: tuple,
    y: np.ndarray,
) -> None:
    for _ in range(start, stop):
        v = u
        if len(norm):
            v = np.empty_like(u)
            for b in range(len(u)):
                _normed(u[b], norm, eps, v[b])
        _layer(v, Taps(*state), rates, _named(weights), y)
        if len(norm):
            for b in range(len(u)):
                _add(u[b], y[b])


@kernel
def _step_in_place(
    start: int,
    stop: int,
    u: np.ndarray,
    state: tuple,
    rates: np.ndarray,
    weights: tuple,
    y: np.ndarray,
) -> None:
    for _ in range(start, stop):
        _layer(u, Window(*state), rates, _named(weights), y)


@kernel
def _product(start: int, stop: int, linear: tuple, x: np.ndarray, y: np.ndarray) -> None:
    product(start, stop, named_map(linear), x, y)


@kernel
def _between_in_place(
    start: int,
    stop: int,
    xz: np.ndarray,
    state: tuple,
    rates: np.ndarray,
    weights: tuple,
    y: np.ndarray,
) -> None:
    _between(start, stop, xz, Window(*state), rates, _named(weights), y)


class Bound(NamedTuple):
    """What `forward` reads, as arrays."""

    norm: np.ndarray  # (i); empty: none
    eps: float
    rates: np.ndarray
    weights: tuple


def bind(weights: Weights, norm: Norm | None, wide: torch.dtype) -> Bound:
    """The weights as the kernel takes them: matrices of the maps as they are, the rest `wide`."""
    A_log, found = array(weights.A_log, wide), _plain(weights, wide, wide)
    if norm is None:
        return Bound(A_log.reshape(-1)[:0], 0.0, -np.exp(A_log), found)
    return Bound(array(norm.weight, wide), norm.eps, -np.exp(A_log), found)


def reads_in_place(weights: Weights, norm: Norm | None, wide: torch.dtype) -> bool:
    """Whether `bind` copies none of the weights, A_log aside."""
    matrices = (weights.in_proj, weights.x_proj, weights.dt_proj, weights.out_proj)
    raw = {id(linear[0]) for linear in matrices}
    every = [*weights.tensors(), None if norm is None else norm.weight]
    return all(
        w.is_contiguous() and (w.dtype == wide or id(w) in raw) for w in every if w is not None
    )


def forward(u: Tensor, taps: Tensor, h: Tensor, bound: Bound) -> tuple[Tensor, Tensor, Tensor]:
    """y (b, i), the next taps and the next h, all of the type of `h`."""
    given, past, state = array(u, h.dtype), array(taps, h.dtype), array(h)
    # NumPy's empty arrays come faster than PyTorch's
    y, last_taps, last = np.empty_like(given), np.empty_like(past), np.empty_like(state)
    norm, eps, rates, weights = bound
    states = (past, state, last_taps, last)
    _step(0, 1, given, norm, eps, states, rates, weights, y)
    return torch.from_numpy(y), torch.from_numpy(last_taps), torch.from_numpy(last)


def forward_(u: Tensor, taps: Tensor, h: Tensor, weights: Weights) -> Tensor:
    """y (b, i) of the type of `u`; `taps` and `h` are changed."""
    wide = h.dtype
    given, states = array(u, wide), (array(taps), array(h))
    w, rates = _plain(weights, wide, None), array(weights.A_log)
    result = u.new_empty(u.shape, dtype=compute_dtype(u, h))
    into, out = w[0], w[7]
    if into[0].nbytes + out[0].nbytes < _ALONE:
        _step_in_place(0, 1, given, states, rates, w, result.numpy())
        return result.to(u.dtype)
    (b, d, _), kind = h.shape, given.dtype
    xz, y = np.empty((b, 2 * d), kind), np.empty((b, d), kind)
    parallel_for(_product, len(into[0]), _SHARED, into, given, xz)
    parallel_for(_between_in_place, b, _SHARED, xz, states, rates, w, y)
    parallel_for(_product, len(out[0]), _SHARED, out, y, result.numpy())
    return result.to(u.dtype)


def _plain(weights: Weights, wide: torch.dtype, other: torch.dtype | None) -> tuple:
    """The weights as plain tuples of arrays, an empty one where there is none. The matrices of the
    maps stay as they are; the vectors of `Panels` are converted to `wide`, all else to `other`."""
    none, none_wide = array(weights.D, other)[:0], array(weights.D[:0], wide)

    def linear(m: Linear | Panels) -> tuple:
        if type(m) is Linear:
            return array(m[0]), none if m[1] is None else array(m[1], other)
        return array(m[0]), *[none_wide if v is None else array(v, wide) for v in m[1:]]

    into, weight, bias, steering, step, A_log, D, out = weights
    return (
        linear(into), array(weight, other), none if bias is None else array(bias, other),
        linear(steering), linear(step), array(A_log, other), array(D, other), linear(out),
    )  # fmt: skip
