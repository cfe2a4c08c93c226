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

from longstate.ops._layout import array, on_large_pages, rows
from longstate.ops._numba import parallel_for
from longstate.ops.chunk_scan import cpu_back, cpu_kernels
from longstate.ops.chunk_scan.cpu_back import Gradients, Sums
from longstate.ops.chunk_scan.cpu_kernels import Back, Given, Spread, Tile
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
        Given(rows(x.flatten(2)), *heads, g, p, k), _cut(B.to(kind), chunks, k),
        _cut(C.to(kind), chunks, k), max(1, size // chunks), min(size, chunks),
    )  # fmt: skip


def _cut(v: Tensor, chunks: int, k: int) -> Tensor:
    """(b, t, g, n) as (b, chunks, g, k, n), with zeros after the last sample."""
    spare = chunks * k - v.shape[1]
    v = F.pad(v, (0, 0, 0, 0, 0, spare)) if spare else v
    return v.unflatten(1, (chunks, k)).transpose(2, 3).contiguous()


class _Space(NamedTuple):
    """What `spread` fills for a tile: operands in the type of products, and decays."""

    M: Tensor  # i, k, k
    x: Tensor  # i, k, p
    weighed: Tensor  # q, k, m p
    from_start: Tensor  # i, k
    total: Tensor  # i

    def first(self, blocks: int, groups: int) -> "_Space":
        return _Space(
            self.M[:blocks], self.x[:blocks], self.weighed[:groups], self.from_start, self.total
        )

    def arrays(self) -> Spread:
        return Spread(*(array(v) for v in self))


def _space(plan: _Plan, wide: torch.dtype) -> _Space:
    g, p, k = plan.given.groups, plan.given.p, plan.given.k
    blocks = max(plan.blocks(tile) for tile in plan.tiles())
    groups = blocks * g // plan.given.log_a.shape[2]
    M, x = plan.B.new_empty(blocks, k, k), plan.B.new_empty(blocks, k, p)
    weighed = plan.B.new_empty(groups, k, blocks // groups * p)
    from_start = torch.empty(blocks, k, dtype=wide)
    return _Space(M, x, weighed, from_start, torch.empty(blocks, dtype=wide))


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
    (b, _, h, p), g, n = x.shape, B.shape[2], B.shape[3]
    plan = _plan(x, log_a, weight, own, B, C, D, k, h0.dtype)
    given, whole = plan.given, _space(plan, h0.dtype)
    out = whole.arrays()
    y = on_large_pages(torch.empty(x.shape, dtype=x.dtype))
    last = h0.clone(memory_format=torch.contiguous_format)
    states = on_large_pages(plan.B.new_empty(b, plan.B.shape[1] if keep else 0, h, p, n))
    y_rows, running = rows(y.flatten(2)), array(last.view(b * h, p * n))
    for tile in plan.tiles():
        blocks = plan.blocks(tile)
        B, C = plan.pair(tile)
        space = whole.first(blocks, len(B))
        CB = array(torch.bmm(C, B.mT))
        parallel_for(
            cpu_kernels.spread, blocks, blocks * k * (k + 2 * p), given, tile, CB, out, None
        )
        added = torch.bmm(space.weighed.mT, B)
        before = plan.of(tile, states) if keep else torch.empty_like(added)
        parallel_for(
            cpu_kernels.carry, blocks // tile.chunks, blocks * p * n, h, tile, out.total,
            array(added.view(blocks, -1)), running, array(before.view(blocks, -1)),
        )  # fmt: skip
        seen = array(torch.bmm(C, before.view(len(B), -1, n).mT))
        inside = array(torch.bmm(space.M, space.x))
        parallel_for(
            cpu_kernels.join, blocks, blocks * k * p, given, tile, out.from_start, seen, inside,
            y_rows,
        )  # fmt: skip
    return y, last, states if keep else h0.new_empty(0)


def backward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    states: Tensor, grad_y: Tensor, grad_last: Tensor, k: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, log_a, weight, own, B, C, D, h0."""
    wide, (b, t, h, p), n, given_pair = grad_last.dtype, x.shape, B.shape[3], (B, C)
    plan = _plan(x, log_a, weight, own, B, C, D, k, wide)
    given, whole = plan.given, _space(plan, wide)
    out = whole.arrays()
    count = len(whole.M)
    dys, dy_weighed = torch.empty_like(whole.x), torch.empty_like(whole.weighed)
    to_end, *sums = torch.empty(6, count, k, dtype=wide)
    back = Back(rows(grad_y.to(x.dtype).flatten(2)), array(dys), array(dy_weighed), array(to_end))
    kept = Sums(*(array(v) for v in sums), array(torch.empty(count, dtype=wide)))
    dx = on_large_pages(torch.empty(x.shape, dtype=x.dtype))
    heads = [torch.empty(b, t, h, dtype=wide) for _ in range(3)]
    grads = Gradients(rows(dx.flatten(2)), *(array(v) for v in heads))
    dB, dC = torch.empty_like(plan.B), torch.empty_like(plan.C)
    dD, dh0 = torch.zeros(h, dtype=wide), grad_last.clone(memory_format=torch.contiguous_format)
    running = array(dh0.view(b * h, p * n))
    for tile in reversed(list(plan.tiles())):
        blocks = plan.blocks(tile)
        B, C = plan.pair(tile)
        q = len(B)
        space, dy = whole.first(blocks, q), dys[:blocks]
        CB = array(torch.bmm(C, B.mT))
        parallel_for(
            cpu_kernels.spread, blocks, blocks * k * (k + 4 * p), given, tile, CB, out, back
        )
        added, before = torch.bmm(dy_weighed[:q].mT, C), plan.of(tile, states)
        after = torch.empty_like(added)
        parallel_for(
            cpu_back.carry_back, blocks // tile.chunks, blocks * p * n, h, tile, out.total,
            array(added.view(blocks, -1)), running, array(before.view(blocks, -1)),
            array(after.view(blocks, -1)), kept.through,
        )  # fmt: skip
        dM = torch.bmm(dy, space.x.mT)
        parallel_for(cpu_back.pairs, blocks, blocks * k * k, given, tile, CB, array(dM), kept)
        dD += sums[2][:blocks].view(-1, h, k).sum((0, 2))
        dC_heads = torch.bmm(dy, before.view(blocks, p, n))
        dC_tile, dCB = torch.empty_like(C), torch.empty(q, k, k, dtype=C.dtype)
        parallel_for(
            cpu_back.gather, q * k, blocks * k * (k + n), out.from_start, array(C),
            array(dC_heads), array(dM), array(dC_tile), array(dCB), kept.starting,
        )  # fmt: skip
        inside, ending = torch.bmm(space.M.mT, dy), torch.bmm(B, after.mT)
        parallel_for(
            cpu_back.join_back, blocks, blocks * k * p, given, tile, back.to_end, out.x,
            array(inside), array(ending), kept, grads,
        )  # fmt: skip
        dB_tile = torch.bmm(space.weighed, after)
        plan.of(tile, dB).copy_(torch.baddbmm(dB_tile, dCB.mT, C).view(plan.of(tile, dB).shape))
        plan.of(tile, dC).copy_(torch.baddbmm(dC_tile, dCB, B).view(plan.of(tile, dC).shape))
    dB, dC = (v.transpose(2, 3).flatten(1, 2)[:, :t] for v in (dB, dC))
    found, like = (*heads, dB, dC, dD), (log_a, weight, own, *given_pair, D)
    return dx, *(v.to(x.dtype) for v, x in zip(found, like, strict=True)), dh0
