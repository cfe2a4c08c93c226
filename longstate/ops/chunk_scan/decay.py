"""Decays between two samples of a chunk: products and sums, never quotients or differences.

The difference of two long sums of logarithms is inaccurate for samples that are close together, and
-inf (the state is forgotten) minus -inf is NaN. The decay between two samples s < l in different
blocks of `BLOCK` samples is a product of three factors, none of them above 1:

    decay from s to l = (s to the end of its block) (the blocks between) (start of its block to l)

so only the blocks on the diagonal are filled pair by pair.

Axes: k time within a chunk, i j blocks of a chunk, e f samples of a block; ... anything before.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

BLOCK = 8


def segments(alpha: Tensor) -> Tensor:
    """alpha_{j+1} * ... * alpha_i for i >= j, 0 for i < j: (..., k) -> (..., k, k)."""
    k = alpha.shape[-1]
    out = alpha.new_zeros(*alpha.shape, k)
    out.diagonal(0, -2, -1).fill_(1)
    for i in range(1, k):
        torch.mul(out[..., i - 1, :i], alpha[..., i, None], out=out[..., i, :i])
    return out


def until_end(a: Tensor) -> Tensor:
    """Sum of a over the entries after each one."""
    return F.pad(a[..., 1:], (0, 1)).flip(-1).cumsum(-1).flip(-1)


class Decays(NamedTuple):
    """The factors of `matrix`.

    Attributes:
        from_start (..., k): decay from before the chunk to each sample.
        to_end (..., k): decay from each sample to the last of the chunk.
        total (...): decay over the whole chunk.
        near (..., i, e, f): decay from f to a later e in the same block; 0 if f is not before e.
        far (..., i, k): decay from each sample to the block before i; 0 if it lies in i or later.
        into (..., k): decay from the block before to each sample.
    """

    from_start: Tensor
    to_end: Tensor
    total: Tensor
    near: Tensor
    far: Tensor
    into: Tensor

    def at(self, *index: int | slice) -> "Decays":
        return Decays(*(v[index] for v in self))


def decays(log_a: Tensor) -> Decays:
    """From log decays (..., k), k a multiple of `BLOCK`."""
    blocks = log_a.view(*log_a.shape[:-1], -1, BLOCK)
    within = segments(blocks.exp())
    between = F.pad(segments(blocks.sum(-1).exp())[..., :-1, :], (0, 0, 1, 0))  # 0 if i <= j
    far = between[..., None] * within[..., None, :, -1, :]
    from_start = log_a.cumsum(-1).exp()
    return Decays(
        from_start,
        until_end(log_a).exp(),
        from_start[..., -1],
        within.tril(-1),
        far.flatten(-2),
        blocks.cumsum(-1).exp().flatten(-2),
    )


def matrix(d: Decays) -> Tensor:
    """Decay from each sample to each later one, 0 elsewhere: (..., k, k)."""
    *before, k = d.into.shape
    blocks = (*before, k // BLOCK, BLOCK)
    L = d.into.view(*blocks, 1) * d.far[..., None, :]  # (..., i, e, k)
    L.view(*blocks, k // BLOCK, BLOCK).diagonal(0, -4, -2).copy_(d.near.movedim(-3, -1))
    return L.view(*before, k, k)


def paths_through(W: Tensor) -> Tensor:
    """Sum over i >= r > j of W_ij, for every r: (..., k, k) -> (..., k). W is 0 unless i > j."""
    begun = W.cumsum(-1).tril_(-1).sum(-2)  # at j: paths from j or before to what is behind j
    return F.pad(begun[..., :-1], (1, 0))
