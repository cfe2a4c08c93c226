"""The channel of a series that holds time stamps.

Axes: b batch, t time, c channels without the stamps, m = c + 1.
"""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.errors import expect
from longstate.layers import intervals


class Clock(NamedTuple):
    """last (b): the latest stamp, float64. begun (b): 1 if there was one, else 0."""

    last: Float[Tensor, " b"]
    begun: Float[Tensor, " b"]


@dataclass(frozen=True)
class TimeChannel:
    """Which channel of a series holds the stamps.

    Args:
        channel: its number, from 0.
        interval: the usual time between two samples, in the unit of the stamps.

    Raises:
        InputError: a number is out of its range.
    """

    channel: int
    interval: float

    def __post_init__(self) -> None:
        expect(self.channel >= 0, f"channel must be at least 0; got {self.channel}")
        good = 0 < self.interval < math.inf
        expect(good, f"interval must be a finite number above 0; got {self.interval}")

    def init_state(self, like: Tensor) -> Clock:
        """The clock before the first sample. `like` (b): a tensor on the device."""
        zero = torch.zeros_like(like, dtype=torch.float64)
        return Clock(zero, zero.clone())

    def split(self, x: Float[Tensor, "b t m"]) -> tuple[Tensor, Tensor]:
        """The other channels (b, t, c), and the stamps (b, t), float64."""
        k = self.channel
        return torch.cat([x[..., :k], x[..., k + 1 :]], -1), x[..., k].double()

    def between(
        self, stamps: Float[Tensor, "b t"], clock: Clock
    ) -> tuple[Float[Tensor, "b t"], Clock]:
        """The time since the previous stamp, in usual intervals, and the clock after the last one.

        It is 1 at the first stamp of a series, and 0 where the stamp is NaN.

        Raises:
            ValueError: stamps decrease, or are infinite.
        """
        known = ~stamps.isnan()
        first = known & (known.cumsum(1) == 1) & (clock.begun[:, None] == 0)
        at = first.int().argmax(1, keepdim=True)
        before = torch.where(first.any(1), stamps.gather(1, at)[:, 0], clock.last)
        dt = intervals(stamps, unit=self.interval, mask=known, before=before)
        place = torch.where(known, torch.arange(stamps.shape[1], device=stamps.device), -1)
        latest = place.max(1).values
        last = stamps.gather(1, latest.clamp_min(0)[:, None])[:, 0]
        begun = known.any(1)
        clock = Clock(
            torch.where(begun, last, clock.last), torch.where(begun, 1.0, clock.begun).double()
        )
        return torch.where(first, 1.0, dt), clock
