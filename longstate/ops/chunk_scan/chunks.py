"""The recurrence by matrix products, a tile of chunks at a time.

Inside a chunk, with L_ls the decay from sample s to a later l:

    M = (L * C B^T) weight + diag(own * C B^T + D)
    y = M x  +  from_start * (C h)                             h the state before the chunk
    h' = total * h  +  (to_end * weight * x)^T B               the state after it

Heads of a group share B and C, so most products run over all of them at once. A tile is as much as
stays in the cache; only states between chunks are kept for the backward.

Axes: b batch, t time, h heads, p channels per head, n state, g groups, m heads per group, c chunks,
k time within a chunk, r rows of the batch in a tile, z blocks of rows.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._layout import on_large_pages
from longstate.ops.chunk_scan.decay import Decays, decays, matrix, paths_through
from longstate.ops.chunk_scan.spoiled import without_spoiled

_TILE = {"cpu": 2**17}  # entries of L in a tile: half a MiB of float32
_TILE_ELSEWHERE = 2**25


class Tiling:
    """How (b, t) is cut into tiles."""

    def __init__(self, x: Tensor, groups: int, k: int):
        b, t, h, _ = x.shape
        entries = _TILE.get(x.device.type, _TILE_ELSEWHERE) // (h * k * k)
        self.k, self.groups, self.chunks = k, groups, t // k
        self.rows = next(r for r in range(b, 0, -1) if b % r == 0 and (r <= entries or r == 1))
        self.blocks = b // self.rows
        # Several chunks only if a tile has all rows: then its memory is contiguous.
        self.tile = min(self.chunks, max(1, entries // b)) if self.rows == b else 1

    def tiles(self) -> Iterator[tuple[int, slice]]:
        """Block of rows and slice of chunks of every tile; time runs forward within a block."""
        for z in range(self.blocks):
            for start in range(0, self.chunks, self.tile):
                yield z, slice(start, min(start + self.tile, self.chunks))

    def cut(self, v: Tensor) -> Tensor:
        """View (b, t, g or h, ...) as (z, c, r, g or h, k, ...)."""
        v = v.unflatten(1, (self.chunks, self.k)).unflatten(0, (self.blocks, self.rows))
        return v.transpose(1, 2).transpose(3, 4)

    def cut_heads(self, v: Tensor) -> Tensor:
        """View (b, t, h, p) as (z, c, r, g, k, m, p)."""
        return self.cut(v.unflatten(2, (self.groups, -1)))


def flat(v: Tensor) -> Tensor:
    """A batch of matrices; a view where strides allow, which for a tile of one chunk they do."""
    return v.reshape(-1, *v.shape[-2:])


class Weights(NamedTuple):
    """Weights of a sample in the state and in its own output (z, c, r, h, k), and D (h)."""

    state: Tensor
    own: Tensor
    D: Tensor

    def at(self, *index: int | slice) -> "Weights":
        return Weights(self.state[index], self.own[index], self.D)


def forward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, k: int, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """y (b, t, h, p), last (b, h, p, n), and if `keep` the states before every chunk."""
    return without_spoiled(_forward, x, log_a, weight, own, B, C, D, h0, k, keep)


def _forward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    h0: Tensor, k: int, keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    cut = Tiling(x, B.shape[2], k)
    dtype = h0.dtype
    log_a, weight, own = (cut.cut(v.to(dtype)).contiguous() for v in (log_a, weight, own))
    all_decays, weights = decays(log_a), Weights(weight, own, D.to(dtype))
    y = on_large_pages(torch.empty(x.shape, dtype=x.dtype, device=x.device))
    last = torch.empty_like(h0, memory_format=torch.contiguous_format)
    slots = cut.chunks if keep else cut.tile
    states = h0.new_empty(cut.blocks if keep else 1, slots + 1, cut.rows, *h0.shape[1:])
    on_large_pages(states)
    xs, ys, Bs, Cs = cut.cut_heads(x), cut.cut_heads(y), cut.cut(B), cut.cut(C)
    for z, tile in cut.tiles():
        if keep:
            state = states[z, tile.start : tile.stop + 1]
        else:
            state = states[0, : tile.stop - tile.start + 1]
        if tile.start == 0:
            state[0] = h0[z * cut.rows : (z + 1) * cut.rows]
        elif not keep:
            state[0] = states[0, -1]
        x_tile, B_tile, C_tile = (v[z, tile].to(dtype) for v in (xs, Bs, Cs))
        _forward_tile(
            x_tile, B_tile, C_tile, all_decays.at(z, tile), weights.at(z, tile), state, ys[z, tile]
        )
        if tile.stop == cut.chunks:
            last[z * cut.rows : (z + 1) * cut.rows] = state[-1]
    return y, last, states if keep else h0.new_empty(0)


def _forward_tile(
    x: Tensor, B: Tensor, C: Tensor, d: Decays, weights: Weights, state: Tensor, y: Tensor
) -> None:
    """Fills `state` (c + 1, r, h, p, n) from its first entry; writes y."""
    c, r, g, k, m, p = x.shape
    n = B.shape[-1]
    weighed = _weigh(x, _per_head(d.to_end * weights.state, g)).view(c, r * g, k, m * p)
    right = B.reshape(c, r * g, k, n)
    for j in range(c):
        _advance(state[j], d.total[j], weighed[j].mT, right[j], out=state[j + 1])
    B, C = flat(B), flat(C)
    outside = torch.bmm(C, state[:-1].view(-1, m * p, n).mT)
    L = matrix(d).view(c, r, g, m, k, k)
    M = _mixing(L, torch.bmm(C, B.mT).view(c, r, g, 1, k, k), weights)
    inside = torch.bmm(flat(M), flat(x.transpose(3, 4))).view(c, r, g, m, k, p)
    torch.addcmul(inside.transpose(3, 4), outside.view(x.shape), _per_head(d.from_start, g), out=y)


def _mixing(L: Tensor, CB: Tensor, weights: Weights) -> Tensor:
    """M (c, r, g, m, k, k), in the place of L."""
    heads = L.shape[:-1]  # (c, r, g, m, k)
    L.mul_(CB).mul_(weights.state.view(heads)[..., None, :])
    own = weights.own.view(heads) * CB.diagonal(0, -2, -1)
    L.diagonal(0, -2, -1).copy_(own + weights.D.view(heads[2], heads[3], 1))
    return L


def _advance(state: Tensor, total: Tensor, left: Tensor, right: Tensor, out: Tensor) -> None:
    """total * state + left @ right, one chunk on; state (r, h, p, n), the product (r g, m p, n)."""
    torch.mul(state, total[..., None, None], out=out)
    out.view(len(left), -1, out.shape[-1]).baddbmm_(left, right)


def _per_head(v: Tensor, groups: int) -> Tensor:
    """(c, r, h, k) -> (c, r, g, k, m, 1)"""
    c, r, h, k = v.shape
    return v.view(c, r, groups, h // groups, k, 1).transpose(3, 4)


def _weigh(v: Tensor, weight: Tensor) -> Tensor:
    """(c, r, g, k, m, p) times its weight, as contiguous matrices (c r g, k, m p)."""
    out = torch.empty(v.shape, dtype=v.dtype, device=v.device)
    return torch.mul(v, weight, out=out).view(-1, v.shape[3], v.shape[4] * v.shape[5])


def backward(
    x: Tensor, log_a: Tensor, weight: Tensor, own: Tensor, B: Tensor, C: Tensor, D: Tensor,
    states: Tensor, grad_y: Tensor, grad_last: Tensor, k: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of x, log_a, weight, own, B, C, D, h0."""
    cut = Tiling(x, B.shape[2], k)
    dtype = states.dtype
    small = tuple(cut.cut(v.to(dtype)).contiguous() for v in (log_a, weight, own))
    all_decays, weights = decays(small[0]), Weights(small[1], small[2], D.to(dtype))
    d_small = tuple(torch.empty_like(v) for v in small)
    dx, dB, dC = (torch.empty(v.shape, dtype=v.dtype, device=v.device) for v in (x, B, C))
    on_large_pages(dx)
    grad_D, grad_h0 = torch.zeros_like(weights.D), torch.empty_like(grad_last)
    xs, dys, dxs = (cut.cut_heads(v) for v in (x, grad_y, dx))
    Bs, Cs, dBs, dCs = (cut.cut(v) for v in (B, C, dB, dC))
    # the gradient of the state, backwards: slot j is before chunk j of a tile, j + 1 after it
    slots = states.new_empty(cut.tile + 1, *states.shape[2:])
    for z, tile in reversed(list(cut.tiles())):
        rows = slice(z * cut.rows, (z + 1) * cut.rows)
        grad_state = slots[: tile.stop - tile.start + 1]
        grad_state[-1] = grad_last[rows] if tile.stop == cut.chunks else slots[0]
        x_tile, dy_tile, B_tile, C_tile = (v[z, tile].to(dtype) for v in (xs, dys, Bs, Cs))
        *found, diagonal = _backward_tile(
            x_tile, dy_tile, B_tile, C_tile, all_decays.at(z, tile), weights.at(z, tile),
            states[z, tile], grad_state, dxs[z, tile], dBs[z, tile], dCs[z, tile],
        )  # fmt: skip
        for out, v in zip(d_small, found, strict=True):
            out[z, tile] = v
        grad_D += diagonal.sum((0, 1, 3))
        if tile.start == 0:
            grad_h0[rows] = slots[0]
    d_log_a, d_weight, d_own = (
        v.transpose(3, 4).transpose(1, 2).reshape(log_a.shape).to(like.dtype)
        for v, like in zip(d_small, (log_a, weight, own), strict=True)
    )
    return dx, d_log_a, d_weight, d_own, dB, dC, grad_D.to(D.dtype), grad_h0


