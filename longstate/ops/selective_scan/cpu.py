"""Numba: the scan over tiles of 64 channels and 32 steps (see `ops/_tiles.py`).

On the way back a tile's states are recomputed from the one kept at its first step. Sums over
channels (gradients of B and C) are made within each block and added up afterwards in a fixed order,
so that the result does not depend on the number of threads.
"""

import numpy as np
import torch
from numba import njit
from torch import Tensor

from longstate.ops._memory import on_large_pages
from longstate.ops._rows import rows
from longstate.ops._threads import KERNEL, parallel_for
from longstate.ops._tiles import (
    LANES,
    blocks_per_group,
    by_group,
    find_segments,
    finish_gated_tile,
    finish_product_tile,
    finish_tile,
    flags,
    place,
    read_gated_tile,
    read_tile,
    tile,
    untile,
    workspace,
    zeros_like_rows,
)  # fmt: skip
from longstate.ops._vector_math import LN2
from longstate.ops.selective_scan import CHUNK
from longstate.ops.selective_scan.cpu_constant_rows import (
    advance_constant,
    there_and_back_constant,
)  # fmt: skip
from longstate.ops.selective_scan.cpu_rows import (
    advance,
    begin_tile,
    finish_back,
    there_and_back,
)  # fmt: skip


@njit(**KERNEL)
def _forward(
    start, stop, steps, d, groups, per, u, u_batch, u_time, dt, dt_batch, dt_time, smooth,
    A, B, C, constant, row_B, row_C, D, bias, z, z_batch, z_time, has_z,
    mask, has_mask, reset, has_reset,
    h, kept, keep, out,
):  # fmt: skip
    tiles = workspace(3, CHUNK, A)
    delta, du, y = tiles[0], tiles[1], tiles[2]
    always, edges = np.ones(CHUNK, np.bool_), np.empty(CHUNK + 1, np.int64)
    fresh = np.empty(CHUNK, np.bool_)
    for chunk in range((steps + CHUNK - 1) // CHUNK):
        first, last = chunk * CHUNK, min(chunk * CHUNK + CHUNK, steps)
        for block in range(start, stop):
            b, g, _, lo, hi = place(block, groups, per, d)
            w = block % (groups * per)
            here = mask[b, first:last] if has_mask else always[: last - first]
            begin_tile(
                here, lo, hi, u, b * u_batch + first * u_time, u_time,
                dt, b * dt_batch + first * dt_time, dt_time, bias[w], D[w], smooth,
                delta, du, y,
            )  # fmt: skip
            if keep:
                kept[b, chunk, :, lo:hi] = h[block, :, : hi - lo]
            segments = find_segments(reset, has_reset, b, first, last, edges, fresh)
            for k in range(segments):
                if fresh[k]:
                    h[block] = 0
                if constant:
                    advance_constant(
                        edges[k], edges[k + 1], delta, du, A[w], B[b, first:last, g],
                        C[b, first:last, g], row_B[w], row_C[w], h[block], y,
                    )  # fmt: skip
                    continue
                advance(
                    edges[k], edges[k + 1], delta, du, A[w],
                    B[b, first:last, g], C[b, first:last, g], h[block], y,
                )  # fmt: skip
            o = (b * steps + first) * d
            if has_z:
                p = b * z_batch + first * z_time
                finish_gated_tile(here, lo, hi, y, z, p, z_time, out, o, d)
            else:
                finish_tile(here, lo, hi, y, out, o, d)


@njit(**KERNEL)
def _backward(
    start, stop, steps, d, groups, per, u, u_batch, u_time, dt, dt_batch, dt_time, smooth,
    A, B, C, constant, row_B, row_C, D, bias, z, z_batch, z_time, has_z,
    mask, has_mask, reset, has_reset,
    kept, grad_out, grad_batch, grad_time, grad_h,
    grad_u, grad_dt, grad_A, grad_B, grad_C, grad_D, grad_bias, grad_z,
    grad_row_B, grad_row_C,
):  # fmt: skip
    tiles = workspace(9, CHUNK, A)
    delta, du, y, grad_y, to_gate = tiles[0], tiles[1], tiles[2], tiles[3], tiles[4]
    decay, decayed, grad_delta, grad_du = tiles[5], tiles[6], tiles[7], tiles[8]
    h = workspace(1, A.shape[1], A)[0]
    sums = np.empty((2, LANES), A.dtype)
    always, edges = np.ones(CHUNK, np.bool_), np.empty(CHUNK + 1, np.int64)
    fresh = np.empty(CHUNK, np.bool_)
    for chunk in range((steps - 1) // CHUNK, -1, -1):
        first, last = chunk * CHUNK, min(chunk * CHUNK + CHUNK, steps)
        for block in range(start, stop):
            b, g, k, lo, hi = place(block, groups, per, d)
            w = block % (groups * per)
            here = mask[b, first:last] if has_mask else always[: last - first]
            o = (b * steps + first) * d
            p, v = b * u_batch + first * u_time, b * dt_batch + first * dt_time
            q, r = b * grad_batch + first * grad_time, b * z_batch + first * z_time
            begin_tile(
                here, lo, hi, u, p, u_time, dt, v, dt_time, bias[w], D[w], smooth, delta, du, y
            )  # fmt: skip
            grad_delta[:] = 0
            grad_du[:] = 0
            if hi - lo < LANES:  # an earlier block's values lie beyond the channels of this one
                grad_y[:] = 0
            if has_z:
                read_gated_tile(here, lo, hi, grad_out, q, grad_time, z, r, z_time, grad_y, to_gate)
            else:
                read_tile(here, lo, hi, grad_out, q, grad_time, grad_y)
            h[:, : hi - lo] = kept[b, chunk, :, lo:hi]
            h[:, hi - lo :] = 0
            segments = find_segments(reset, has_reset, b, first, last, edges, fresh)
            if constant:
                there_and_back_constant(
                    edges, segments, fresh, delta, du, A[w],
                    B[b, first:last, g], C[b, first:last, g], h, y, decay, decayed, grad_y,
                    grad_h[block], grad_delta, grad_du, grad_A[block],
                    grad_B[k, b, first:last, g], grad_C[k, b, first:last, g],
                    row_B[w], row_C[w], grad_row_B[block], grad_row_C[block],
                )  # fmt: skip
            else:
                there_and_back(
                    edges, segments, fresh, delta, du, A[w],
                    B[b, first:last, g], C[b, first:last, g], h, y, decay, decayed, grad_y,
                    grad_h[block], grad_delta, grad_du, grad_A[block],
                    grad_B[k, b, first:last, g], grad_C[k, b, first:last, g],
                )  # fmt: skip
            sums[:] = 0
            finish_back(
                here, lo, hi, u, p, u_time, dt, v, dt_time, bias[w], D[w], smooth,
                delta, grad_delta, grad_du, grad_y, o, d, grad_u, grad_dt, sums[0], sums[1],
            )  # fmt: skip
            grad_D[block] += sums[0]
            grad_bias[block] += sums[1]
            if has_z:
                finish_product_tile(here, lo, hi, y, to_gate, grad_z, o, d)


def _vector(x: Tensor | None, A: Tensor, groups: int) -> np.ndarray:
    """D or the bias as tiles (blocks, 64)."""
    x = A.new_zeros(len(A)) if x is None else x.detach().to(A.dtype)
    return tile(x[:, None], groups)[:, 0].numpy()


def _scalars_and_rows(u, B, C, groups):
    """B and C (b, t, g, n), whether one is constant, and the rows (blocks, n, 64) if so."""
    constant = B.dim() == 2 or C.dim() == 2
    scalars, row_tiles = [], []
    for x in (B, C):
        one = x.new_ones(1, 1, x.shape[-1])
        variable = one.expand(*u.shape[:2], -1) if x.dim() == 2 else x
        row = x.detach() if x.dim() == 2 else one[0].expand(u.shape[2], -1)
        scalars.append(by_group(variable, groups))
        row_tiles.append((tile(row, groups) if constant else x.new_empty(0, 0, 0)).numpy())
    return (*scalars, constant, *row_tiles)


def _arguments(u, dt, A, B, C, D, z, dt_bias, mask, reset, dt_softplus):
    _, t, d = u.shape
    groups = max(x.shape[2] if x.dim() == 4 else 1 for x in (B, C))
    return groups, (
        t, d, groups, blocks_per_group(d, groups), *rows(u), *rows(dt), dt_softplus,
        tile(A.detach() / LN2, groups).numpy(), *_scalars_and_rows(u, B, C, groups),
        _vector(D, A, groups), _vector(dt_bias, A, groups),
        *rows(u if z is None else z), z is not None,
        flags(mask), mask is not None, flags(reset), reset is not None,
    )  # fmt: skip


def _like(grad: Tensor, grad_row: Tensor, x: Tensor) -> Tensor:
    """Gradient in the form of `x`, from (k, b, t, g, n) or, where `x` is constant, (d, n)."""
    if x.dim() == 2:
        return grad_row.to(x.dtype)
    grad = grad.sum(0)
    if x.dim() == 3:
        return grad.sum(2).to(x.dtype)
    return (grad if x.shape[2] == grad.shape[2] else grad.sum(2, keepdim=True)).to(x.dtype)


def forward(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor,
    dt_bias: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    dt_softplus: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    b, t, d = u.shape
    groups, arguments = _arguments(u, dt, A, B, C, D, z, dt_bias, mask, reset, dt_softplus)
    y = on_large_pages(u.new_empty(b, t, d))
    kept = on_large_pages(A.new_empty(b, -(-t // CHUNK) if keep else 0, A.shape[1], d))
    h = tile(h0.to(A.dtype), groups).flatten(0, 1)
    parallel_for(
        _forward, len(h), u.numel() * A.shape[1], *arguments,
        h.numpy(), kept.numpy(), keep, rows(y)[0],
    )  # fmt: skip
    return y, untile(h.unflatten(0, (b, -1)), d, groups), kept


def backward(
    grad_y: Tensor | None,
    grad_last: Tensor | None,
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    kept: Tensor,
    dt_bias: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    dt_softplus: bool,
) -> list[Tensor]:
    """Gradients of u, dt, A, B, C, D, z, h0 and dt_bias."""
    (b, t, d), n = u.shape, A.shape[1]
    groups, arguments = _arguments(u, dt, A, B, C, D, z, dt_bias, mask, reset, dt_softplus)
    per = blocks_per_group(d, groups)
    grad_y = zeros_like_rows((b, t, d), u.dtype) if grad_y is None else grad_y
    grad_last = A.new_zeros(b, d, n) if grad_last is None else grad_last.to(A.dtype)
    grad_h = tile(grad_last, groups).flatten(0, 1)
    grad_u, grad_dt = (on_large_pages(x.new_empty(b, t, d)) for x in (u, dt))
    grad_z = u.new_empty(0) if z is None else on_large_pages(z.new_empty(b, t, d))
    # Sums over time: float32 within a tile, float64 from tile to tile.
    grad_A = torch.zeros_like(grad_h, dtype=torch.float64)
    grad_D, grad_bias = grad_A.new_zeros(2, len(grad_h), LANES)
    constant = B.dim() == 2 or C.dim() == 2
    grad_row_B, grad_row_C = grad_A.new_zeros(2, len(grad_h) if constant else 0, n, LANES)
    grad_B = A.new_empty(per, b, t, groups, n)
    grad_C = torch.empty_like(grad_B)
    parallel_for(
        _backward, len(grad_h), 3 * u.numel() * n, *arguments,
        kept.numpy(), *rows(grad_y), grad_h.numpy(), rows(grad_u)[0], rows(grad_dt)[0],
        grad_A.numpy(), grad_B.numpy(), grad_C.numpy(), grad_D.numpy(), grad_bias.numpy(),
        rows(grad_u if z is None else grad_z)[0], grad_row_B.numpy(), grad_row_C.numpy(),
    )  # fmt: skip

    def over_batch(x: Tensor) -> Tensor:
        return untile(x.unflatten(0, (b, -1)).sum(0), d, groups) if len(x) else x

    return [
        grad_u,
        grad_dt,
        over_batch(grad_A).to(A.dtype),
        _like(grad_B, over_batch(grad_row_B), B),
        _like(grad_C, over_batch(grad_row_C), C),
        over_batch(grad_D[:, None])[:, 0].to(A.dtype if D is None else D.dtype),
        grad_z,
        untile(grad_h.unflatten(0, (b, -1)), d, groups),
        over_batch(grad_bias[:, None])[:, 0].to(A.dtype if dt_bias is None else dt_bias.dtype),
    ]
