"""Numba and PyTorch's matrix products, a tile of chunks at a time.

The equations are those of `chunks.py`. A product runs over all chunks and heads of a tile, which is
as much as stays in the cache; the kernels of `cpu_kernels.py` and `cpu_back.py` do the rest. Where
x, B and C are bfloat16 and the processor multiplies such numbers, so are the operands and results
of the products, which add up in float32, and the states that are kept for the backward. Decays and
the states that run along are in the type of `h0`.

Axes: b batch, t time, h heads, p channels per head, n state, g groups, m heads per group, k time
within a chunk, i blocks: a head of a chunk of a sequence, q a group of one.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._layout import Rows, array, on_large_pages, rows
from longstate.ops._numba import parallel_for
from longstate.ops.chunk_scan import cpu_back, cpu_kernels
from longstate.ops.chunk_scan.cpu_back import Gradients, Sums
from longstate.ops.chunk_scan.cpu_kernels import Decays, Given, Tile
from longstate.ops.chunk_scan.narrow import of_products
from longstate.ops.chunk_scan.spoiled import without_spoiled

_TILE = 2**19  # bytes of the matrices (k, k) of a tile


class _Plan(NamedTuple):
    given: Given
    B: Tensor  # b, chunks, g, k, n
    C: Tensor
    rows: int  # sequences of a tile
    size: int  # chunks of a tile

    def tiles(self) -> Iterator[Tile]:
        """Time runs forward for each sequence."""
        b, chunks = self.B.shape[:2]
        for row in range(0, b, self.rows):
            for chunk in range(0, chunks, self.size):
                yield Tile(row, chunk, min(self.size, chunks - chunk))

    def of(self, tile: Tile, v: Tensor) -> Tensor:
        """The part (r, c, ...) of v (b, chunks, ...)."""
        return v[tile.row : tile.row + self.rows, tile.chunk : tile.chunk + tile.chunks]

    def pair(self, tile: Tile) -> tuple[Tensor, Tensor]:
        """B and C of a tile, (q, k, n)."""
        B, C = (self.of(tile, v).flatten(0, 2) for v in (self.B, self.C))
        return B, C

    def blocks(self, tile: Tile) -> int:
        b, heads = len(self.B), self.given.log_a.shape[2]
        return min(self.rows, b - tile.row) * tile.chunks * heads


def _plan(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor, k: int,
    wide: torch.dtype,
) -> _Plan:  # fmt: skip
    (b, t, h, p), g = x.shape, B.shape[2]
    kind, chunks = of_products(x, B, C, wide), -(-t // k)
    heads = (array(v, wide) for v in (log_a, weight, own, D))
    size = max(1, _TILE // (h * k * k * kind.itemsize))
    return _Plan(
        Given(*heads, g, p, k), _cut(B.to(kind), chunks, k),
        _cut(C.to(kind), chunks, k), max(1, size // chunks), min(size, chunks),
    )  # fmt: skip


def _cut(v: Tensor, chunks: int, k: int) -> Tensor:
    """(b, t, g, n) as (b, chunks, g, k, n), with zeros after the last sample."""
    spare = chunks * k - v.shape[1]
    v = F.pad(v, (0, 0, 0, 0, 0, spare)) if spare else v
    return v.unflatten(1, (chunks, k)).transpose(2, 3).contiguous()


class _Space(NamedTuple):
    """Operands of a tile, in the type of products, and its decays."""

    M: Tensor  # i, k, k
    x: Tensor  # i, k, p
    weighed: Tensor  # q, k, m p: in_state * x
    decays: Decays

    def first(self, blocks: int, groups: int) -> "_Space":
        return _Space(self.M[:blocks], self.x[:blocks], self.weighed[:groups], self.decays)


def _space(plan: _Plan, wide: torch.dtype) -> _Space:
    g, p, k = plan.given.groups, plan.given.p, plan.given.k
    blocks = max(plan.blocks(tile) for tile in plan.tiles())
    groups = blocks * g // plan.given.log_a.shape[2]
    new, decays = plan.B.new_empty, torch.empty(3, blocks, k, dtype=wide)
    return _Space(
        new(blocks, k, k), new(blocks, k, p), new(groups, k, blocks // groups * p),
        Decays(*(array(v) for v in decays), array(torch.empty(blocks, dtype=wide))),
    )  # fmt: skip


def _spread(plan: _Plan, tile: Tile, x: Rows, space: _Space, CB: Tensor) -> None:
    """Fills `space`."""
    given, decays, (blocks, k, p) = plan.given, space.decays, space.x.shape
    parallel_for(
        cpu_kernels.mix, blocks, blocks * k * k, given, tile, array(CB), array(space.M), decays
    )
    parallel_for(
        cpu_kernels.weigh, blocks // len(plan.given.D) * k, blocks * k * p, given, tile, x,
        decays.in_state, array(space.x), array(space.weighed),
    )  # fmt: skip


def forward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, k: int, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y (b, t, h, p), last (b, h, p, n), and if `keep` the states before every chunk
    (b, chunks, h, p, n)."""
    return without_spoiled(_forward, x, log_a, weight, own, B, C, D, h0, k, keep)


