"""Rows at irregular times: how much time is between them, in usual intervals.

The times of a window and its horizon are one feature, in the place of the calendar: the time from
the last row of the window, below 0 in the window and above 0 in the horizon.

Axes: b batch, r rows of a window and its horizon.
"""

from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from longstate.models._calendar import Calendar
from longstate.models._filter_bank import time_between

Times = TypeVar("Times", Tensor, np.ndarray)


def from_last_row(times: Times, window: int, calendar: Calendar) -> Times:
    """The time from the last row of the window, in usual intervals (b, r, 1).

    Args:
        times (b, r, 1): since any row, in seconds or in the unit of the data.
        window: its rows.
        calendar: of the data.
    """
    return (times - times[:, window - 1 : window]) / float(calendar.usual or 1)


def steps_between(
    times: Float[Tensor, "b r"], mask: Bool[Tensor, "b r"] | None
) -> Float[Tensor, "b r"]:
    """`dt` of the layers: the time since the last row that is not masked, 1 at the first row."""
    dt = times.diff(dim=1, prepend=times[:, :1] - 1).clamp_min(0)
    return dt if mask is None else time_between(mask, torch.zeros_like(dt[:, 0]), dt)[0]


def as_feature(times: Tensor) -> Tensor:
    """Times of any size as an input of the layers: their logarithm, with the sign."""
    return times.sign() * times.abs().log1p()
