"""Random warps of time: a network sees every training series at another place and other speeds.

    x'(t)    = x(t + warp * n * d(t / n))
    d(share) = a + b (share - 1/2) + sum over k = 1, 2, 3 of c_k sin(2 pi k share + f_k) / (2 pi k)

n is the length; a, b and c_k are uniform in [-1, 1], f_k in a full turn. So the series is shifted
by at most `warp` of its length, and its local speed differs from 1 by about `warp`. Values between
two samples are on the line between them; before the first and after the last sample they stay.

Source: window warping of Le Guennec, Malinowski and Tavenard, "Data augmentation for time series
classification using convolutional neural networks" (2016), here smooth and over the whole series.
"""

import math
from numbers import Real

import torch
from torch import Tensor

from longstate.errors import InputError
from longstate.train._cases import Cases

WAVES = 3


def check_warp(warp: float, cases: Cases) -> None:
    """Raises:
    InputError: the series cannot be warped by this share.
    """
    if not isinstance(warp, Real) or not 0 <= warp < 1:
        raise InputError(
            f"warp must be a share of the length, at least 0 and below 1; got {warp!r}"
        )
    if warp > 0 and cases.time is not None:
        raise InputError(
            f"warp={warp:g} cannot be used for series with stamps, whose times are given; leave it "
            "out"
        )


def warped(cases: Cases, warp: float) -> Cases:
    """Every series with a warp of its own, from torch's random generator; lengths stay the same.

    Args:
        cases: without time stamps. A value is missing if one of the two that it lies between is.
        warp: see the top of this file.
    """
    n, t, c = cases.values.shape
    last = cases.lengths[:, None] - 1.0
    share = torch.arange(t) / (last + 1)
    at = torch.arange(t) + warp * (last + 1) * _displacement(share)
    at = torch.minimum(at.clamp_min(0), last)
    before = at.floor()
    part = (at - before)[..., None]
    low = before.long()
    high = torch.minimum(low + 1, last.long())
    left, right = (cases.values.gather(1, i[..., None].expand(n, t, c)) for i in (low, high))
    values = torch.where(part == 0, left, left + part * (right - left))
    ended = torch.arange(t) >= cases.lengths[:, None]
    return cases._replace(values=values.masked_fill(ended[..., None], torch.nan))


def _displacement(share: Tensor) -> Tensor:
    """d / (n warp) at these shares (n, t) of the series."""
    a, b, *c = (2 * torch.rand(2 + WAVES, len(share), 1) - 1).unbind()
    phases = 2 * math.pi * torch.rand(WAVES, len(share), 1)
    found = a + b * (share - 0.5)
    for k in range(1, WAVES + 1):
        turn = 2 * math.pi * k
        found = found + c[k - 1] * torch.sin(turn * share + phases[k - 1]) / turn
    return found
