"""Blocks of 64 channels by 32 steps, for scans whose state is kept per channel.

A block is one sequence and up to 64 channels of one group. Its state is a tile (n, 64), padded with
zeros, so that every inner loop has 64 lanes and compiles to full vectors. A thread computes 32
steps of all its blocks before the next 32 steps, because neighbouring channels are in the same
pages of memory.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._layout import CHUNK, Rows
from longstate.ops._numba.compiled import inlined, kernel, pasted
from longstate.ops._numba.math import sigmoid
from longstate.ops._numba.rows import fetch, load, store

LANES = 64


class Frame(NamedTuple):
    """What scans of all rules have."""

    steps: int
    d: int
    groups: int
    per: int  # blocks per group
    z: Rows  # gate
    has_z: bool
    mask: np.ndarray  # b, t
    has_mask: bool
    reset: np.ndarray  # b, t
    has_reset: bool

    @property
    def blocks(self) -> int:
        """Blocks per sequence."""
        return self.groups * self.per


class Place(NamedTuple):
    """Where a tile lies."""

    b: int
    g: int
    k: int  # block within the group
    w: int  # block within the sequence
    block: int
    lo: int  # channels from lo to hi
    hi: int
    first: int  # steps from first to last
    last: int
    here: np.ndarray  # t: whether the mask leaves a step in


def blocks_per_group(d: int, groups: int) -> int:
    return -(-(d // groups) // LANES)


def tile(x: Tensor, groups: int) -> Tensor:
    """(..., d, n) as tiles (..., blocks, n, 64) in new memory: kernels change states in place."""
    *lead, d, n = x.shape
    per, size = blocks_per_group(d, groups), d // groups
    if per * LANES > size:
        x = F.pad(x.reshape(*lead, groups, size, n), (0, 0, 0, per * LANES - size))
    x = x.reshape(*lead, groups * per, LANES, n).transpose(-1, -2)
    return x.clone(memory_format=torch.contiguous_format)  # with n = 1, contiguous() copies nothing


def untile(x: Tensor, d: int, groups: int) -> Tensor:
    """Tiles (..., blocks, n, 64) as (..., d, n)."""
    *lead, blocks, n, _ = x.shape
    x = x.transpose(-1, -2).reshape(*lead, groups, blocks // groups * LANES, n)
    return x[..., : d // groups, :].reshape(*lead, d, n).contiguous()


def vector(x: Tensor | None, d: int, like: Tensor, groups: int = 1) -> np.ndarray:
    """A parameter (d) as tiles (blocks, 64) of the type of `like`; zeros when None."""
    per, size = blocks_per_group(d, groups), d // groups
    if x is None:
        return like.new_zeros(groups * per, LANES).numpy()
    x = x.detach().to(like.dtype).reshape(groups, size)
    x = F.pad(x, (0, per * LANES - size)) if per * LANES > size else x
    return x.reshape(-1, LANES).contiguous().numpy()


def flags(x: Tensor | None) -> np.ndarray:
    return np.zeros((1, 1), np.bool_) if x is None else x.detach().contiguous().numpy()


def by_group(x: Tensor, groups: int) -> np.ndarray:
    """What channels of a group share, (b, t, n) or (b, t, g, n), as (b, t, groups, n)."""
    x = x.detach()
    x = x[:, :, None] if x.dim() == 3 else x
    return x.expand(-1, -1, groups, -1).contiguous().numpy()


def zeros_like_rows(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Zeros of this shape that take up one row."""
    return torch.zeros(shape[-1], dtype=dtype).expand(shape)


@kernel
def workspace(count: int, steps: int, like: np.ndarray) -> np.ndarray:
    """Zeros (count, steps, 64) on a cache line's boundary; vectors across two lines are slow."""
    size = count * steps * LANES
    raw = np.zeros(size + 16, like.dtype)
    skip = (64 - raw.ctypes.data % 64) % 64 // raw.itemsize
    return raw[skip : skip + size].reshape((count, steps, LANES))


