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

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._layout import Rows, array, on_large_pages, rows
from longstate.ops._numba import parallel_for
from longstate.ops.chunk_scan import cpu_back, cpu_kernels
from longstate.ops.chunk_scan.cpu_back import Sums
from longstate.ops.chunk_scan.cpu_kernels import Decays, Heads, Sizes
from longstate.ops.chunk_scan.narrow import of_products
from longstate.ops.chunk_scan.spoiled import without_spoiled

_TILE = 2**19  # bytes of the matrices (k, k) of a tile


class _Tile(NamedTuple):
    """Some chunks of some sequences: several sequences only with all of their chunks."""

    row: int
    rows: int
    chunk: int
    chunks: int

    def of(self, v: Tensor) -> Tensor:
        """The part of v (b, chunks, ...), which is contiguous: (r c, ...)."""
        rows = slice(self.row, self.row + self.rows)
        return v[rows, self.chunk : self.chunk + self.chunks].flatten(0, 1)

    def cut(self, v: Tensor, k: int) -> Tensor:
        """The part of v (b, padded, g, n), as (r, c, g, k, n)."""
        rows, time = slice(self.row, self.row + self.rows), self.chunk * k
        part = v[rows, time : time + self.chunks * k]
        return part.unflatten(1, (self.chunks, k)).transpose(2, 3)


