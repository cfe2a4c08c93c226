"""Numba: a row at a time, which stays in the first-level cache."""

import math

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import Rows, array, compute_dtype, on_large_pages, rows
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.math import sigmoid
from longstate.ops._numba.rows import load, store
from longstate.ops.gated_norm import Inputs

_BLOCK = 32  # rows whose gradients of the weight are added up before they are kept


@inlined
def _gate(y: np.ndarray, z: np.ndarray, v: np.ndarray) -> float:
    """v = y * silu(z); returns the sum of its squares."""
    total = v.dtype.type(0)
    for j in range(v.shape[0]):
        gate = load(z, j)
        v[j] = load(y, j) * gate * sigmoid(gate)
        total += v[j] * v[j]
    return total


@inlined
def _scale(v: np.ndarray, weight: np.ndarray, scale: float, out: np.ndarray) -> None:
    for j in range(v.shape[0]):
        store(out, j, v[j] * scale * weight[j])


@kernel
def _forward(
    start: int, stop: int, y: Rows, z: Rows, weight: np.ndarray, eps: float, out: np.ndarray
) -> None:
    groups, size = weight.shape
    v = np.empty(size, weight.dtype)
    for row in range(start, stop):
        for g in range(groups):
            a, b = row * y.time + g * size, row * z.time + g * size
            squares = _gate(y.data[a : a + size], z.data[b : b + size], v)
            scale = weight.dtype.type(1 / math.sqrt(squares / size + eps))
            _scale(v, weight[g], scale, out[row, g * size : (g + 1) * size])


@inlined
def _project(v: np.ndarray, weight: np.ndarray, grad: np.ndarray) -> float:
    total = v.dtype.type(0)
    for j in range(v.shape[0]):
        total += load(grad, j) * weight[j] * v[j]
    return total


@inlined
def _slopes(
    y: np.ndarray, z: np.ndarray, weight: np.ndarray, grad: np.ndarray, scale: float, back: float,
    v: np.ndarray, grad_y: np.ndarray, grad_z: np.ndarray, grad_weight: np.ndarray,
) -> None:  # fmt: skip
    for j in range(v.shape[0]):
        g, gate = load(grad, j), load(z, j)
        s = sigmoid(gate)
        grad_weight[j] += g * v[j] * scale
        grad_v = scale * g * weight[j] - back * v[j]
        store(grad_y, j, grad_v * gate * s)
        store(grad_z, j, grad_v * load(y, j) * (s + gate * (s - s * s)))


@kernel
def _backward(
    start: int, stop: int, y: Rows, z: Rows, weight: np.ndarray, eps: float, grad: Rows,
    grad_y: np.ndarray, grad_z: np.ndarray, grad_weight: np.ndarray,
) -> None:  # fmt: skip
    groups, size = weight.shape
    v = np.empty(size, weight.dtype)
    for block in range(start, stop):
        for row in range(block * _BLOCK, min((block + 1) * _BLOCK, len(grad_y))):
            for g in range(groups):
                first = g * size
                a, b, c = row * y.time + first, row * z.time + first, row * grad.time + first
                given, gate = y.data[a : a + size], z.data[b : b + size]
                after = grad.data[c : c + size]
                mean = _gate(given, gate, v) / size + eps
                scale = weight.dtype.type(1 / math.sqrt(mean))
                back = weight.dtype.type(scale * _project(v, weight[g], after) / (mean * size))
                _slopes(
                    given, gate, weight[g], after, scale, back, v,
                    grad_y[row, first : first + size], grad_z[row, first : first + size],
                    grad_weight[block, g],
                )  # fmt: skip


def _rows(v: Tensor) -> Rows:
    return rows(v.reshape(1, -1, v.shape[-1]))


def _given(s: Inputs) -> tuple[Rows, Rows, np.ndarray, float]:
    weight = s.weight.to(compute_dtype(s.y, s.z, s.weight)).reshape(s.groups, -1)
    return _rows(s.y), _rows(s.z), array(weight), s.eps


def forward(s: Inputs) -> Tensor:
    out = on_large_pages(s.y.new_empty(s.y.shape))
    flat = array(out.view(-1, s.y.shape[-1]))
    parallel_for(_forward, len(flat), s.y.numel(), *_given(s), flat)
    return out


def backward(s: Inputs, grad: Tensor) -> dict[str, Tensor]:
    given, d = _given(s), s.y.shape[-1]
    grad_y, grad_z = (on_large_pages(v.new_empty(v.shape)) for v in (s.y, s.z))
    flat = [array(v.view(-1, d)) for v in (grad_y, grad_z)]
    blocks = -(-len(flat[0]) // _BLOCK)
    sums = torch.zeros(blocks, s.groups, d // s.groups, dtype=torch.from_numpy(given[2]).dtype)
    parallel_for(
        _backward, blocks, 2 * s.y.numel(), *given, _rows(grad.to(s.y.dtype)), *flat, array(sums)
    )
    total = sums.sum(0, dtype=torch.float64).flatten().to(s.weight.dtype)
    return {"y": grad_y, "z": grad_z, "weight": total}
