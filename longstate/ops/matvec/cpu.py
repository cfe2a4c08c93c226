"""Numba: panel after panel, four columns at a time, sums of 64 lanes in the first-level cache.

Four columns share one read of the sums; four vectors share one read, and widening, of the weights.
Sums of `COLUMNS` columns are computed separately and then added: long sums lose digits.
"""

import numpy as np
import torch
from torch import Tensor

from longstate.ops._layout import array, compute_dtype
from longstate.ops._numba import inlined, kernel, parallel_for
from longstate.ops._numba.rows import load
from longstate.ops.matvec import LANES

COLUMNS = 128
_BYTES_PER_UPDATE = 100  # several threads from 3 MB, 0.1 ms: twice the time to wake them


@inlined
def _one_column(w, x, total):
    for l in range(LANES):
        total[l] += load(w, l) * x


@inlined
def _four_columns(w, x, total):
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    for l in range(LANES):
        total[l] += (
            load(w, l) * x0
            + load(w, l + LANES) * x1
            + load(w, l + 2 * LANES) * x2
            + load(w, l + 3 * LANES) * x3
        )


@inlined
def _four_columns_of_four(w, x, y, z, v, to_x, to_y, to_z, to_v):
    x0, x1, x2, x3 = x[0], x[1], x[2], x[3]
    y0, y1, y2, y3 = y[0], y[1], y[2], y[3]
    z0, z1, z2, z3 = z[0], z[1], z[2], z[3]
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    for l in range(LANES):
        a, b = load(w, l), load(w, l + LANES)
        c, d = load(w, l + 2 * LANES), load(w, l + 3 * LANES)
        to_x[l] += a * x0 + b * x1 + c * x2 + d * x3
        to_y[l] += a * y0 + b * y1 + c * y2 + d * y3
        to_z[l] += a * z0 + b * z1 + c * z2 + d * z3
        to_v[l] += a * v0 + b * v1 + c * v2 + d * v3


@kernel
def _panel_of_one(panel, x, total, part):
    for start in range(0, len(x), COLUMNS):
        stop = min(start + COLUMNS, len(x))
        fours = start + (stop - start) // 4 * 4
        part[:] = 0
        for j in range(start, fours, 4):
            _four_columns(panel[j * LANES : (j + 4) * LANES], x[j : j + 4], part)
        for j in range(fours, stop):
            _one_column(panel[j * LANES : (j + 1) * LANES], x[j], part)
        total += part


@kernel
def _panel_of_four(panel, x, total, part):
    columns = x.shape[1]
    for start in range(0, columns, COLUMNS):
        stop = min(start + COLUMNS, columns)
        fours = start + (stop - start) // 4 * 4
        part[:] = 0
        for j in range(start, fours, 4):
            k = j + 4
            _four_columns_of_four(
                panel[j * LANES : k * LANES], x[0, j:k], x[1, j:k], x[2, j:k], x[3, j:k],
                part[0], part[1], part[2], part[3],
            )  # fmt: skip
        for j in range(fours, stop):
            for r in range(4):
                _one_column(panel[j * LANES : (j + 1) * LANES], x[r, j], part[r])
        total += part


@inlined
def _finish(total, scale, bias, y):
    for l in range(len(scale)):
        total[l] *= scale[l]
    for l in range(len(bias)):
        total[l] += bias[l]
    for l in range(len(y)):
        y[l] = total[l]


@kernel
def _forward(start, stop, x, panels, scale, bias, y):
    b, rows = y.shape
    flat = panels.reshape((len(panels), -1))
    # on a cache line's boundary: vectors across two lines are slow
    raw = np.empty((b + 4) * LANES + 16, x.dtype)
    skip = (64 - raw.ctypes.data % 64) % 64 // raw.itemsize
    sums = raw[skip : skip + (b + 4) * LANES].reshape((b + 4, LANES))
    total, part = sums[:b], sums[b:]
    for p in range(start, stop):
        total[:] = 0
        for r in range(0, b - 3, 4):
            _panel_of_four(flat[p], x[r : r + 4], total[r : r + 4], part)
        for r in range(b // 4 * 4, b):
            _panel_of_one(flat[p], x[r], total[r], part[0])
        lo, hi = p * LANES, min(p * LANES + LANES, rows)
        for r in range(b):
            _finish(total[r], scale[lo:hi], bias[lo:hi], y[r, lo:hi])


def forward(
    x: Tensor, panels: Tensor, rows: int, scale: Tensor | None, bias: Tensor | None
) -> Tensor:
    wide = compute_dtype(x, panels, scale, bias)
    y = torch.empty(x.shape[0], rows, dtype=wide)
    vectors = array(x, wide)
    nothing = vectors.reshape(-1)[:0]
    work = panels.nbytes * max(1, x.shape[0] // 2) // _BYTES_PER_UPDATE
    parallel_for(
        _forward, panels.shape[0], work, vectors, array(panels),
        nothing if scale is None else array(scale, wide),
        nothing if bias is None else array(bias, wide), y.numpy(),
    )  # fmt: skip
    return y if wide == x.dtype else y.to(x.dtype)
