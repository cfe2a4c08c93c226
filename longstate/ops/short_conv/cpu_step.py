"""Numba: one step, for decoding. No gradients, no masks."""

import numpy as np
from torch import Tensor

from longstate.ops._layout import array, compute_dtype
from longstate.ops._numba import inlined, kernel, parallel_for
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


@kernel
def _step(
    start: int, stop: int, x: np.ndarray, weight: np.ndarray, bias: np.ndarray, silu: bool,
    taps: np.ndarray, last: np.ndarray, y: np.ndarray, total: np.ndarray,
) -> None:  # fmt: skip
    past = taps.shape[1]
    for b in range(start, stop):
        total[b] = 0
        for k in range(past):
            _add(taps[b, k], weight, k, total[b])
            last[b, k] = taps[b, k + 1] if k + 1 < past else x[b, 0]
        _add(x[b, 0], weight, past, total[b])
        _finish(bias, silu, total[b], y[b, 0])


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, silu: bool
) -> tuple[Tensor, Tensor]:
    """y (b, 1, d) and taps (b, k - 1, d), both of the type of `x`."""
    b, _, d = x.shape
    wide = compute_dtype(x, weight, bias)
    y, last, total = x.new_empty(b, 1, d), x.new_empty(taps.shape), x.new_empty(b, d, dtype=wide)
    sums = array(total)
    parallel_for(
        _step, b, b * d * weight.shape[1], array(x), array(weight, wide),
        sums[0, :0] if bias is None else array(bias, wide), silu, array(taps, x.dtype),
        array(last), array(y), sums,
    )  # fmt: skip
    return y, last