def _backward_tile(
    x: Tensor, dy: Tensor, B: Tensor, C: Tensor, d: Decays, weights: Weights, state: Tensor,
    grad_state: Tensor, dx: Tensor, dB: Tensor, dC: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """Fills `grad_state` from its last entry; writes dx, dB, dC.

    Returns gradients (c, r, h, k) of log_a, weight, own, and dy . x, of which D has the sum.
    """
    c, r, g, k, m, p = x.shape
    n = B.shape[-1]
    per_sample = (c, r, g * m, k)
    to_end, from_start = _per_head(d.to_end * weights.state, g), _per_head(d.from_start, g)
    dy_weighed, x_weighed = _weigh(dy, from_start), _weigh(x, to_end)
    left, right = dy_weighed.view(c, r * g, k, m * p).mT, C.reshape(c, r * g, k, n)
    for j in reversed(range(c)):
        _advance(grad_state[j + 1], d.total[j], left[j], right[j], out=grad_state[j])
    B, C = flat(B), flat(C)
    dH = grad_state[1:].view(-1, m * p, n)

    # y = M x
    L = matrix(d).view(c, r, g, m, k, k)
    CB = torch.bmm(C, B.mT).view(c, r, g, 1, k, k)
    dy_heads = flat(dy.transpose(3, 4))
    dM = torch.bmm(dy_heads, flat(x.transpose(3, 4)).mT).view(L.shape)
    diagonal = dM.diagonal(0, -2, -1).flatten(2, 3).clone()  # dM is overwritten below
    d_own = (diagonal.view(L.shape[:-1]) * CB.diagonal(0, -2, -1)).view(per_sample)
    columns = weights.state.view(L.shape[:-1])[..., None, :]
    paths = dM.mul_(L) * CB
    d_weight = paths.sum(-2).view(per_sample)
    within = paths_through(paths.mul_(columns)).view(per_sample)
    dCB = flat(dM.mul_(columns).sum(3))
    dCB.diagonal(0, -2, -1).add_((diagonal * weights.own).view(-1, m, k).sum(1))
    inside = torch.bmm(flat(_mixing(L, CB, weights)).mT, dy_heads).view(c, r, g, m, k, p)

    # h' = total * h + (to_end * weight * x)^T B
    ending = torch.bmm(B, dH.mT)
    torch.addcmul(inside.transpose(3, 4), ending.view(x.shape), to_end, out=dx)
    dB.copy_(torch.bmm(x_weighed, dH).baddbmm_(dCB.mT, C).view(dB.shape))
    ends = ending.view(x.shape).mul_(x).sum(-1).transpose(3, 4).reshape(per_sample) * d.to_end
    through = d.total * torch.linalg.vecdot(state.flatten(-2), grad_state[1:].flatten(-2))

    # from_start * (C h), head by head because the gradient of from_start needs it so
    dy_heads = dy_weighed.view(c, r, g, k, m, p).transpose(3, 4)
    dC_heads = torch.bmm(flat(dy_heads), state.view(-1, p, n)).view(c * r * g, m, k, n)
    dC.copy_(dC_heads.sum(1).baddbmm_(dCB, B).view(dC.shape))
    starting = dC_heads.mul_(C[:, None]).sum(-1).view(per_sample)

    # log_a at r weighs every path that enters before r and leaves at r or later
    before = F.pad((ends * weights.state)[..., :-1], (1, 0)).cumsum(-1)
    after = starting.flip(-1).cumsum(-1).flip(-1)
    d_log_a = within + before + after + through[..., None]
    return d_log_a, d_weight + ends, d_own, diagonal