def _forward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, k: int, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    (b, _, h, p), n = x.shape, B.shape[3]
    plan = _plan(x, log_a, weight, own, B, C, D, k, h0.dtype)
    given, whole = plan.given, _space(plan, h0.dtype)
    y = on_large_pages(torch.empty(x.shape, dtype=x.dtype))
    last = h0.clone(memory_format=torch.contiguous_format)
    states = on_large_pages(plan.B.new_empty(b, plan.B.shape[1] if keep else 0, h, p, n))
    xs, ys, running = rows(x.flatten(2)), rows(y.flatten(2)), array(last.view(b * h, p * n))
    for tile in plan.tiles():
        blocks, (B, C) = plan.blocks(tile), plan.pair(tile)
        space = whole.first(blocks, len(B))
        _spread(plan, tile, xs, space, torch.bmm(C, B.mT))
        added = torch.bmm(space.weighed.mT, B)
        before = plan.of(tile, states) if keep else torch.empty_like(added)
        parallel_for(
            cpu_kernels.carry, blocks // tile.chunks, blocks * p * n, h, tile, space.decays.total,
            array(added.view(blocks, -1)), running, array(before.view(blocks, -1)),
        )  # fmt: skip
        seen = torch.bmm(C, before.view(len(B), -1, n).mT)
        parallel_for(
            cpu_kernels.join, blocks // h * k, blocks * k * p, given, tile,
            space.decays.from_start, array(seen), array(torch.bmm(space.M, space.x)), ys,
        )  # fmt: skip
    return y, last, states if keep else h0.new_empty(0)


class _Back(NamedTuple):
    """Further space for the backward of a tile."""

    dy: Tensor  # i, k, p
    weighed: Tensor  # q, k, m p: from_start * dy
    diagonal: Tensor  # i, k: dy . x
    sums: Sums


def _back(space: _Space, wide: torch.dtype) -> _Back:
    blocks, k, _ = space.x.shape
    sums = torch.empty(6, blocks, k, dtype=wide)
    arrays = (array(v) for v in (*sums, torch.empty(blocks, dtype=wide)))
    return _Back(torch.empty_like(space.x), torch.empty_like(space.weighed), sums[2], Sums(*arrays))


def backward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    states: Tensor, grad_y: Tensor, grad_last: Tensor, k: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, log_a, weight, own, B, C, D, h0."""
    wide, (b, t, h, _) = grad_last.dtype, x.shape
    plan = _plan(x, log_a, weight, own, B, C, D, k, wide)
    space = _space(plan, wide)
    back = _back(space, wide)
    xs, dys = rows(x.flatten(2)), rows(grad_y.to(x.dtype).flatten(2))
    dx = on_large_pages(torch.empty(x.shape, dtype=x.dtype))
    heads = [torch.empty(b, t, h, dtype=wide) for _ in range(3)]
    grads, dxs = Gradients(*(array(v) for v in heads)), rows(dx.flatten(2))
    dB, dC, dD = torch.empty_like(plan.B), torch.empty_like(plan.C), torch.zeros(h, dtype=wide)
    dh0 = grad_last.clone(memory_format=torch.contiguous_format)
    for tile in reversed(list(plan.tiles())):
        _backward_tile(plan, tile, xs, dys, space, back, states, dh0, dxs, grads, dB, dC)
        dD += back.diagonal[: plan.blocks(tile)].view(-1, h, k).sum((0, 2))
    dB, dC = (v.transpose(2, 3).flatten(1, 2)[:, :t] for v in (dB, dC))
    found, like = (*heads, dB, dC, dD), (log_a, weight, own, B, C, D)
    return dx, *(v.to(x.dtype) for v, x in zip(found, like, strict=True)), dh0


def _backward_tile(
    plan: _Plan, tile: Tile, xs: Rows, dys: Rows, space: _Space, back: _Back, states: Tensor,
    dh: Tensor, dx: Rows, grads: Gradients, dB: Tensor, dC: Tensor,
) -> None:  # fmt: skip
    given, blocks, (B, C) = plan.given, plan.blocks(tile), plan.pair(tile)
    q, k, n = B.shape
    h, p = len(given.D), given.p
    space, decays, sums = space.first(blocks, q), space.decays, back.sums
    dy, dy_weighed = back.dy[:blocks], back.weighed[:q]
    CB = torch.bmm(C, B.mT)
    _spread(plan, tile, xs, space, CB)
    parallel_for(
        cpu_kernels.weigh, blocks // h * k, blocks * k * p, given, tile, dys, decays.from_start,
        array(dy), array(dy_weighed),
    )  # fmt: skip

    # h' = total * h + (in_state * x)^T B
    added, before = torch.bmm(dy_weighed.mT, C), plan.of(tile, states)
    after = torch.empty_like(added)
    parallel_for(
        cpu_back.carry_back, blocks // tile.chunks, blocks * p * n, h, tile, decays.total,
        array(added.view(blocks, -1)), array(dh.view(-1, p * n)), array(before.view(blocks, -1)),
        array(after.view(blocks, -1)), sums.through,
    )  # fmt: skip

    # y = M x + from_start * (C h)
    dM, dC_heads = torch.bmm(dy, space.x.mT), torch.bmm(dy, before.view(blocks, p, n))
    parallel_for(
        cpu_back.pairs, blocks, blocks * k * k, given, tile, array(CB), array(dM), sums
    )
    dC_tile, dCB = torch.empty_like(C), torch.empty_like(CB)
    parallel_for(
        cpu_back.gather, q * k, blocks * k * (k + n), decays.from_start, array(C),
        array(dC_heads), array(dM), array(dC_tile), array(dCB), sums.starting,
    )  # fmt: skip
    parallel_for(
        cpu_back.join_back, blocks // h * k, blocks * k * p, given, tile, decays, array(space.x),
        array(torch.bmm(space.M.mT, dy)), array(torch.bmm(B, after.mT)), sums.ended, dx,
    )  # fmt: skip
    parallel_for(cpu_back.of_heads, blocks, blocks * k, given, tile, sums, grads)
    dB_tile = torch.baddbmm(torch.bmm(space.weighed, after), dCB.mT, C)
    for whole, part in ((dB, dB_tile), (dC, torch.baddbmm(dC_tile, dCB, B))):
        into = plan.of(tile, whole)
        into.copy_(part.view(into.shape))
