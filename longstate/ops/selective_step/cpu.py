"""Numba: a whole layer in one call, for both forms of weights and states."""

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import array, compute_dtype
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.compiled import pasted
from longstate.ops._numba.math import exp, sigmoid, softplus
from longstate.ops._numba.rows import load, store
from longstate.ops.matvec import cpu as matvec
from longstate.ops.selective_scan import cpu_step as scan
from longstate.ops.selective_step import Weights
from longstate.ops.short_conv import cpu_step as conv

# Waking a second thread takes as long as reading this many bytes of weights on one thread.
_ALONE = 6_000_000
_SHARED = 10**9  # work that `parallel_for` always divides

_of_panels, _of_taps = matvec._forward, conv._step
_begin, _advance = scan._begin, scan._advance


@inlined
def _finish(y: np.ndarray, u: np.ndarray, D: np.ndarray, z: np.ndarray) -> None:
    for j in range(len(y)):
        y[j] = (y[j] + load(D, j) * u[j]) * z[j] * sigmoid(z[j])


# Weights in panels, new states; a row is a sample of a sequence


@inlined
def _normed(u: np.ndarray, weight: np.ndarray, eps: float, v: np.ndarray) -> None:
    total = v.dtype.type(0)
    for j in range(len(u)):
        total += u[j] * u[j]
    scale = v.dtype.type(1 / np.sqrt(total / len(u) + eps))
    for j in range(len(u)):
        v[j] = u[j] * scale * weight[j]


@inlined
def _add(x: np.ndarray, y: np.ndarray) -> None:
    for j in range(len(x)):
        y[j] += x[j]


@pasted
def _product(linear: tuple, x: np.ndarray, y: np.ndarray) -> None:
    panels, scale, bias = linear
    _of_panels(0, len(panels), x, panels, scale, bias, y)


