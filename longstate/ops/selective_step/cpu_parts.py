"""Numba: what comes in two kinds, picked by type. A linear map, which is `Linear` or `Panels`, and
the states, which are a `Window` that is changed in place, or `Taps` before and after the sample.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload

from longstate.ops._numba import inlined, kernel
from longstate.ops._numba.math import exp, sigmoid, softplus
from longstate.ops._numba.rows import load, store
from longstate.ops.matvec import cpu as matvec
from longstate.ops.selective_scan import cpu_step as scan
from longstate.ops.selective_step import Linear, Panels
from longstate.ops.short_conv import cpu_step as conv

# What is not inlined exists twice, optimised alone and with its caller, and which of the two runs
# depends on whether the caller came from the cache: their last bits may differ. Those of panels do
# not, and inlining them would double the time that compiling takes.
_INLINE: Any = {"forceinline": True}

_of_panels, _of_taps = matvec._forward, conv._step
_begin, _advance = scan._begin, scan._advance


# A linear map


@inlined
def _dot(row: np.ndarray, x: np.ndarray) -> float:
    total = x.dtype.type(0)
    for i in range(len(x)):
        total += load(row, i) * x[i]
    return total


@kernel
def _of_rows(
    start: int, stop: int, x: np.ndarray, W: np.ndarray, bias: np.ndarray, y: np.ndarray
) -> None:
    for o in range(start, stop):
        for b in range(len(x)):
            total = _dot(W[o], x[b])
            if len(bias):
                total += load(bias, o)
            store(y[b], o, total)


def product(start, stop, linear, x, y):
    """Rows, or panels of 64 rows, from `start` to `stop` of y = linear(x)."""


@overload(product, jit_options=_INLINE)
def _(start, stop, linear, x, y):
    if linear.instance_class is Linear:
        return lambda start, stop, linear, x, y: _of_rows(
            start, stop, x, linear.weight, linear.bias, y
        )


@overload(product)
def _(start, stop, linear, x, y):
    if linear.instance_class is Panels:
        return lambda start, stop, linear, x, y: _of_panels(
            start, stop, x, linear.panels, linear.scale, linear.bias, y
        )


@inlined
def _steps_of_rows(
    low: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    x: np.ndarray,
    dt: np.ndarray,
    drive: np.ndarray,
) -> None:
    if len(bias):
        for j in range(len(dt)):
            dt[j] = _dot(weight[j], low) + load(bias, j)
    else:
        for j in range(len(dt)):
            dt[j] = _dot(weight[j], low)
    for j in range(len(dt)):
        dt[j] = softplus(dt[j])
        drive[j] = dt[j] * x[j]


def steps(linear, low, x, dt, drive):
    """dt = softplus(linear(low)) and drive = dt x, all (b, d) but `low`."""


@overload(steps, jit_options=_INLINE)
def _(linear, low, x, dt, drive):
    if linear.instance_class is Linear:

        def of_rows(linear, low, x, dt, drive):
            for b in range(len(x)):
                _steps_of_rows(low[b], linear.weight, linear.bias, x[b], dt[b], drive[b])

        return of_rows


@overload(steps)
def _(linear, low, x, dt, drive):
    if linear.instance_class is Panels:

        def of_panels(linear, low, x, dt, drive):
            y = np.empty_like(dt)
            product(0, len(linear.panels), linear, low, y)
            for b in range(len(x)):
                _begin(x[b], y[b], x[b, :0], True, dt[b], drive[b])

        return of_panels


def named_map(linear):
    """`Panels` or `Linear` of a plain tuple of its arrays."""


@overload(named_map)
def _(linear):
    kind = Panels if len(linear) == 3 else Linear
    return lambda linear: kind(*linear)


# The states


class Window(NamedTuple):
    """States that are changed in place. Their rates are `A_log`, whose owner may change it."""

    taps: np.ndarray  # (b, d, k), the last k inputs
    h: np.ndarray  # (b, d, n)


class Taps(NamedTuple):
    """States before the sample, and after it. Their rates are -exp(A_log)."""

    taps: np.ndarray  # (b, k - 1, d)
    h: np.ndarray  # (b, d, n)
    last_taps: np.ndarray
    last: np.ndarray


@inlined
def _of_window(
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


@kernel
def _convolve_in_place(
    start: int,
    stop: int,
    xz: np.ndarray,
    state: Window,
    weight: np.ndarray,
    bias: np.ndarray,
    x: np.ndarray,
) -> None:
    taps, d = state.taps, x.shape[1]
    for b in range(start, stop):
        _of_window(xz[b, :d], taps[b], weight, bias, x[b - start])


@kernel
def _convolve(
    start: int,
    stop: int,
    xz: np.ndarray,
    state: Taps,
    weight: np.ndarray,
    bias: np.ndarray,
    x: np.ndarray,
) -> None:
    b, d = x.shape
    given, y = xz[start:stop, :d].copy().reshape((b, 1, d)), x.reshape((b, 1, d))
    taps, last = state.taps[start:stop], state.last_taps[start:stop]
    _of_taps(0, b, given, weight, bias, True, taps, last, y, np.empty_like(x))


@inlined
def _advance_in_place(
    dt: float, drive: float, A_log: np.ndarray, B: np.ndarray, C: np.ndarray, h: np.ndarray
) -> float:
    """One channel: its state moves on, and is read."""
    y = h.dtype.type(0)
    for i in range(len(h)):
        rate = exp(h.dtype.type(load(A_log, i)))
        h[i] = exp(-dt * rate) * h[i] + drive * B[i]
        y += h[i] * C[i]
    return y


@kernel
def _read_in_place(
    b: int,
    state: Window,
    rates: np.ndarray,
    dt: np.ndarray,
    drive: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    y: np.ndarray,
) -> None:
    h = state.h[b]
    for j in range(len(y)):
        y[j] = _advance_in_place(dt[j], drive[j], rates[j], B, C, h[j])


@kernel
def _read(
    b: int,
    state: Taps,
    rates: np.ndarray,
    dt: np.ndarray,
    drive: np.ndarray,
    B: np.ndarray,
    C: np.ndarray,
    y: np.ndarray,
) -> None:
    h, last = state.h[b], state.last[b]
    for j in range(len(y)):
        y[j] = _advance(dt[j], drive[j], rates[j], B, C, h[j], last[j])


def convolve(start, stop, xz, state, weight, bias, x):
    """x (stop - start, d), the convolution with its SiLU; the taps move on."""


def read(b, state, rates, dt, drive, B, C, y):
    """y (d), what is read off the states of sequence `b`, which move on."""


@overload(convolve, jit_options=_INLINE)
def _(start, stop, xz, state, weight, bias, x):
    form = _convolve_in_place if state.instance_class is Window else _convolve
    return lambda start, stop, xz, state, weight, bias, x: form(
        start, stop, xz, state, weight, bias, x
    )


@overload(read, jit_options=_INLINE)
def _(b, state, rates, dt, drive, B, C, y):
    form = _read_in_place if state.instance_class is Window else _read
    return lambda b, state, rates, dt, drive, B, C, y: form(b, state, rates, dt, drive, B, C, y)
