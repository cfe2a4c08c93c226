"""A model of whole series: a class or a number, known better with every sample.

    u(t)      = W [x, observed]              x scaled by mean and deviation of the training part
    h         = stack(u)
    pooled(t) = [mean of h(s), max of h(s)]  over the observed samples s <= t
    y(t)      = head(pooled(t))

A missing value is 0, which is its channel's mean, with a flag that says that it was not observed:
any other number could not be told from a measured one. A sample without any observed value is
skipped: the state does not change, and the time to the next sample grows by one step where the
layers take a time step.

Long series are read by a filter bank first, and h and its pooling go from frame to frame:

    u(k)      = W bank(x, observed)      after frame k

If one channel holds time stamps, the layers step over the time since the last sample that was not
skipped, in usual intervals; a filter bank does so instead of them, and its frames are of time.

The model is causal and a module under the contract `y, state = model(x, state)`, so that
`longstate.Stream` can push samples as they come.

Axes: b batch, t time, c channels, d channels of the stack, p = 2 d pooled, k outputs.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from longstate.errors import InputError
from longstate.layers._base import Layer, State
from longstate.models._dropout import Dropout
from longstate.models._filter_bank import OSCILLATORS, FilterBank, time_between
from longstate.models._pooled import Pooled
from longstate.models._scale import Scale
from longstate.models._stack import Stack
from longstate.models._time_channel import TimeChannel


class SeriesState(NamedTuple):
    """The state after some samples of b series."""

    stack: list[State]
    total: Float[Tensor, "b d"]
    largest: Float[Tensor, "b d"]
    seen: Float[Tensor, " b"]
    skipped: Float[Tensor, " b"]
    bank: Any = ()
    clock: Any = ()


class SeriesModel(nn.Module):
    """The network. NaN in its input is a missing value.

    Args:
        channels: c, without that of the stamps.
        outputs: k; classes, or 1 number.
        mixers: the layers of the stack.
        dropout: in each block and before the head, in training.
        stride: samples of one frame. Above 1 the stack reads the frames of a `FilterBank`.
        time: the channel with the stamps, beside the c others; None for samples at one interval.
    """

    def __init__(
        self,
        channels: int,
        outputs: int,
        mixers: Sequence[Layer],
        dropout: float = 0.1,
        stride: int = 1,
        time: TimeChannel | None = None,
    ):
        super().__init__()
        self.time = time
        self.scale = Scale(channels)
        self.backbone = Stack(mixers, dropout=dropout)
        d = self.backbone.d_model
        self.bank = FilterBank(channels, channels, stride) if stride > 1 else None
        self.encode = nn.Linear(2 * channels if self.bank is None else OSCILLATORS, d)
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(2 * d, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    @property
    def stride(self) -> int:
        """Samples of one step of the stack."""
        return 1 if self.bank is None else self.bank.stride

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
        if self.time is not None:
            raise InputError(
                f"rate={rate!r} cannot be used for series with stamps, which tell the interval; "
                "leave it out"
            )
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
        zero = self.encode.weight.new_zeros(batch, self.backbone.d_model, dtype=self._wide)
        none = zero[:, 0]
        stack = self.backbone.init_state(batch)
        bank = () if self.bank is None else self.bank.init_state(batch)
        clock = () if self.time is None else self.time.init_state(none)
        return SeriesState(stack, zero, zero.clone(), none, none.clone(), bank, clock)

    def forward(
        self, x: Float[Tensor, "b t c"], state: SeriesState | None = None, rate: float = 1.0
    ) -> tuple[Float[Tensor, "b t k"], SeriesState]:
        """The outputs after each sample.

        Args:
            x (b, t, c): the series in their own units; NaN where missing, also after their end.
                With the channel of the stamps, which are NaN after the end only.
            state: what an earlier call returned.
            rate: the sampling interval as a multiple of that of the training cases; see `Layer`.
        """
        pooled, state = self.pooled(x, state, rate)
        return self.outputs(self.dropout(pooled.each())), state

    def outputs(self, pooled: Float[Tensor, "... p"]) -> Float[Tensor, "... k"]:
        """What the head makes of them."""
        return self.head(pooled.to(self.head.weight.dtype))

    @property
    def _wide(self) -> torch.dtype:
        """Of sums over time: bfloat16 cannot count beyond 256."""
        return torch.promote_types(self.encode.weight.dtype, torch.float32)

    def pooled(
        self,
        x: Float[Tensor, "b t c"],
        state: SeriesState | None = None,
        rate: float = 1.0,
        lengths: Int[Tensor, " b"] | None = None,
    ) -> tuple["Pooled", SeriesState]:
        """What the head reads after each sample.

        Args:
            x, state, rate: see `forward`.
            lengths (b): samples of each series. The result is as without them up to there, and
                faster for series of unequal lengths; what comes later is of no use, and the state
                neither.
        """
        state = SeriesState(*(self.init_state(len(x)) if state is None else state))
        dt, clock = None, state.clock
        if self.time is not None:
            x, stamps = self.time.split(x)
            dt, clock = self.time.between(stamps, clock)
        seen = (~torch.isnan(x)).any(-1)
        if lengths is not None:
            after = torch.arange(x.shape[1]) >= lengths[:, None]
            seen, dt = seen | after, None if dt is None else torch.where(after, 1.0, dt)
        state = state._replace(clock=clock)
        u = self.scaled(x)
        ready, bank = None, state.bank
        if self.bank is not None:
            frames, bank = self.bank(u, state.bank, seen, rate, dt)
            u, seen, ready = frames.y, frames.kept, frames.ready
        start = (state.total, state.largest, state.seen)
        u = self.encode(u.to(self.encode.weight.dtype))
        if u.shape[1] == 0:
            return Pooled(u.to(self._wide), seen, start, ready), state._replace(bank=bank)
        h, stack, skipped = self._run(u, seen, ready, state, rate, dt)
        pooled = Pooled(h.to(self._wide), seen, start, ready)
        return pooled, SeriesState(stack, *pooled.end(), skipped, bank, clock)

    def scaled(self, x: Float[Tensor, "b t c"]) -> Float[Tensor, "b t 2*c"]:
        """Scaled values, 0 where missing, and whether they are observed."""
        observed = ~torch.isnan(x)
        z = self.scale(x).masked_fill(~observed, 0)
        return torch.cat([z, observed.to(z.dtype)], -1).to(self._wide)

    def _run(
        self,
        u: Tensor,
        seen: Tensor,
        ready: Tensor | None,
        state: SeriesState,
        rate: float,
        dt: Tensor | None,
    ) -> tuple[Tensor, list[State], Tensor]:
        """The stack over samples or frames: h (b, f, d), its state, and what was skipped last.

        Frames last as long at every rate, and between all stamps; samples do not.
        """
        if self.bank is not None:
            rate, dt = 1.0, None
        usual = dt is None or bool((dt.to(self._wide) == 1).all())
        if usual and bool(seen.all()) and not bool(state.skipped.any()):
            return *self.backbone(u, state.stack, rate=rate), state.skipped
        gap, skipped = time_between(seen, state.skipped, dt)
        if ready is not None:
            skipped = skipped - (u.shape[1] - ready[:, -1])  # other rows have more frames
        times = gap if self.takes_time or dt is not None else None
        return *self.backbone(u, state.stack, mask=seen, dt=times, rate=rate), skipped
