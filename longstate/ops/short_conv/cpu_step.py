"""Numba: a few steps, for decoding. No gradients, no masks."""

import numpy as np
from torch import Tensor

from longstate.ops._layout import array, compute_dtype
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.compiled import pasted
from longstate.ops._numba.math import sigmoid
from longstate.ops._numba.rows import load, store


@inlined
def _add(x: np.ndarray, weight: np.ndarray, k: int, total: np.ndarray) -> None:
    for j in range(len(total)):
        total[j] += load(x, j) * weight[j, k]


@inlined
def _finish(bias: np.ndarray, silu: bool, total: np.ndarray, y: np.ndarray) -> None:
    for j in range(len(bias)):
        total[j] += bias[j]
    if silu:
        for j in range(len(total)):
            total[j] *= sigmoid(total[j])
    for j in range(len(total)):
        store(y, j, total[j])


@pasted
def _sample(taps: np.ndarray, x: np.ndarray, i: int) -> np.ndarray:
    """Number `i` of the taps and then the samples."""
    return taps[i] if i < len(taps) else x[i - len(taps)]


@kernel
def _step(
    start: int, stop: int, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, silu: bool,
    taps: np.ndarray, last: np.ndarray, y: np.ndarray, total: np.ndarray,
) -> None:  # fmt: skip
    past, steps = taps.shape[1], x.shape[1]
    for b in range(start, stop):
        for t in range(steps):
            total[b] = 0
            for k in range(past + 1):
                _add(_sample(taps[b], x[b], t + k), weight, k, total[b])
            _finish(bias, silu, total[b], y[b, t])
        for k in range(past):
            last[b, k] = _sample(taps[b], x[b], steps + k)


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    """y (b, t, d) and taps (b, k - 1, d), both of the type of `x`."""
    b, t, d = x.shape
    wide = compute_dtype(x, weight, bias)
    y, last, total = x.new_empty(x.shape), x.new_empty(taps.shape), x.new_empty(b, d, dtype=wide)
    sums = array(total)
    parallel_for(
        _step, b, b * t * d * weight.shape[1], array(x), array(weight, wide),
        sums[0, :0] if bias is None else array(bias, wide), silu, array(taps, x.dtype),
        array(last), array(y), sums,
    )  # fmt: skip
    return y, last
