"""Numba. Lanes run along channels, four taps in one pass; bound by memory.

`sources` holds the positions of a window's inputs, so the inner loop has no branches for padding
and resets. Weights and sources are padded to a multiple of four taps; a tap without a source reads
zeros.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._layout import Rows, compute_dtype, on_large_pages, rows
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.math import sigmoid
from longstate.ops._numba.rows import add_row, copy_row, load, store
from longstate.ops.short_conv import Inputs

_LANES = 512  # most channels per block. Large, because every row is in another page of memory


class Given(NamedTuple):
    x: Rows
    taps: Rows
    zero: np.ndarray  # lanes


class Call(NamedTuple):
    d: int
    lanes: int
    past: int  # taps but the newest
    silu: bool
    source_batch: int  # 0 when all sequences share their sources
    sources: np.ndarray  # b or 1, t, taps in fours
    weight: np.ndarray  # taps in fours, d
    bias: np.ndarray  # d
    given: Given


class Gradients(NamedTuple):
    x: np.ndarray  # flat, as are those of taps
    taps: np.ndarray
    weight: np.ndarray  # b, taps, d: one sum for each sequence
    bias: np.ndarray  # b, d


@inlined
def _add_four(
    w0: np.ndarray, w1: np.ndarray, w2: np.ndarray, w3: np.ndarray, x0: np.ndarray, x1: np.ndarray,
    x2: np.ndarray, x3: np.ndarray, acc: np.ndarray,
) -> None:  # fmt: skip
    for j in range(acc.shape[0]):
        acc[j] += (
            load(x0, j) * w0[j] + load(x1, j) * w1[j] + load(x2, j) * w2[j] + load(x3, j) * w3[j]
        )


@inlined
def _write(acc: np.ndarray, y: np.ndarray) -> None:
    for j in range(acc.shape[0]):
        store(y, j, acc[j])


@inlined
def _write_silu(acc: np.ndarray, y: np.ndarray) -> None:
    for j in range(acc.shape[0]):
        store(y, j, acc[j] * sigmoid(acc[j]))


@kernel
def _row(s: int, past: int, b: int, lo: int, hi: int, given: Given) -> np.ndarray:
    """The row of inputs at position s of taps and x."""
    x, taps, zero = given
    if s < 0:
        return zero[: hi - lo]
    if s < past:
        o = b * taps.batch + s * taps.time
        return taps.data[o + lo : o + hi]
    o = b * x.batch + (s - past) * x.time
    return x.data[o + lo : o + hi]


@kernel
def _convolve(source: np.ndarray, call: Call, b: int, lo: int, hi: int, acc: np.ndarray) -> None:
    past, weight, bias, given = call.past, call.weight, call.bias, call.given
    copy_row(bias[lo:hi], acc)
    for k in range(0, weight.shape[0], 4):
        _add_four(
            weight[k, lo:hi], weight[k + 1, lo:hi], weight[k + 2, lo:hi], weight[k + 3, lo:hi],
            _row(source[k], past, b, lo, hi, given),
            _row(source[k + 1], past, b, lo, hi, given),
            _row(source[k + 2], past, b, lo, hi, given),
            _row(source[k + 3], past, b, lo, hi, given),
            acc,
        )  # fmt: skip


@kernel
def _forward(start: int, stop: int, call: Call, y: np.ndarray) -> None:
    d, lanes, past, silu, source_batch, sources, weight, _, given = call
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
                copy_row(given.zero[: hi - lo], out)
                continue
            _convolve(source, call, b, lo, hi, acc)
            if silu:
                _write_silu(acc, out)
            else:
                _write(acc, out)


@inlined
def _slope(acc: np.ndarray, grad: np.ndarray, g: np.ndarray, grad_bias: np.ndarray) -> None:
    for j in range(acc.shape[0]):
        s = sigmoid(acc[j])
        g[j] = load(grad, j) * (s + acc[j] * (s - s * s))
        grad_bias[j] += g[j]


@inlined
def _widen(grad: np.ndarray, g: np.ndarray, grad_bias: np.ndarray) -> None:
    for j in range(g.shape[0]):
        g[j] = load(grad, j)
        grad_bias[j] += g[j]


@inlined
def _spread(
    g: np.ndarray, w: np.ndarray, x: np.ndarray, grad_w: np.ndarray, grad_x: np.ndarray
) -> None:
    for j in range(g.shape[0]):
        grad_w[j] += g[j] * load(x, j)
        grad_x[j] += g[j] * w[j]


@kernel
def _flush(
    owner: int, call: Call, b: int, steps: int, lo: int, hi: int, acc: np.ndarray, grads: Gradients
) -> None:
    """Write the finished gradient of the input at position `owner`."""
    past, d = call.past, call.d
    if owner >= past:
        o = (b * steps + owner - past) * d
        _write(acc, grads.x[o + lo : o + hi])
    else:
        o = (b * past + owner) * d
        _write(acc, grads.taps[o + lo : o + hi])
    acc[:] = 0


@kernel
def _backward(start: int, stop: int, call: Call, grad_y: Rows, grads: Gradients) -> None:
    # The gradient of an input is complete once k outputs have passed: a ring of k rows holds the
    # open ones, the input of rank r in row r modulo k. `sums` holds those of the weights and the
    # bias; they go to float64 at intervals, because long float32 sums lose digits.
    d, lanes, past, silu, source_batch, sources, weight, _, given = call
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
                o = b * grad_y.batch + t * grad_y.time
                if silu:
                    _convolve(source, call, b, lo, hi, acc)
                    _slope(acc, grad_y.data[o + lo : o + hi], g, sums[width, :m])
                else:
                    _widen(grad_y.data[o + lo : o + hi], g, sums[width, :m])
                row = rank % width
                if owner[row] >= 0:
                    _flush(owner[row], call, b, steps, lo, hi, ring[row, :m], grads)
                owner[row] = past + t
                for k in range(width):
                    if source[k] >= 0:
                        x = _row(source[k], past, b, lo, hi, given)
                        into = ring[(rank - past + k) % width, :m]
                        _spread(g, weight[k, lo:hi], x, sums[k, :m], into)
                rank += 1
            else:
                o = (b * steps + t) * d
                copy_row(given.zero[:m], grads.x[o + lo : o + hi])
            if t % 64 == 63 or t == steps - 1:
                for k in range(width):
                    add_row(sums[k], grads.weight[b, k, lo:hi])
                add_row(sums[width], grads.bias[b, lo:hi])
                sums[:] = 0
        for k in range(width):
            if owner[k] >= 0:
                _flush(owner[k], call, b, steps, lo, hi, ring[k, :m], grads)


def _lanes(x: Tensor) -> int:
    """Channels per block, such that the threads get equal numbers of blocks."""
    b, _, d = x.shape
    threads = torch.get_num_threads()
    per_row = -(-d // _LANES)
    while b * per_row % threads and d > per_row * 64:
        per_row += 1
    return -(-d // per_row)


def _call(s: Inputs) -> Call:
    dtype, lanes = compute_dtype(s.x, s.weight), _lanes(s.x)
    width = s.weight.shape[1]
    spare = -width % 4
    bias = s.weight.new_zeros(len(s.weight)) if s.bias is None else s.bias
    x = rows(s.x)
    return Call(
        s.x.shape[2], lanes, width - 1, s.silu, int(s.sources.shape[0] > 1),
        F.pad(s.sources, (0, spare), value=-1).numpy(),
        F.pad(s.weight.to(dtype).T, (0, 0, 0, spare)).contiguous().numpy(), bias.to(dtype).numpy(),
        Given(x, rows(s.taps), np.zeros(lanes, x.data.dtype)),
    )  # fmt: skip


def _blocks(x: Tensor, call: Call) -> int:
    return x.shape[0] * -(-x.shape[2] // call.lanes)


def forward(s: Inputs) -> Tensor:
    y, call = on_large_pages(s.x.new_empty(s.x.shape)), _call(s)
    parallel_for(_forward, _blocks(s.x, call), s.x.numel(), call, rows(y).data)
    return y


def backward(s: Inputs, grad_y: Tensor) -> dict[str, Tensor]:
    (b, _, d), call = s.x.shape, _call(s)
    grad_x = on_large_pages(s.x.new_empty(s.x.shape))
    grad_taps = s.taps.new_empty(s.taps.shape)
    # One sum for each sequence, added up below in a fixed order.
    grad_weight = torch.zeros(b, s.weight.shape[1], d, dtype=torch.float64)
    grad_bias = torch.zeros(b, d, dtype=torch.float64)
    grads = Gradients(
        rows(grad_x).data, rows(grad_taps).data, grad_weight.numpy(), grad_bias.numpy()
    )
    parallel_for(
        _backward, _blocks(s.x, call), s.x.numel(), call, rows(grad_y.to(s.x.dtype)), grads
    )
    return {
        "x": grad_x,
        "weight": grad_weight.sum(0).T.contiguous().to(s.weight.dtype),
        "bias": grad_bias.sum(0).to(s.weight.dtype if s.bias is None else s.bias.dtype),
        "taps": grad_taps,
    }
