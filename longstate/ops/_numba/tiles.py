"""Blocks of 64 channels by 32 steps, for kernels whose state is kept per channel.

A block is one sequence and up to 64 channels of one group. Its state is a tile (n, 64), short
blocks filled up with zeros, so that every inner loop has 64 lanes and compiles to full vectors. A
thread takes all its blocks through 32 steps before it goes on in time: neighbouring channels lie in
the same pages of memory.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._numba.compiled import inlined, kernel
from longstate.ops._numba.math import sigmoid
from longstate.ops._numba.rows import load, store

LANES = 64


def blocks_per_group(d: int, groups: int) -> int:
    return -(-(d // groups) // LANES)


def tile(x: Tensor, groups: int) -> Tensor:
    """(..., d, n) as tiles (..., blocks, n, 64)."""
    *lead, d, n = x.shape
    per = blocks_per_group(d, groups)
    x = x.reshape(*lead, groups, d // groups, n)
    x = F.pad(x, (0, 0, 0, per * LANES - d // groups))
    return x.reshape(*lead, groups * per, LANES, n).transpose(-1, -2).contiguous()


def untile(x: Tensor, d: int, groups: int) -> Tensor:
    """Tiles (..., blocks, n, 64) as (..., d, n)."""
    *lead, blocks, n, _ = x.shape
    x = x.transpose(-1, -2).reshape(*lead, groups, blocks // groups * LANES, n)
    return x[..., : d // groups, :].reshape(*lead, d, n).contiguous()


@kernel
def place(block, groups, per, d):
    """Sequence, group, block within the group, and the channels from `lo` to `hi` of a block."""
    b, rest = divmod(block, groups * per)
    g, k = divmod(rest, per)
    lo = g * (d // groups) + k * LANES
    return b, g, k, lo, min(lo + LANES, (g + 1) * (d // groups))


@kernel
def workspace(count, steps, like):
    """Zeros (count, steps, 64) on a cache line's boundary; vectors that straddle two are slow."""
    size = count * steps * LANES
    raw = np.zeros(size + 16, like.dtype)
    skip = (64 - raw.ctypes.data % 64) % 64 // raw.itemsize
    return raw[skip : skip + size].reshape((count, steps, LANES))


@kernel
def find_segments(reset, has_reset, b, first, last, edges, fresh):
    """Split steps first..last before every reset.

    Fills `edges`, counted from `first`, and `fresh`, whether a segment starts from zero; returns
    the number of segments.
    """
    edges[0], edges[1], fresh[0] = 0, last - first, False
    if not has_reset:
        return 1
    fresh[0] = reset[b, first]
    count = 1
    for t in range(first + 1, last):
        if reset[b, t]:
            edges[count], fresh[count] = t - first, True
            count += 1
    edges[count] = last - first
    return count


@inlined
def finish_tile(here, lo, hi, y, out, o, o_time):
    """Round a tile of results into rows of `out`, the first of which starts at `o`."""
    for t in range(here.shape[0]):
        row = out[o + t * o_time + lo : o + t * o_time + hi]
        if here[t]:
            for j in range(row.shape[0]):
                store(row, j, y[t, j])
        else:
            for j in range(row.shape[0]):
                row[j] = 0


@inlined
def finish_gated_tile(here, lo, hi, y, z, z_start, z_time, out, o, o_time):
    """`finish_tile` of y * silu(z)."""
    for t in range(here.shape[0]):
        gate = z[z_start + t * z_time + lo : z_start + t * z_time + hi]
        row = out[o + t * o_time + lo : o + t * o_time + hi]
        if here[t]:
            for j in range(row.shape[0]):
                value = load(gate, j)
                store(row, j, y[t, j] * value * sigmoid(value))
        else:
            for j in range(row.shape[0]):
                row[j] = 0


@inlined
def finish_product_tile(here, lo, hi, y, factor, out, o, o_time):
    """`finish_tile` of y * factor."""
    for t in range(here.shape[0]):
        row = out[o + t * o_time + lo : o + t * o_time + hi]
        if here[t]:
            for j in range(row.shape[0]):
                store(row, j, y[t, j] * factor[t, j])
        else:
            for j in range(row.shape[0]):
                row[j] = 0


@inlined
def read_tile(here, lo, hi, x, x_start, x_time, into):
    for t in range(here.shape[0]):
        row = x[x_start + t * x_time + lo : x_start + t * x_time + hi]
        if here[t]:
            for j in range(row.shape[0]):
                into[t, j] = load(row, j)
        else:
            for j in range(LANES):
                into[t, j] = 0


@inlined
def read_gated_tile(here, lo, hi, grad, start, time, z, z_start, z_time, into_y, into_gate):
    """Gradient of y * silu(z): of y, and what y multiplies for that of z."""
    for t in range(here.shape[0]):
        gate = z[z_start + t * z_time + lo : z_start + t * z_time + hi]
        row = grad[start + t * time + lo : start + t * time + hi]
        if here[t]:
            for j in range(row.shape[0]):
                value, g = load(gate, j), load(row, j)
                s = sigmoid(value)
                into_y[t, j] = g * value * s
                into_gate[t, j] = g * (s + value * (s - s * s))
        else:
            for j in range(LANES):
                into_y[t, j] = 0
                into_gate[t, j] = 0


def flags(x: Tensor | None) -> np.ndarray:
    return np.zeros((1, 1), np.bool_) if x is None else x.detach().contiguous().numpy()


def by_group(x: Tensor, groups: int) -> np.ndarray:
    """B, C and their like as (b, t, groups, n)."""
    x = x.detach()
    x = x[:, :, None] if x.dim() == 3 else x
    return x.expand(-1, -1, groups, -1).contiguous().numpy()


def zeros_like_rows(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros of this shape that take up one row."""
    return torch.zeros(shape[-1], dtype=dtype).expand(shape)
