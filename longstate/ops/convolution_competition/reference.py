"""The equations, one series and one group at a time."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from longstate.ops.convolution_competition import Groups
from longstate.ops.convolution_pooling import TAPS, all_places


def forward(
    x: Float[Tensor, "n c t"], lengths: Int[Tensor, " n"], groups: Groups
) -> Float[Tensor, "n g k 2"]:
    found = x.new_zeros(len(x), *groups.filters.shape, 2)
    places = all_places().to(x.device)[groups.filters]
    each = list(zip(places, groups.dilation.tolist(), groups.channels, strict=True))
    for i, length in enumerate(lengths.tolist()):
        for g, (own, dilation, channels) in enumerate(each):
            found[i, g] = _compete(x[i, channels, :length], own, dilation)
    return found


def _compete(
    x: Float[Tensor, "c t"], places: Int[Tensor, "k 3"], dilation: int
) -> Float[Tensor, "k 2"]:
    t, reach = x.shape[1], TAPS // 2 * dilation
    wide = torch.nn.functional.pad(sum(x, x.new_zeros(t)), (reach, reach))
    shifted = wide.unfold(0, t, dilation)  # (9, t)
    a, b, c = shifted[places].unbind(1)  # each (k, t)
    threes = a + b + c
    largest, winner = threes.max(0)  # of equal ones, the first
    y = 3 * largest - shifted.sum(0)
    most = x.new_zeros(len(places)).index_add(0, winner, y)
    least = threes.min(0).indices.bincount(minlength=len(places))
    return torch.stack([most, least.to(x.dtype)], dim=1) / t
