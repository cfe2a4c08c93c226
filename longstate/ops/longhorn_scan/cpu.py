"""Numba: the scan over tiles of 64 channels and 32 steps (see `ops/_tiles.py`).

On the way back a tile's states are recomputed from those kept at its first step. Sums over channels
(gradients of k and q) are made within each block and added up afterwards in a fixed order, so that
the result does not depend on the number of threads.
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
    find_segments,
    finish_gated_tile,
    finish_product_tile,
    finish_tile,
    flags,
    read_gated_tile,
    read_tile,
    tile,
    untile,
    workspace,
    zeros_like_rows,
)  # fmt: skip
from longstate.ops.longhorn_scan import CHUNK
from longstate.ops.longhorn_scan.cpu_rows import (
    advance,
    advance_exact,
    begin_tile,
    finish_back,
    there_and_back,
    there_and_back_exact,
)  # fmt: skip


@njit(**KERNEL)
def _forward(
    start, stop, steps, d, per, x, x_batch, x_time, beta, beta_batch, beta_time, squash, exact,
    k, q, size, D, bias, z, z_batch, z_time, has_z, mask, has_mask, reset, has_reset,
    h, kept, keep, out,
):  # fmt: skip
    tiles = workspace(5, CHUNK, k)
    rate, slope, drive, y, guess = tiles[0], tiles[1], tiles[2], tiles[3], tiles[4, 0]
    always, edges = np.ones(CHUNK, np.bool_), np.empty(CHUNK + 1, np.int64)
    fresh = np.empty(CHUNK, np.bool_)
    for chunk in range((steps + CHUNK - 1) // CHUNK):
        first, last = chunk * CHUNK, min(chunk * CHUNK + CHUNK, steps)
        for block in range(start, stop):
            b, w = divmod(block, per)
            lo, hi = w * LANES, min(w * LANES + LANES, d)
            here = mask[b, first:last] if has_mask else always[: last - first]
            begin_tile(
                here, lo, hi, x, b * x_batch + first * x_time, x_time,
                beta, b * beta_batch + first * beta_time, beta_time, bias[w], D[w], squash,
                size[b, first:last], rate, slope, drive, y,
            )  # fmt: skip
            if keep:
                kept[b, chunk, :, lo:hi] = h[block, :, : hi - lo]
            segments = find_segments(reset, has_reset, b, first, last, edges, fresh)
            for s in range(segments):
                if fresh[s]:
                    h[block] = 0
                if exact:
                    advance_exact(
                        edges[s], edges[s + 1], rate, drive, k[b, first:last], q[b, first:last],
                        h[block], y, guess,
                    )  # fmt: skip
                else:
                    advance(
                        edges[s], edges[s + 1], rate, drive, k[b, first:last], q[b, first:last],
                        h[block], y,
                    )  # fmt: skip
            o = (b * steps + first) * d
            if has_z:
                p = b * z_batch + first * z_time
                finish_gated_tile(here, lo, hi, y, z, p, z_time, out, o, d)
            else:
                finish_tile(here, lo, hi, y, out, o, d)


@njit(**KERNEL)
def _backward(
    start, stop, steps, d, per, x, x_batch, x_time, beta, beta_batch, beta_time, squash, exact,
    k, q, size, D, bias, z, z_batch, z_time, has_z, mask, has_mask, reset, has_reset,
    kept, grad_out, grad_batch, grad_time, grad_h,
    grad_x, grad_beta, grad_k, grad_q, grad_size, grad_D, grad_bias, grad_z,
):  # fmt: skip
    n = k.shape[2]
    tiles = workspace(10, CHUNK, k)
    rate, slope, drive, y, grad_y = tiles[0], tiles[1], tiles[2], tiles[3], tiles[4]
    to_gate, grad_rate, grad_drive, guess, move = tiles[5], tiles[6], tiles[7], tiles[8], tiles[9]
    before = workspace(n if exact else 1, CHUNK, k)
    h = workspace(1, n, k)[0]
    sums = np.empty((2, LANES), k.dtype)
    always, edges = np.ones(CHUNK, np.bool_), np.empty(CHUNK + 1, np.int64)
    fresh = np.empty(CHUNK, np.bool_)
    for chunk in range((steps - 1) // CHUNK, -1, -1):
        first, last = chunk * CHUNK, min(chunk * CHUNK + CHUNK, steps)
        for block in range(start, stop):
            b, w = divmod(block, per)
            lo, hi = w * LANES, min(w * LANES + LANES, d)
            here = mask[b, first:last] if has_mask else always[: last - first]
            o, p = (b * steps + first) * d, b * x_batch + first * x_time
            g, r = b * grad_batch + first * grad_time, b * z_batch + first * z_time
            begin_tile(
                here, lo, hi, x, p, x_time, beta, b * beta_batch + first * beta_time, beta_time,
                bias[w], D[w], squash, size[b, first:last], rate, slope, drive, y,
            )  # fmt: skip
            grad_rate[:] = 0
            grad_drive[:] = 0
            if hi - lo < LANES:  # an earlier block's values lie beyond the channels of this one
                grad_y[:] = 0
            if has_z:
                read_gated_tile(here, lo, hi, grad_out, g, grad_time, z, r, z_time, grad_y, to_gate)
            else:
                read_tile(here, lo, hi, grad_out, g, grad_time, grad_y)
            h[:, : hi - lo] = kept[b, chunk, :, lo:hi]
            h[:, hi - lo :] = 0
            segments = find_segments(reset, has_reset, b, first, last, edges, fresh)
            if exact:
                there_and_back_exact(
                    edges, segments, fresh, rate, drive, k[b, first:last], q[b, first:last], h, y,
                    before, grad_y, grad_h[block], grad_rate, grad_drive,
                    grad_k[w, b, first:last], grad_q[w, b, first:last], guess, move,
                )  # fmt: skip
            else:
                there_and_back(
                    edges, segments, fresh, rate, drive, k[b, first:last], q[b, first:last], h, y,
                    before, grad_y, grad_h[block], grad_rate, grad_drive,
                    grad_k[w, b, first:last], grad_q[w, b, first:last],
                )  # fmt: skip
            sums[:] = 0
            finish_back(
                here, lo, hi, x, p, x_time, D[w], rate, slope, grad_rate, grad_drive, grad_y,
                o, d, grad_x, grad_beta, sums[0], sums[1], grad_size[w, b, first:last],
            )  # fmt: skip
            grad_D[block] += sums[0]
            grad_bias[block] += sums[1]
            if has_z:
                finish_product_tile(here, lo, hi, y, to_gate, grad_z, o, d)


def _arguments(x, beta, k, q, size, D, z, beta_bias, mask, reset, beta_sigmoid, exact):
    _, t, d = x.shape

    def vector(p: Tensor | None) -> np.ndarray:
        p = k.new_zeros(d) if p is None else p.detach().to(k.dtype)
        return tile(p[:, None], 1)[:, 0].numpy()

    return (
        t, d, blocks_per_group(d, 1), *rows(x), *rows(beta), beta_sigmoid, exact,
        *(p.detach().contiguous().numpy() for p in (k, q, size)), vector(D), vector(beta_bias),
        *rows(x if z is None else z), z is not None,
        flags(mask), mask is not None, flags(reset), reset is not None,
    )  # fmt: skip


def forward(
    x: Tensor,
    beta: Tensor,
    k: Tensor,
    q: Tensor,
    size: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    h0: Tensor,
    beta_bias: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    beta_sigmoid: bool,
    exact: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, d), n = x.shape, k.shape[2]
    y = on_large_pages(x.new_empty(b, t, d))
    kept = on_large_pages(k.new_empty(b, -(-t // CHUNK) if keep else 0, n, d))
    h = tile(h0, 1).flatten(0, 1)
    parallel_for(
        _forward, len(h), x.numel() * n,
        *_arguments(x, beta, k, q, size, D, z, beta_bias, mask, reset, beta_sigmoid, exact),
        h.numpy(), kept.numpy(), keep, rows(y)[0],
    )  # fmt: skip
    return y, untile(h.unflatten(0, (b, -1)), d, 1), kept


def backward(
    grad_y: Tensor | None,
    grad_last: Tensor | None,
    x: Tensor,
    beta: Tensor,
    k: Tensor,
    q: Tensor,
    size: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    kept: Tensor,
    beta_bias: Tensor | None,
    mask: Tensor | None,
    reset: Tensor | None,
    beta_sigmoid: bool,
    exact: bool,
) -> list[Tensor]:
    """Gradients of x, beta, k, q, size, D, z, h0 and beta_bias."""
    (b, t, d), n = x.shape, k.shape[2]
    grad_y = zeros_like_rows((b, t, d), x.dtype) if grad_y is None else grad_y
    grad_last = k.new_zeros(b, d, n) if grad_last is None else grad_last.to(k.dtype)
    grad_h = tile(grad_last, 1).flatten(0, 1)
    grad_x, grad_beta = (on_large_pages(p.new_empty(b, t, d)) for p in (x, beta))
    grad_z = x.new_empty(0) if z is None else on_large_pages(z.new_empty(b, t, d))
    grad_k, grad_q = k.new_empty(2, blocks_per_group(d, 1), b, t, n)
    grad_size = k.new_empty(grad_k.shape[:3])
    # Sums over time: in the working type within a tile, in float64 from tile to tile.
    grad_D, grad_bias = torch.zeros(2, len(grad_h), LANES, dtype=torch.float64)
    parallel_for(
        _backward, len(grad_h), 3 * x.numel() * n,
        *_arguments(x, beta, k, q, size, D, z, beta_bias, mask, reset, beta_sigmoid, exact),
        kept.numpy(), *rows(grad_y), grad_h.numpy(), rows(grad_x)[0], rows(grad_beta)[0],
        grad_k.numpy(), grad_q.numpy(), grad_size.numpy(), grad_D.numpy(), grad_bias.numpy(),
        rows(grad_x if z is None else grad_z)[0],
    )  # fmt: skip

    def over_batch(p: Tensor, like: Tensor | None) -> Tensor:
        total = untile(p[:, None].unflatten(0, (b, -1)).sum(0), d, 1)[:, 0]
        return total.to(k.dtype if like is None else like.dtype)

    return [
        grad_x,
        grad_beta,
        grad_k.sum(0),
        grad_q.sum(0),
        grad_size.sum(0),
        over_batch(grad_D, D),
        grad_z,
        untile(grad_h.unflatten(0, (b, -1)), d, 1),
        over_batch(grad_bias, beta_bias),
    ]