@kernel
def place(frame: Frame, block: int, chunk: int, always: np.ndarray) -> Place:
    b, w = divmod(block, frame.groups * frame.per)
    g, k = divmod(w, frame.per)
    size = frame.d // frame.groups
    lo = g * size + k * LANES
    hi = min(lo + LANES, (g + 1) * size)
    first, last = chunk * CHUNK, min(chunk * CHUNK + CHUNK, frame.steps)
    here = frame.mask[b, first:last] if frame.has_mask else always[: last - first]
    return Place(b, g, k, w, block, lo, hi, first, last, here)


@kernel
def find_segments(frame: Frame, at: Place, edges: np.ndarray, fresh: np.ndarray) -> int:
    """Split the steps of a tile before every reset.

    Fills `edges`, counted from the first step, and `fresh`, whether a segment starts from zero;
    returns the number of segments.
    """
    edges[0], edges[1], fresh[0] = 0, at.last - at.first, False
    if not frame.has_reset:
        return 1
    fresh[0] = frame.reset[at.b, at.first]
    count = 1
    for t in range(at.first + 1, at.last):
        if frame.reset[at.b, t]:
            edges[count], fresh[count] = t - at.first, True
            count += 1
    edges[count] = at.last - at.first
    return count


@pasted
def row(x: Rows, at: Place, t: int) -> np.ndarray:
    """The channels of a tile at step `t` of it. Asks for those of the next tile: they are in
    another page at every step, where the processor does not foresee them."""
    start = at.b * x.batch + (at.first + t) * x.time
    fetch(x.data, start + at.hi, LANES)
    return x.data[start + at.lo : start + at.hi]


@inlined
def finish_tile(at: Place, y: np.ndarray, out: Rows) -> None:
    """Round a tile of results into rows."""
    for t in range(at.here.shape[0]):
        into = row(out, at, t)
        if at.here[t]:
            for j in range(into.shape[0]):
                store(into, j, y[t, j])
        else:
            for j in range(into.shape[0]):
                into[j] = 0


@inlined
def finish_gated_tile(at: Place, y: np.ndarray, z: Rows, out: Rows) -> None:
    """`finish_tile` of y * silu(z)."""
    for t in range(at.here.shape[0]):
        gate, into = row(z, at, t), row(out, at, t)
        if at.here[t]:
            for j in range(into.shape[0]):
                value = load(gate, j)
                store(into, j, y[t, j] * value * sigmoid(value))
        else:
            for j in range(into.shape[0]):
                into[j] = 0


@inlined
def finish_product_tile(at: Place, y: np.ndarray, factor: np.ndarray, out: Rows) -> None:
    """`finish_tile` of y * factor."""
    for t in range(at.here.shape[0]):
        into = row(out, at, t)
        if at.here[t]:
            for j in range(into.shape[0]):
                store(into, j, y[t, j] * factor[t, j])
        else:
            for j in range(into.shape[0]):
                into[j] = 0


@inlined
def read_tile(at: Place, x: Rows, into: np.ndarray) -> None:
    for t in range(at.here.shape[0]):
        given = row(x, at, t)
        if at.here[t]:
            for j in range(given.shape[0]):
                into[t, j] = load(given, j)
        else:
            for j in range(LANES):
                into[t, j] = 0


@inlined
def read_gated_tile(
    at: Place, grad: Rows, z: Rows, into_y: np.ndarray, into_gate: np.ndarray
) -> None:
    """Gradient of y * silu(z): of y, and what y multiplies for that of z."""
    for t in range(at.here.shape[0]):
        gate, given = row(z, at, t), row(grad, at, t)
        if at.here[t]:
            for j in range(given.shape[0]):
                value, g = load(gate, j), load(given, j)
                s = sigmoid(value)
                into_y[t, j] = g * value * s
                into_gate[t, j] = g * (s + value * (s - s * s))
        else:
            for j in range(LANES):
                into_y[t, j] = 0
                into_gate[t, j] = 0