class _Plan(NamedTuple):
    sizes: Sizes
    a: Tensor  # b, chunks, h, k
    weight: Tensor
    own: Tensor
    D: Tensor  # h
    B: Tensor  # b, padded, g, n
    C: Tensor
    kind: torch.dtype  # of the operands of products

    def new(self, *shape: int) -> Tensor:
        """Zeros of that type."""
        return torch.zeros(shape, dtype=self.kind)

    def tiles(self) -> Iterator[_Tile]:
        """Time runs forward for each sequence."""
        b, chunks, h, k = self.a.shape
        most = max(1, _TILE // (h * k * k * self.kind.itemsize))
        rows, size = max(1, most // chunks), min(most, chunks)
        for row in range(0, b, rows):
            for chunk in range(0, chunks, size):
                yield _Tile(row, min(rows, b - row), chunk, min(size, chunks - chunk))

    def first(self, tile: _Tile) -> int:
        """The tile's first sample."""
        return tile.row * self.sizes.padded + tile.chunk * self.sizes.k

    def heads(self, tile: _Tile) -> Heads:
        a, weight, own = (array(tile.of(v).flatten(0, 1)) for v in (self.a, self.weight, self.own))
        return Heads(a, weight, own, array(self.D))

    def pair(self, tile: _Tile) -> tuple[Tensor, Tensor]:
        """B and C (q, k, n), where they are if that can be."""
        B, C = (tile.cut(v, self.sizes.k).to(self.kind).flatten(0, 2) for v in (self.B, self.C))
        return B, C


def _plan(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor, k: int,
    wide: torch.dtype,
) -> _Plan:  # fmt: skip
    (_, t, h, p), g = x.shape, B.shape[2]
    kind, padded = of_products(x, B, C, wide), -(-t // k) * k
    log_a, weight, own = (_cut(v.to(wide), k) for v in (log_a, weight, own))
    B, C = (_padded(v, k) for v in (B, C))
    sizes = Sizes(t, padded, k, h, g, p)
    return _Plan(sizes, log_a.exp(), weight, own, D.to(wide), B, C, kind)


def _padded(v: Tensor, k: int) -> Tensor:
    """v (b, t, ...) in whole chunks, with zeros after the last sample."""
    spare = -v.shape[1] % k
    return F.pad(v, (0,) * (2 * v.dim() - 3) + (spare,)) if spare else v


def _cut(v: Tensor, k: int) -> Tensor:
    """(b, t, h) as (b, chunks, h, k), with zeros after the last sample."""
    return _padded(v, k).unflatten(1, (-1, k)).transpose(2, 3).contiguous()


def _joined(v: Tensor, t: int) -> Tensor:
    """(b, chunks, h, k) as (b, t, h)."""
    return v.transpose(2, 3).flatten(1, 2)[:, :t]


class _Space(NamedTuple):
    """Operands of a tile, in the type of products, and its decays."""

    M: Tensor  # i, k, k
    x: Tensor  # i, k, p
    weighed: Tensor  # q, k, m p: in_state * x
    decays: Decays

    def part(self, blocks: int, groups: int) -> "_Space":
        return _Space(self.M[:blocks], self.x[:blocks], self.weighed[:groups], self.decays)


def _space(plan: _Plan) -> _Space:
    _, _, k, h, g, p = plan.sizes
    chunks = max(tile.rows * tile.chunks for tile in plan.tiles())
    new, total = plan.new, array(plan.a.new_empty(chunks * h))
    from_start, to_end, in_state = (array(v) for v in plan.a.new_empty(3, chunks * h, k))
    return _Space(
        new(chunks * h, k, k), new(chunks * h, k, p), new(chunks * g, k, h // g * p),
        Decays(from_start, to_end, in_state, total),
    )  # fmt: skip


def _weigh(
    plan: _Plan, tile: _Tile, x: Rows, scale: np.ndarray, plain: Tensor, weighed: Tensor
) -> None:
    """Fills the operands that x (b, t, h p) is in."""
    sizes, samples = plan.sizes, tile.rows * tile.chunks * plan.sizes.k
    if plan.first(tile) % sizes.padded + tile.chunks * sizes.k > sizes.steps:
        plain.zero_(), weighed.zero_()
    parallel_for(
        cpu_kernels.weigh, samples, plain.numel(), sizes, plan.first(tile), x, scale.reshape(-1),
        array(plain.view(-1)), array(weighed.view(-1)),
    )  # fmt: skip


def _spread(plan: _Plan, tile: _Tile, x: Rows, space: _Space, CB: Tensor) -> None:
    """Fills `space`."""
    parallel_for(
        cpu_kernels.mix, len(space.M), space.M.numel(), plan.heads(tile), array(CB),
        array(space.M), space.decays,
    )  # fmt: skip
    _weigh(plan, tile, x, space.decays.in_state, space.x, space.weighed)


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
    whole = _space(plan)
    y = on_large_pages(torch.empty(x.shape, dtype=x.dtype))
    last = h0.clone(memory_format=torch.contiguous_format)
    kept = b, plan.a.shape[1] if keep else 0, h, p, n
    states = on_large_pages(torch.empty(kept, dtype=plan.kind))
    xs, ys = rows(x.flatten(2)), rows(y.flatten(2))
    for tile in plan.tiles():
        blocks, (B, C) = tile.rows * tile.chunks * h, plan.pair(tile)
        space = whole.part(blocks, len(B))
        _spread(plan, tile, xs, space, torch.bmm(C, B.mT))
        added = torch.bmm(space.weighed.mT, B)
        before = tile.of(states) if keep else torch.empty_like(added)
        running = last[tile.row : tile.row + tile.rows]
        parallel_for(
            cpu_kernels.carry, tile.rows * h, added.numel(), tile.chunks, h, space.decays.total,
            array(added.view(blocks, -1)), array(running.view(-1, p * n)),
            array(before.view(blocks, -1)),
        )  # fmt: skip
        seen = torch.bmm(C, before.view(len(B), -1, n).mT)
        inside = torch.bmm(space.M, space.x)
        parallel_for(
            cpu_kernels.join, blocks // h * k, inside.numel(), plan.sizes, plan.first(tile),
            space.decays.from_start.reshape(-1), array(seen.view(-1)), array(inside.view(-1)), ys,
        )  # fmt: skip
    return y, last, states if keep else h0.new_empty(0)


class _Back(NamedTuple):
    """Further space for the backward."""

    dy: Tensor  # i, k, p, of a tile
    weighed: Tensor  # q, k, m p, of a tile: from_start * dy
    sums: Tensor  # kinds of `Sums`, b, chunks, h, k
    through: Tensor  # b, chunks, h: weights of the paths from one state to the next

    def of(self, tile: _Tile) -> Sums:
        return Sums(*(array(tile.of(v).flatten(0, 1)) for v in self.sums))


def backward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    states: Tensor, grad_y: Tensor, grad_last: Tensor, k: int,
) -> tuple[Tensor, ...]:  # fmt: skip
    """Gradients of x, log_a, weight, own, B, C, D, h0."""
    t = x.shape[1]
    plan = _plan(x, log_a, weight, own, B, C, D, k, grad_last.dtype)
    space = _space(plan)
    back = _Back(
        torch.zeros_like(space.x), torch.zeros_like(space.weighed),
        plan.a.new_zeros(len(Sums._fields), *plan.a.shape), plan.a.new_empty(plan.a.shape[:3]),
    )  # fmt: skip
    xs, dys = rows(x.flatten(2)), rows(grad_y.to(x.dtype).flatten(2))
    dx = on_large_pages(torch.empty(x.shape, dtype=x.dtype))
    dB, dC = (torch.empty(v.shape, dtype=v.dtype) for v in (plan.B, plan.C))
    dxs = rows(dx.flatten(2))
    dh = grad_last.clone(memory_format=torch.contiguous_format)
    for tile in reversed(list(plan.tiles())):
        _backward_tile(plan, tile, xs, dys, space, back, states, dh, dxs, dB, dC)
    of_weight, of_own, diagonal, within, starting, ended = back.sums
    # log_a at l weighs every path that enters before l and leaves at l or later
    before = F.pad((ended * plan.weight)[..., :-1], (1, 0)).cumsum(-1)
    after = starting.flip(-1).cumsum(-1).flip(-1)
    of_log_a = within + before + after + back.through[..., None]
    found = (_joined(v, t) for v in (of_log_a, of_weight + ended, of_own))
    heads = (v.to(x.dtype) for v, x in zip(found, (log_a, weight, own), strict=True))
    return dx, *heads, dB[:, :t], dC[:, :t], diagonal.sum((0, 1, 3)).to(D.dtype), dh


def _backward_tile(
    plan: _Plan, tile: _Tile, xs: Rows, dys: Rows, whole: _Space, back: _Back, states: Tensor,
    dh: Tensor, dx: Rows, dB: Tensor, dC: Tensor,
) -> None:  # fmt: skip
    _, _, k, h, g, p = plan.sizes
    chunks, n, (B, C) = tile.rows * tile.chunks, plan.B.shape[-1], plan.pair(tile)
    blocks, space, sums = chunks * h, whole.part(chunks * h, chunks * g), back.of(tile)
    dy, dy_weighed, decays = back.dy[:blocks], back.weighed[: chunks * g], space.decays
    CB = torch.bmm(C, B.mT)
    _spread(plan, tile, xs, space, CB)
    _weigh(plan, tile, dys, decays.from_start, dy, dy_weighed)

    # h' = total * h + (in_state * x)^T B
    added, before = torch.bmm(dy_weighed.mT, C), tile.of(states)
    after, running = torch.empty_like(added), dh[tile.row : tile.row + tile.rows]
    parallel_for(
        cpu_back.carry_back, tile.rows * h, added.numel(), tile.chunks, h, decays.total,
        array(added.view(blocks, -1)), array(running.view(-1, p * n)),
        array(before.view(blocks, -1)), array(after.view(blocks, -1)),
        array(tile.of(back.through).flatten()),
    )  # fmt: skip

    # y = M x + from_start * (C h)
    dM, dC_heads = torch.bmm(dy, space.x.mT), torch.bmm(dy, before.view(blocks, p, n))
    parallel_for(cpu_back.pairs, blocks, dM.numel(), plan.heads(tile), array(CB), array(dM), sums)
    dC_tile, dCB = plan.new(*C.shape), torch.empty_like(CB)
    parallel_for(
        cpu_back.gather, chunks * g * k, dC_heads.numel(), decays.from_start, array(C),
        array(dC_heads), array(dM), array(dC_tile), array(dCB), sums.starting,
    )  # fmt: skip
    inside, ending = torch.bmm(space.M.mT, dy), torch.bmm(B, after.mT)
    parallel_for(
        cpu_back.join_back, chunks * k, inside.numel(), plan.sizes, plan.first(tile), decays,
        array(space.x.view(-1)), array(inside.view(-1)), array(ending.view(-1)),
        sums.ended, dx,
    )  # fmt: skip
    dB_tile = torch.baddbmm(torch.bmm(space.weighed, after), dCB.mT, C)
    for all_of, part in ((dB, dB_tile), (dC, torch.baddbmm(dC_tile, dCB, B))):
        tile.cut(all_of, k).copy_(part.view(tile.rows, tile.chunks, g, k, n))
