"""A model of whole series: a class or a number, known better with every sample.

    u(t)      = W [x, observed]              x scaled by mean and deviation of the training part
    h         = stack(u)
    pooled(t) = [mean of h(s), max of h(s)]  over the observed samples s <= t
    y(t)      = head(pooled(t))

A missing value is 0, which is its channel's mean, with a flag that says that it was not observed:
any other number could not be told from a measured one. A sample without any observed value is
skipped: the state does not change, and the time to the next sample grows by one step where the
layers take a time step.

The model is causal and a module under the contract `y, state = model(x, state)`, so that
`longstate.Stream` can push samples as they come.

Axes: b batch, t time, c channels, d channels of the stack, p = 2 d pooled, k outputs.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from longstate.errors import InputError
from longstate.layers._base import Layer, State
from longstate.models._scale import Scale
from longstate.models._stack import Stack


class SeriesState(NamedTuple):
    """The state after some samples of b series."""

    stack: list[State]
    total: Float[Tensor, "b d"]
    largest: Float[Tensor, "b d"]
    seen: Float[Tensor, " b"]
    skipped: Float[Tensor, " b"]


class SeriesModel(nn.Module):
    """The network. NaN in its input is a missing value.

    Args:
        channels: c.
        outputs: k; classes, or 1 number.
        mixers: the layers of the stack.
        dropout: in each block and before the head, in training.
    """

    def __init__(self, channels: int, outputs: int, mixers: Sequence[Layer], dropout: float = 0.1):
        super().__init__()
        self.scale = Scale(channels)
        self.backbone = Stack(mixers, dropout=dropout)
        d = self.backbone.d_model
        self.encode = nn.Linear(2 * channels, d)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * d, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @cached_property
    def takes_time(self) -> bool:
        """Whether all layers take the time between samples."""
        try:
            self._try(dt=self.encode.weight.new_ones(1, 2))
        except ValueError:
            return False
        return True

    def check_rate(self, rate: float) -> None:
        """Raise `InputError` if a layer cannot run at this rate, or it is not above 0."""
        if rate == 1:
            return
        try:
            self._try(rate=rate)
        except ValueError as e:
            raise InputError(f"rate={rate!r} cannot be used: {e}") from None

    @torch.no_grad()
    def _try(self, **options: Any) -> None:
        """Call every layer with options."""
        u = self.encode.weight.new_zeros(1, 2, self.backbone.d_model)
        for block in self.backbone.each_block():
            block.mixer(u, **options)

    def init_state(self, batch: int) -> SeriesState:
        zero = self.encode.weight.new_zeros(batch, self.backbone.d_model)
        none = zero[:, 0]
        return SeriesState(self.backbone.init_state(batch), zero, zero.clone(), none, none.clone())

    def forward(
        self, x: Float[Tensor, "b t c"], state: SeriesState | None = None, rate: float = 1.0
    ) -> tuple[Float[Tensor, "b t k"], SeriesState]:
        """The outputs after each sample.

        Args:
            x (b, t, c): the series in their own units; NaN where missing, also after their end.
            state: what an earlier call returned.
            rate: the sampling interval as a multiple of that of the training cases; see `Layer`.
        """
        pooled, state = self.pooled(x, state, rate)
        return self.head(self.dropout(pooled)), state

    def pooled(
        self, x: Float[Tensor, "b t c"], state: SeriesState | None = None, rate: float = 1.0
    ) -> tuple[Float[Tensor, "b t p"], SeriesState]:
        """What the head reads after each sample."""
        observed = ~torch.isnan(x)
        seen = observed.any(-1)
        state = SeriesState(*(self.init_state(len(x)) if state is None else state))
        z = self.scale(x).masked_fill(~observed, 0)
        u = self.encode(torch.cat([z, observed.to(z.dtype)], -1).to(self.encode.weight.dtype))
        if bool(seen.all()) and not bool(state.skipped.any()):
            h, stack = self.backbone(u, state.stack, rate=rate)
            skipped = state.skipped
        else:
            dt, skipped = _time_between(seen, state.skipped)
            times = dt if self.takes_time else None
            h, stack = self.backbone(u, state.stack, mask=seen, dt=times, rate=rate)
        keep = seen[..., None].to(h.dtype)
        total = state.total[:, None] + (h * keep).cumsum(1)
        count = state.seen[:, None] + keep[..., 0].cumsum(1)
        least = torch.finfo(h.dtype).min
        first = torch.where(state.seen[:, None, None] > 0, state.largest[:, None], least)
        ahead = torch.cat([first, h.masked_fill(~seen[..., None], least)], 1)
        largest = ahead.cummax(1).values[:, 1:].masked_fill(count[..., None] == 0, 0)
        pooled = torch.cat([total / count.clamp_min(1)[..., None], largest], -1)
        return pooled, SeriesState(stack, total[:, -1], largest[:, -1], count[:, -1], skipped)


def _time_between(
    seen: Tensor, skipped: Float[Tensor, " b"]
) -> tuple[Float[Tensor, "b t"], Float[Tensor, " b"]]:
    """Steps from the last seen sample to each one, and those skipped at the end."""
    t = seen.shape[1]
    place = torch.arange(1, t + 1, dtype=skipped.dtype).expand(seen.shape)
    last = torch.where(seen, place, -skipped[:, None]).cummax(1).values
    before = torch.cat([-skipped[:, None], last[:, :-1]], 1)
    return place - before, t - last[:, -1]