@kernel
def _step(
    u: np.ndarray, eps: float, states: tuple, next_states: tuple, weights: tuple, y: np.ndarray
) -> None:
    (taps, h), (last_taps, last) = states, next_states
    rates, D, conv_weight, conv_bias = weights[:4]
    into, steering, step, out = weights[4:7], weights[7:10], weights[10:13], weights[13:16]
    norm = weights[16]
    rows, b, (d, n), rank = len(u), len(h), rates.shape, step[0].shape[1]
    t = rows // max(b, 1)
    v = u
    if len(norm):
        v = np.empty_like(u)
        for r in range(rows):
            _normed(u[r], norm, eps, v[r])
    xz, steer = np.empty((rows, 2 * d), u.dtype), np.empty((rows, rank + 2 * n), u.dtype)
    x, low = np.empty((rows, d), u.dtype), np.empty((rows, d), u.dtype)
    dt, drive, gated = np.empty_like(low), np.empty_like(low), np.empty_like(low)
    _product(into, v, xz)
    given, smooth = xz[:, :d].copy().reshape((b, t, d)), x.reshape((b, t, d))
    total = np.empty_like(x)
    _of_taps(0, b, given, conv_weight, conv_bias, True, taps, last_taps, smooth, total)
    _product(steering, x, steer)
    _product(step, steer[:, :rank].copy(), low)
    past = np.empty_like(h[:1])
    for r in range(rows):
        B, C = steer[r, rank : rank + n], steer[r, rank + n :]
        _begin(x[r], low[r], x[r, :0], True, dt[r], drive[r])
        past[0] = h[r // t] if r % t == 0 else last[r // t]
        old, new = past[0], last[r // t]
        for j in range(d):
            gated[r, j] = _advance(dt[r, j], drive[r, j], rates[j], B, C, old[j], new[j])
        _finish(gated[r], x[r], D, xz[r, d:])
    _product(out, gated, y)
    if len(norm):
        for r in range(rows):
            _add(u[r], y[r])


def bind(tensors: list[Tensor | None], wide: torch.dtype) -> tuple[np.ndarray, ...]:
    """What `forward` reads: the panels as they are, all other weights in the type `wide`.

    Args:
        tensors: `Weights.tensors`, and the weight of the norm or None.
        wide: type to compute in.
    """
    none = array(torch.empty(0, dtype=wide))
    arrays = [none if w is None else array(w, None if w.dim() == 3 else wide) for w in tensors]
    return -np.exp(arrays[0]), *arrays[1:]


def forward(
    u: Tensor, taps: Tensor, h: Tensor, eps: float, weights: tuple[np.ndarray, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """y of the shape of `u`, the next taps and the next h, all of the type of `h`."""
    given = array(u.reshape(-1, u.shape[-1]), h.dtype)
    past, state = array(taps, h.dtype), array(h)
    # NumPy creates empty arrays faster than PyTorch
    y, last_taps, last = np.empty_like(given), np.empty_like(past), np.empty_like(state)
    _step(given, eps, (past, state), (last_taps, last), weights, y)
    return torch.from_numpy(y).view(u.shape), torch.from_numpy(last_taps), torch.from_numpy(last)


# Weights in rows, states in place


@inlined
def _dot(row: np.ndarray, x: np.ndarray) -> float:
    total = x.dtype.type(0)
    for i in range(len(x)):
        total += load(row, i) * x[i]
    return total


@inlined
def _of_rows(
    start: int, stop: int, x: np.ndarray, W: np.ndarray, bias: np.ndarray, y: np.ndarray
) -> None:
    for o in range(start, stop):
        for b in range(len(x)):
            total = _dot(W[o], x[b])
            if len(bias):
                total += load(bias, o)
            store(y[b], o, total)


@inlined
def _steps(
    low: np.ndarray, weight: np.ndarray, bias: np.ndarray, x: np.ndarray, dt: np.ndarray,
    drive: np.ndarray,
) -> None:  # fmt: skip
    """dt = softplus(weight low + bias) and drive = dt x."""
    if len(bias):
        for j in range(len(dt)):
            dt[j] = _dot(weight[j], low) + load(bias, j)
    else:
        for j in range(len(dt)):
            dt[j] = _dot(weight[j], low)
    for j in range(len(dt)):
        dt[j] = softplus(dt[j])
        drive[j] = dt[j] * x[j]


@inlined
def _convolve(
    x: np.ndarray, taps: np.ndarray, weight: np.ndarray, bias: np.ndarray, u: np.ndarray
) -> None:
    """Puts x behind the taps of each channel (the oldest falls out) and sums them up."""
    k = taps.shape[1]
    for j in range(len(u)):
        for i in range(k - 1):
            taps[j, i] = taps[j, i + 1]
        store(taps[j], k - 1, x[j])
        total = u.dtype.type(0)
        for i in range(k):
            total += load(taps[j], i) * load(weight[j], i)
        u[j] = total
    for j in range(len(bias)):
        u[j] += load(bias, j)
    for j in range(len(u)):
        u[j] *= sigmoid(u[j])


@inlined
def _advance_in_place(
    dt: float, drive: float, A_log: np.ndarray, B: np.ndarray, C: np.ndarray, h: np.ndarray
) -> float:
    """One channel: updates its state, and returns C h."""
    y = h.dtype.type(0)
    for i in range(len(h)):
        rate = exp(h.dtype.type(load(A_log, i)))
        h[i] = exp(-dt * rate) * h[i] + drive * B[i]
        y += h[i] * C[i]
    return y


@kernel
def _product_of_rows(start: int, stop: int, linear: tuple, x: np.ndarray, y: np.ndarray) -> None:
    W, bias = linear
    _of_rows(start, stop, x, W, bias, y)


@kernel
def _between(
    start: int, stop: int, xz: np.ndarray, states: tuple, weights: tuple, y: np.ndarray
) -> None:
    """From x and z to the input of `out_proj`, for sequences `start` to `stop`."""
    (taps, h), (A_log, D, conv_weight, conv_bias) = states, weights[:4]
    (steering, steering_bias), (step, step_bias) = weights[6:8], weights[8:10]
    count, (d, n), rank = stop - start, A_log.shape, step.shape[1]
    x, steer = np.empty((count, d), xz.dtype), np.empty((count, rank + 2 * n), xz.dtype)
    dt, drive = np.empty(d, xz.dtype), np.empty(d, xz.dtype)
    for r in range(count):
        _convolve(xz[start + r, :d], taps[start + r], conv_weight, conv_bias, x[r])
    _of_rows(0, len(steering), x, steering, steering_bias, steer)
    for r in range(count):
        b, B, C = start + r, steer[r, rank : rank + n], steer[r, rank + n :]
        _steps(steer[r, :rank], step, step_bias, x[r], dt, drive)
        for j in range(d):
            y[b, j] = _advance_in_place(dt[j], drive[j], A_log[j], B, C, h[b, j])
        _finish(y[b], x[r], D, xz[b, d:])


@kernel
def _step_in_place(u: np.ndarray, states: tuple, weights: tuple, y: np.ndarray) -> None:
    b, d = len(u), len(weights[0])
    (into, into_bias), (out, out_bias) = weights[4:6], weights[10:12]
    xz, gated = np.empty((b, 2 * d), u.dtype), np.empty((b, d), u.dtype)
    _of_rows(0, 2 * d, u, into, into_bias, xz)
    _between(0, b, xz, states, weights, gated)
    _of_rows(0, len(out), gated, out, out_bias, y)


def forward_(u: Tensor, taps: Tensor, h: Tensor, weights: Weights) -> Tensor:
    """y (b, i) of the type of `u`; `taps` and `h` are changed."""
    given, states = array(u, h.dtype), (array(taps), array(h))
    none = array(weights.D)[:0]
    w = tuple(none if x is None else array(x) for x in weights.tensors())
    result = u.new_empty(u.shape, dtype=compute_dtype(u, h))
    into, out = w[4:6], w[10:12]
    if into[0].nbytes + out[0].nbytes < _ALONE:
        _step_in_place(given, states, w, result.numpy())
        return result.to(u.dtype)
    (b, d, _), kind = h.shape, given.dtype
    xz, y = np.empty((b, 2 * d), kind), np.empty((b, d), kind)
    parallel_for(_product_of_rows, len(into[0]), _SHARED, into, given, xz)
    parallel_for(_between, b, _SHARED, xz, states, w, y)
    parallel_for(_product_of_rows, len(out[0]), _SHARED, out, y, result.numpy())
    return result.to(u.dtype)
