"""Responses of many fixed convolutions, each pooled over time into a few shares.

    y(t)  = sum over chosen channels c and j = 0..8 of taps[j] x_c(t + (j - 4) dilation)
    share = mean over t of [y(t) > bias]

Taps are 2 at three places and -1 at the six others, so that they sum to 0: there are 84 such
filters. A padded filter has one value for each sample, and reads 0 outside the series. Another one
has only values for which it need not look outside; if the series is too short for that, it is
padded.

The filters are those of MiniRocket (Dempster, Schmidt, Webb, "MiniRocket: A Very Fast (Almost)
Deterministic Transform for Time Series Classification", KDD 2021, arXiv:2012.08791). Differs from
the paper: series of unequal length. There are no gradients.

Axes: n series, c channels, t time, f filters, q biases.
"""

from itertools import combinations
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from longstate.ops._choice import choose

TAPS, KINDS = 9, 84


def all_places() -> Int[Tensor, "84 3"]:
    """Where the taps of each of the 84 filters are 2."""
    return torch.tensor(list(combinations(range(TAPS), 3)))


def all_taps() -> Float[Tensor, "84 9"]:
    """The taps of the 84 filters."""
    return torch.full((KINDS, TAPS), -1.0).scatter(1, all_places(), 2.0)


class Filters(NamedTuple):
    """Fixed filters with the biases that their responses are compared with.

    taps (f, 9), dilation (f), padded (f), channels (f, c): which of them are added.
    bias (f, q).
    """

    taps: Float[Tensor, "f 9"]
    dilation: Int[Tensor, " f"]
    padded: Bool[Tensor, " f"]
    channels: Bool[Tensor, "f c"]
    bias: Float[Tensor, "f q"]


def convolution_pooling(
    x: Float[Tensor, "n c t"],
    lengths: Int[Tensor, " n"],
    filters: Filters,
    *,
    impl: str = "auto",
) -> Float[Tensor, "n f q"]:
    """The shares of every series, for each filter and bias.

    Args:
        x (n, c, t): float32; whatever follows the length of a series is ignored.
        lengths (n): samples of each series, from 1 to t.
        filters: c channels each.
        impl: "auto", "reference" or "cpu".

    Raises:
        ValueError: shapes, lengths or `impl` do not fit.
    """
    check_series(x, lengths, filters.channels)
    if choose(impl, x) == "cpu":
        from longstate.ops.convolution_pooling import cpu

        return cpu.forward(x, lengths, filters)
    from longstate.ops.convolution_pooling import reference

    return reference.forward(x, lengths, filters)


def check_series(x: Tensor, lengths: Tensor, channels: Tensor) -> None:
    """Refuse series that do not fit the chosen channels (..., c) of filters.

    Raises:
        ValueError: names the shape or the lengths.
    """
    n, c, t = x.shape
    if channels.shape[1] != c:
        raise ValueError(f"x has {c} channels; the filters have {channels.shape[1]}")
    if lengths.shape != (n,) or (n and not 1 <= int(lengths.min()) <= int(lengths.max()) <= t):
        raise ValueError(f"lengths must be {n} whole numbers from 1 to {t}; got {lengths}")


def response(
    x: Float[Tensor, "c t"], taps: Float[Tensor, " 9"], dilation: int, padded: bool
) -> Float[Tensor, " s"]:
    """y of one filter, with all channels added; s values."""
    total, t = x.sum(0), x.shape[1]
    reach = TAPS // 2 * dilation
    wide = torch.nn.functional.pad(total, (reach, reach))
    y = sum(tap * wide[j * dilation : j * dilation + t] for j, tap in enumerate(taps))
    assert isinstance(y, Tensor)
    return y if padded or t <= 2 * reach else y[reach : t - reach]
