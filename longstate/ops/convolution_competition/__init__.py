"""Fixed convolutions in groups: at each time, which filter of a group answers most, which least.

    x(t)    = sum of the chosen channels; 0 outside the series
    y_k(t)  = 3 (sum of x at the three places of filter k) - (sum of x at all nine places)
    most_k  = mean over t of [k answers most] y_k(t)
    least_k = mean over t of [k answers least]

The filters are those of `convolution_pooling`, padded: y has one value for each sample. The second
sum is the same for all filters of a group, so the first one, in the precision of x and added from
left to right, decides. Of filters that are equal in it the first of the group counts.

Competition is that of Hydra (Dempster, Schmidt, Webb, "Hydra: competing convolutional kernels for
fast and accurate time series classification", Data Mining and Knowledge Discovery 2023,
arXiv:2203.13652). Differs from the paper: the filters are fixed and not random; means and not sums,
so that series may be of unequal length. There are no gradients.

Axes: n series, c channels, t time, g groups, k filters of a group.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from longstate.ops._choice import choose
from longstate.ops.convolution_pooling import KINDS, check_series


class Groups(NamedTuple):
    """Groups of filters.

    filters (g, k): their numbers in `all_taps`. dilation (g). channels (g, c): which are added.
    """

    filters: Int[Tensor, "g k"]
    dilation: Int[Tensor, " g"]
    channels: Bool[Tensor, "g c"]


def convolution_competition(
    x: Float[Tensor, "n c t"],
    lengths: Int[Tensor, " n"],
    groups: Groups,
    *,
    impl: str = "auto",
) -> Float[Tensor, "n g k 2"]:
    """most_k and least_k of every series, for each group and each of its filters.

    Args:
        x (n, c, t): float32; whatever follows the length of a series is ignored.
        lengths (n): samples of each series, from 1 to t.
        groups: c channels each.
        impl: "auto", "reference" or "cpu".

    Raises:
        ValueError: shapes, lengths, numbers of filters, dilations or `impl` do not fit.
    """
    check_series(x, lengths, groups.channels)
    filters, dilation = groups.filters, groups.dilation
    if not bool(((filters >= 0) & (filters < KINDS)).all()):
        raise ValueError(f"groups.filters must be numbers from 0 to {KINDS - 1}; got {filters}")
    if not bool((dilation >= 1).all()):
        raise ValueError(f"groups.dilation must be at least 1; got {dilation}")
    # a longer one reads 0 too, everywhere but at its middle
    groups = groups._replace(dilation=torch.clamp(dilation, max=x.shape[2]))
    if choose(impl, x) == "cpu":
        from longstate.ops.convolution_competition import cpu

        return cpu.forward(x, lengths, groups)
    from longstate.ops.convolution_competition import reference

    return reference.forward(x, lengths, groups)
