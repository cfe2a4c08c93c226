"""Numba. Lanes run along channels, four taps in one pass; bound by memory.

A window's inputs are found through `sources`, so padding and resets cost nothing in the inner loop.
Weights and sources are padded to a multiple of four taps; a tap without a source reads zeros.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._memory import on_large_pages
from longstate.ops._rows import compute_dtype, rows
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops._vector_math import ROWS, load, sigmoid, store

_LANES = 512  # channels per block at most. Wide, because every row lies in another page of memory


@njit(**ROWS)
def _fill(value, acc):
    for j in range(acc.shape[0]):
        acc[j] = value[j]


@njit(**ROWS)
def _add_four(w0, w1, w2, w3, x0, x1, x2, x3, acc):
    for j in range(acc.shape[0]):
        acc[j] += (
            load(x0, j) * w0[j] + load(x1, j) * w1[j] + load(x2, j) * w2[j] + load(x3, j) * w3[j]
        )


@njit(**ROWS)
def _write(acc, y):
    for j in range(acc.shape[0]):
        store(y, j, acc[j])


@njit(**ROWS)
def _write_silu(acc, y):
    for j in range(acc.shape[0]):
        store(y, j, acc[j] * sigmoid(acc[j]))


@njit(**ROWS)
def _write_zero(zero, y):
    for j in range(y.shape[0]):
        y[j] = zero[j]


@njit(**KERNEL)
def _row(s, past, b, lo, hi, inputs):
    """The row of inputs at position s of taps and x."""
    x, x_batch, x_time, taps, taps_batch, taps_time, zero = inputs
    if s < 0:
        return zero[: hi - lo]
    if s < past:
        o = b * taps_batch + s * taps_time
        return taps[o + lo : o + hi]
    o = b * x_batch + (s - past) * x_time
    return x[o + lo : o + hi]


@njit(**KERNEL)
def _convolve(source, past, b, lo, hi, weight, bias, inputs, acc):
    _fill(bias[lo:hi], acc)
    for k in range(0, weight.shape[0], 4):
        _add_four(
            weight[k, lo:hi], weight[k + 1, lo:hi], weight[k + 2, lo:hi], weight[k + 3, lo:hi],
            _row(source[k], past, b, lo, hi, inputs),
            _row(source[k + 1], past, b, lo, hi, inputs),
            _row(source[k + 2], past, b, lo, hi, inputs),
            _row(source[k + 3], past, b, lo, hi, inputs),
            acc,
        )  # fmt: skip


@njit(**KERNEL)
def _forward(start, stop, d, lanes, past, silu, source_batch, sources, weight, bias, inputs, y):
    per_row = (d + lanes - 1) // lanes
    steps = sources.shape[1]
    buffer = np.empty(lanes, weight.dtype)
    for block in range(start, stop):
        b, lo = block // per_row, (block % per_row) * lanes
        hi = min(lo + lanes, d)
        acc = buffer[: hi - lo]
        for t in range(steps):
            out = y[(b * steps + t) * d + lo : (b * steps + t) * d + hi]
            source = sources[b * source_batch, t]
            if source[past] < 0:
                _write_zero(inputs[-1][: hi - lo], out)
                continue
            _convolve(source, past, b, lo, hi, weight, bias, inputs, acc)
            if silu:
                _write_silu(acc, out)
            else:
                _write(acc, out)


@njit(**ROWS)
def _slope(acc, grad, g, grad_bias):
    for j in range(acc.shape[0]):
        s = sigmoid(acc[j])
        g[j] = load(grad, j) * (s + acc[j] * (s - s * s))
        grad_bias[j] += g[j]


@njit(**ROWS)
def _widen(grad, g, grad_bias):
    for j in range(g.shape[0]):
        g[j] = load(grad, j)
        grad_bias[j] += g[j]


@njit(**ROWS)
def _spread(g, w, x, grad_w, grad_x):
    for j in range(g.shape[0]):
        grad_w[j] += g[j] * load(x, j)
        grad_x[j] += g[j] * w[j]


@njit(**KERNEL)
def _flush(owner, past, b, steps, d, lo, hi, acc, grad_x, grad_taps):
    """Write the finished gradient of the input at position `owner`."""
    if owner >= past:
        o = (b * steps + owner - past) * d
        _write(acc, grad_x[o + lo : o + hi])
    else:
        o = (b * past + owner) * d
        _write(acc, grad_taps[o + lo : o + hi])
    acc[:] = 0


@njit(**KERNEL)
def _backward(
    start, stop, d, lanes, past, silu, source_batch, sources, weight, bias, inputs,
    grad_y, grad_batch, grad_time, grad_x, grad_taps, grad_weight, grad_bias,
):  # fmt: skip
    # The gradient of an input is complete once k outputs have passed: a ring of k rows holds the
    # open ones, the input of rank r in row r modulo k. `sums` holds those of the weights and the
    # bias; they go to float64 now and then, because long float32 sums lose digits.
    per_row = (d + lanes - 1) // lanes
    steps, width = sources.shape[1], past + 1
    ring, owner = np.zeros((width, lanes), weight.dtype), np.empty(width, np.int64)
    sums, two = np.zeros((width + 1, lanes), weight.dtype), np.empty((2, lanes), weight.dtype)
    for block in range(start, stop):
        b, lo = block // per_row, (block % per_row) * lanes
        hi = min(lo + lanes, d)
        m = hi - lo
        acc, g = two[0, :m], two[1, :m]
        for k in range(width):
            owner[k] = k if k < past else -1
        rank = past
        for t in range(steps):
            source = sources[b * source_batch, t]
            if source[past] >= 0:
                o = b * grad_batch + t * grad_time
                if silu:
                    _convolve(source, past, b, lo, hi, weight, bias, inputs, acc)
                    _slope(acc, grad_y[o + lo : o + hi], g, sums[width, :m])
                else:
                    _widen(grad_y[o + lo : o + hi], g, sums[width, :m])
                row = rank % width
                if owner[row] >= 0:
                    _flush(owner[row], past, b, steps, d, lo, hi, ring[row, :m], grad_x, grad_taps)
                owner[row] = past + t
                for k in range(width):
                    if source[k] >= 0:
                        x = _row(source[k], past, b, lo, hi, inputs)
                        into = ring[(rank - past + k) % width, :m]
                        _spread(g, weight[k, lo:hi], x, sums[k, :m], into)
                rank += 1
            else:
                o = (b * steps + t) * d
                _write_zero(inputs[-1][:m], grad_x[o + lo : o + hi])
            if t % 64 == 63 or t == steps - 1:
                grad_weight[b, :, lo:hi] += sums[:width, :m]
                grad_bias[b, lo:hi] += sums[width, :m]
                sums[:] = 0
        for k in range(width):
            if owner[k] >= 0:
                _flush(owner[k], past, b, steps, d, lo, hi, ring[k, :m], grad_x, grad_taps)


def _lanes(x: Tensor) -> int:
    """Channels per block, such that the threads get equal numbers of blocks."""
    b, _, d = x.shape
    threads = torch.get_num_threads()
    per_row = -(-d // _LANES)
    while b * per_row % threads and d > per_row * 64:
        per_row += 1
    return -(-d // per_row)


def _arguments(x, weight, bias, taps, sources, silu, lanes):
    dtype = compute_dtype(x, weight)
    width = weight.shape[1]
    spare = -width % 4
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    inputs = rows(x)
    return (
        x.shape[2], lanes, width - 1, silu, int(sources.shape[0] > 1),
        F.pad(sources, (0, spare), value=-1).numpy(),
        F.pad(weight.to(dtype).T, (0, 0, 0, spare)).contiguous().numpy(), bias.to(dtype).numpy(),
        (*inputs, *rows(taps), np.zeros(lanes, inputs[0].dtype)),
    )  # fmt: skip


def forward(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor, sources: Tensor, silu: bool
) -> Tensor:
    y = on_large_pages(x.new_empty(x.shape))
    lanes = _lanes(x)
    blocks = x.shape[0] * -(-x.shape[2] // lanes)
    arguments = _arguments(x, weight, bias, taps, sources, silu, lanes)
    parallel_for(_forward, blocks, x.numel(), *arguments, rows(y)[0])
    return y


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    taps: Tensor,
    sources: Tensor,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `x`, `weight`, `bias` and `taps`."""
    b, _, d = x.shape
    lanes = _lanes(x)
    grad_x = on_large_pages(x.new_empty(x.shape))
    grad_taps = taps.new_empty(taps.shape)
    # One sum for each sequence, added up below in a fixed order.
    grad_weight = torch.zeros(b, weight.shape[1], d, dtype=torch.float64)
    grad_bias = torch.zeros(b, d, dtype=torch.float64)
    parallel_for(
        _backward, b * -(-d // lanes), x.numel(),
        *_arguments(x, weight, bias, taps, sources, silu, lanes), *rows(grad_y.to(x.dtype)),
        rows(grad_x)[0], rows(grad_taps)[0], grad_weight.numpy(), grad_bias.numpy(),
    )  # fmt: skip
    like = weight.dtype if bias is None else bias.dtype
    return (
        grad_x,
        grad_weight.sum(0).T.contiguous().to(weight.dtype),
        grad_bias.sum(0).to(like),
        grad_taps,
    )
