"""What a selective layer did with one input: a linear system that changes from sample to sample.

    h_t = decay_t * h_{t-1} - erase_t write_t (write_t . h_{t-1}) + gain_t x_t write_t
    y_t = read_t . (h_t + (own_t - gain_t) x_t write_t) + skip x_t

for each channel by itself, `h` being its n states. `erase` is there in an exact online regression
only (Longhorn's), `own` in a trapezoidal rule only (Mamba-3's), where a sample is given the second
part of its gain when the next one comes. Given the input, the map from x to y is linear, and exact.

Everything that does not depend on the channel, or on the state, is stored once and expanded: a
trace takes little memory until `states` is called.

Axes: b batch, t time, c channels, n state of a channel.
"""

from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.ops import diagonal_scan
from longstate.systems._shapes import expect


class Convolution(NamedTuple):
    """The short convolution before a recurrence: x = scale * (sum over j of taps_j v_{t-j} + bias).

    Attributes:
        v (b, t, c): its input.
        taps (c, k): weights, that of the present sample last.
        bias (c): added to each output before the activation.
        scale (b, t, c): what the activation, SiLU, made of each output: a factor, given the data.
    """

    v: Float[Tensor, "b t c"]
    taps: Float[Tensor, "c k"]
    bias: Float[Tensor, " c"]
    scale: Float[Tensor, "b t c"]


@dataclass(frozen=True, eq=False)
class Trace:
    """A recorded selective layer.

    Args:
        x (b, t, c): what enters the recurrence.
        decay (b, t, c, n): how much of each state is left after a step, but for `erase`.
        gain (b, t, c): weight of x in the state.
        write (b, t, c, n): direction in which x is written.
        read (b, t, c, n): direction in which the state is read.
        start (b, c, n): state before the first sample.
        skip (c): weight of x in y beside the state.
        own (b, t, c): weight of x in its own y. `gain` when None.
        erase (b, t, c): share of the state along `write` that is removed: a step leaves
            (diag(decay) - erase write write') h. None: nothing.
        conv: what made x, from a sequence's beginning. None: nothing did.
        gate (b, t, c): factor of y on its way out, norms included. None: no gate.

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
        """Numbers in the state of one sequence, all channels together."""
        return self.start[0].numel()

    def double(self) -> "Trace":
        """The same in float64 on the CPU, which is where it is analysed."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        conv = values.pop("conv")
        wide = {k: v.detach().double().cpu() for k, v in values.items() if v is not None}
        if conv is not None:
            conv = Convolution(*(v.detach().double().cpu() for v in conv))
        return replace(self, **wide, conv=conv)

    def carry(self, t: int, h: Float[Tensor, "b c n *k"]) -> Float[Tensor, "b c n *k"]:
        """What step `t` leaves of states h, several of them side by side in the last axes."""
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
