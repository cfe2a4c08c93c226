"""A selective layer on one input, as data: a linear system that changes from sample to sample.

    h_t = decay_t * h_{t-1} - erase_t write_t (write_t . h_{t-1}) + gain_t x_t write_t
    y_t = read_t . (h_t + (own_t - gain_t) x_t write_t) + skip x_t

for each channel separately, with n states `h`. `erase` is used in an exact online regression only
(Longhorn's), `own` in a trapezoidal rule only (Mamba-3's), where the second part of a sample's gain
is added at the next step. For a given input, the map from x to y is linear, and it is exact.

Values that do not depend on the channel, or on the state, are stored once and expanded: a trace
takes little memory until `states` is called.

Axes: b batch, t time, c channels, n state of a channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.ops import diagonal_scan
from longstate.systems._numbers import in_float64
from longstate.systems._shapes import expect

_ALL = slice(None)


class Convolution(NamedTuple):
    """The short convolution before a recurrence: x = scale * (sum over j of taps_j v_{t-j} + bias).

    Attributes:
        v (b, t, c): its input.
        taps (c, k): weights, that of the current sample last.
        bias (c): added to each output before the activation.
        scale (b, t, c): factor of the activation (SiLU) for each output on this data.
    """

    v: Float[Tensor, "b t c"]
    taps: Float[Tensor, "c k"]
    bias: Float[Tensor, " c"]
    scale: Float[Tensor, "b t c"]


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded selective layer.

    Args:
        x (b, t, c): input of the recurrence.
        decay (b, t, c, n): factor of each state in a step, without `erase`.
        gain (b, t, c): weight of x in the state.
        write (b, t, c, n): direction in which x is written.
        read (b, t, c, n): direction in which the state is read.
        start (b, c, n): state before the first sample.
        skip (c): weight of x in y without the state.
        own (b, t, c): weight of x in its own y. `gain` when None.
        erase (b, t, c): share of the state along `write` that is removed: a step leaves
            (diag(decay) - erase write write') h. None: nothing.
        conv: the convolution before x, from the beginning of a sequence. None: no convolution.
        gate (b, t, c): factor of y after the recurrence, norms included. None: no gate.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    x: Float[Tensor, "b t c"]
    decay: Float[Tensor, "b t c n"]
    gain: Float[Tensor, "b t c"]
    write: Float[Tensor, "b t c n"]
    read: Float[Tensor, "b t c n"]
    start: Float[Tensor, "b c n"]
    skip: Float[Tensor, " c"]
    own: Float[Tensor, "b t c"] | None = None
    erase: Float[Tensor, "b t c"] | None = None
    conv: Convolution | None = None
    gate: Float[Tensor, "b t c"] | None = None

    def __post_init__(self):
        expect(self.decay.dim() == 4, f"decay must be (b, t, c, n); got {tuple(self.decay.shape)}")
        b, t, c, n = self.decay.shape
        shapes = {
            **dict.fromkeys(("x", "gain", "own", "erase", "gate"), (b, t, c)),
            **dict.fromkeys(("write", "read"), (b, t, c, n)),
            "start": (b, c, n),
            "skip": (c,),
        }
        for name, shape in shapes.items():
            v = getattr(self, name)
            expect(
                v is None or v.shape == shape,
                f"{name} must be {shape}; got {None if v is None else tuple(v.shape)}",
            )

    @property
    def length(self) -> int:
        return self.decay.shape[1]

    @property
    def d_state(self) -> int:
        """Numbers in the state of one sequence, for all channels together."""
        return self.start[0].numel()

    def double(self) -> "Trace":
        """A copy in float64 on the CPU, for analysis."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        conv = values.pop("conv")
        wide = {k: in_float64(v) for k, v in values.items() if v is not None}
        if conv is not None:
            conv = Convolution(*(in_float64(v) for v in conv))
        return replace(self, **wide, conv=conv)

    def part(
        self,
        rows: slice = _ALL,
        times: slice = _ALL,
        channels: slice | Sequence[int] = _ALL,
        start: Float[Tensor, "b c n"] | None = None,
    ) -> "Trace":
        """Some sequences, samples and channels. Slices give views.

        `conv` is left out if the first sample is, because its outputs need the samples before.

        Args:
            rows, times, channels: which ones.
            start (b, c, n): state before the first of `times`, for all rows and channels. None:
                `self.start`.
        """

        def cut(v: Any) -> Any:
            return None if v is None else v[rows, times][:, :, channels]

        sequences = ("x", "decay", "gain", "write", "read", "own", "erase", "gate")
        conv = None if times.start else self.conv
        if conv is not None:
            taps, bias = conv.taps[channels], conv.bias[channels]
            conv = Convolution(cut(conv.v), taps, bias, cut(conv.scale))
        start = self.start if start is None else start
        return replace(
            self,
            **{name: cut(getattr(self, name)) for name in sequences},
            start=start[rows][:, channels],
            skip=self.skip[channels],
            conv=conv,
        )

    def carry(self, t: int, h: Float[Tensor, "b c n *k"]) -> Float[Tensor, "b c n *k"]:
        """Apply step `t` to states h without input; the last axes may hold several states."""
        extra = (...,) + (None,) * (h.dim() - 3)
        kept = self.decay[:, t][extra] * h
        if self.erase is None:
            return kept
        write = self.write[:, t][extra]
        along = self.erase[:, t, :, None][extra] * (write * h).sum(2, keepdim=True)
        return kept - along * write

    def states(self) -> Float[Tensor, "b t c n"]:
        """h after each sample."""
        drive = (self.gain * self.x)[..., None] * self.write
        if self.erase is None:
            b, t, c, n = drive.shape
            a, start = self.decay.reshape(b, t, c * n), self.start.reshape(b, c * n)
            return diagonal_scan(drive.reshape(b, t, c * n), a, start)[0].reshape(b, t, c, n)
        h, states = self.start, []
        for t in range(self.length):
            h = self.carry(t, h) + drive[:, t]
            states.append(h)
        return torch.stack(states, dim=1)

    def outputs(self) -> Float[Tensor, "b t c"]:
        """y, before any gate."""
        y = (self.read * self.states()).sum(-1) + self.skip * self.x
        if self.own is None:
            return y
        return y + (self.own - self.gain) * self.x * (self.read * self.write).sum(-1)
