"""A bank of damped oscillators that reads long series, and is read once in a frame.

    h'(t) = A h(t) + B u(t)                           A diagonal, complex, Re A < 0
    e_k   = log(mean of |h(s)|^2 over frame k)        of the observed samples s
    y_k   = (e_k - mean) / std

It is a diagonal state space model under the zero-order hold, whose energies are read in the place
of its states: the input of the model behind it is shorter by the samples of a frame. Frequencies,
decays and B are trained; at first the frequencies are spread evenly in their logarithm and B is the
sum of the channels with random signs, so that y begins as a spectrogram of the series with
logarithmic axes.

Frames, frequencies and decays count time, in sampling intervals of the training. At another `rate`
a frame has another number of samples and lasts as long. Oscillators above half of the sampling
frequency see aliases there: they are muted, which means that their y is 0, the mean. In training
those above a random frequency are muted in half of the series, so that this is no surprise.

Axes: b batch, t time, c channels of the input, n oscillators, f frames.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from longstate.errors import InputError
from longstate.layers._channelwise import complex_parameter
from longstate.models._scale import AtLeastFloat32
from longstate.ops import diagonal_scan, zoh_scan
from longstate.ops._drive import drive
from longstate.systems import ZeroOrderHold

OSCILLATORS = 64
_LONG, _FRAMES = 2048, 32  # samples from which on series have frames; the least of frames
_FLOOR = 1e-7  # of an energy; the series have a variance near 1
_DAMPING = 0.05  # decay over frequency, of fast oscillators
_MOST_FRAMES, _SPARSE = 4096, 4  # frames of a call with stamps, at most; as a multiple of the usual
_MUTED, _WIDEST = 0.5, 2.5  # share of the series in training; highest frequency over the lowest cut


def stride_of(lengths: Int[Tensor, " n"]) -> int:
    """Samples of a frame for series of these lengths: 1, which is no frames; or a power of two for
    long series, with 32 to 63 frames at the median."""
    median = int(lengths.median())
    return 1 if median < _LONG else 2 ** int(math.log2(median / _FRAMES))


class BankState(NamedTuple):
    """h (b, n). energy (b, n): sum over the frame that has begun, and its number of samples (b).
    clock (b): time since this frame began. skipped (b): samples since the last seen one."""

    h: Tensor
    energy: Tensor
    samples: Tensor
    clock: Tensor
    skipped: Tensor


class Frames(NamedTuple):
    """y (b, f, n) of every frame that ended. kept (b, f): whether it has an observed sample.
    ready (b, t): frames that have ended after each sample."""

    y: Float[Tensor, "b f n"]
    kept: Bool[Tensor, "b f"]
    ready: Int[Tensor, "b t"]


class FilterBank(AtLeastFloat32):
    """Energies of frames.

    Args:
        channels: of the series.
        flags: further channels, which the oscillators do not read at first; c is both.
        stride: length of a frame, in sampling intervals of the training.
    """

    mean: Tensor
    std: Tensor
    dynamics = ("log_decay", "frequency", "B")

    def __init__(self, channels: int, flags: int, stride: int):
        super().__init__()
        self.stride = stride
        slowest, n = math.pi / (2 * stride), OSCILLATORS
        frequency = slowest * (0.9 * math.pi / slowest) ** torch.linspace(0, 1, n)
        decay = _DAMPING * frequency + 1 / stride
        signs = torch.randint(0, 2, (n, channels)) * 2.0 - 1
        signs = torch.cat([signs, torch.zeros(n, flags)], 1)
        B = decay[:, None] * signs / math.sqrt(channels)
        self.frequency, self.log_decay = nn.Parameter(frequency), nn.Parameter(decay.log())
        self.B = complex_parameter(B.to(torch.complex64))
        self.register_buffer("mean", torch.zeros(n))
        self.register_buffer("std", torch.ones(n))

    def init_state(self, batch: int) -> BankState:
        zero = self.frequency.new_zeros(batch, len(self.frequency))
        none = zero[:, 0].clone()
        return BankState(torch.complex(zero, zero), zero, none, none.double(), none.clone())

    def forward(
        self,
        u: Float[Tensor, "b t c"],
        state: BankState,
        seen: Bool[Tensor, "b t"],
        rate: float = 1.0,
        dt: Float[Tensor, "b t"] | None = None,
    ) -> tuple[Frames, BankState]:
        """The frames that end in these samples.

        Args:
            u (b, t, c): 0 where a sample is not seen.
            state: before the first sample.
            seen (b, t): samples that are read. At the others the state stays; the next one is held
                since the last seen one.
            rate: the interval as a multiple of that of the training.
            dt (b, t): time since the previous sample, seen or not, in such intervals; None is 1
                everywhere.

        Raises:
            InputError: a gap is so long that frames without samples would fill the memory.
        """
        log_energy, kept, ready, state = self._energies(u, state, seen, rate, dt)
        y = (log_energy - self.mean) / self.std
        heard = self.frequency * rate <= math.pi
        if self.training:
            cut = 1 + (_WIDEST - 1) * torch.rand(len(u), 1, 1)
            cut = torch.where(torch.rand(len(u), 1, 1) < _MUTED, cut, 1)
            heard = heard & (self.frequency * cut <= math.pi)
        return Frames(torch.where(heard, y, 0), kept, ready), state

    @torch.no_grad()
    def fit(
        self,
        u: Float[Tensor, "b t c"],
        lengths: Int[Tensor, " b"],
        dt: Float[Tensor, "b t"] | None = None,
    ) -> None:
        """Set mean and deviation of the energies from some series, and what follows their lengths
        is ignored."""
        seen = torch.ones(u.shape[:2], dtype=torch.bool)
        found, kept, ready, _ = self._energies(u, self.init_state(len(u)), seen, 1.0, dt)
        ended = ready.gather(1, lengths[:, None] - 1)
        values = found[kept & (torch.arange(found.shape[1]) < ended)]
        if len(values) > 1:
            self.mean.copy_(values.mean(0))
            self.std.copy_(values.std(0).clamp_min(1e-3))

    def _energies(
        self, u: Tensor, state: BankState, seen: Tensor, rate: float, dt: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, BankState]:
        """Logarithms (b, f, n), which of them are known (b, f), `ready` (b, t), and the state."""
        b, t, _ = u.shape
        h, last, skipped = self._scan(u, state, seen, rate, dt)
        here = seen.to(u.dtype)
        squares = torch.view_as_real(h).square().flatten(-2)  # b, t, 2 n
        if not bool(seen.all()):
            squares = squares * here[..., None]
        passed = torch.arange(1, t + 1, dtype=torch.float64) * rate
        if dt is not None:
            passed = dt.double().cumsum(1) * rate
        # a thousandth of an interval absorbs rounding, so that pieces end where the whole does
        ready = ((state.clock[:, None] + passed + 1e-3) / self.stride).floor().long()
        ended = ready[:, -1]
        f = int(ended.max())
        if dt is not None and f > max(_MOST_FRAMES, _SPARSE * t // self.stride):
            raise InputError(
                f"a series of {t} samples lasts {f} frames of {self.stride} usual intervals, most "
                "of them without a sample; check its stamps, or cut it at its longest gaps"
            )
        own = torch.cat([torch.zeros_like(ready[:, :1]), ready[:, :-1]], 1)
        place = (own + torch.arange(b)[:, None] * (f + 1)).flatten()
        added = squares.new_zeros(b * (f + 1), squares.shape[2])
        added = added.index_add(0, place, squares.flatten(0, 1)).view(b, f + 1, -1, 2).sum(-1)
        total = torch.cat([added[:, :1] + state.energy[:, None], added[:, 1:]], 1)
        count = here.new_zeros(b * (f + 1)).index_add(0, place, here.flatten()).view(b, f + 1)
        count = torch.cat([count[:, :1] + state.samples[:, None], count[:, 1:]], 1)
        rows = torch.arange(b)
        clock = state.clock + passed[..., -1] - ended * self.stride
        state = BankState(last, total[rows, ended], count[rows, ended], clock, skipped)
        kept = (count[:, :f] > 0) & (torch.arange(f) < ended[:, None])
        mean = total[:, :f] / count[:, :f, None].clamp_min(1)
        return (mean + _FLOOR).log(), kept, ready, state

    def _scan(
        self, u: Tensor, state: BankState, seen: Tensor, rate: float, dt: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All states (b, t, n), the last, and the samples since the last seen one."""
        A = torch.complex(-self.log_decay.exp(), self.frequency)
        B = torch.view_as_complex(self.B)
        usual = dt is None or bool((dt.float() == 1).all())
        if usual and bool(seen.all()) and not bool(state.skipped.any()):
            decay, scale = ZeroOrderHold().diagonal(A, torch.full_like(self.frequency, rate))
            return *diagonal_scan(drive(u, scale[:, None] * B), decay, state.h), state.skipped
        gap, skipped = time_between(seen, state.skipped, dt)
        h, last = zoh_scan(u, A * rate, torch.where(seen, gap, 0), state.h, B=B * rate)
        return h, last, skipped


def time_between(
    seen: Bool[Tensor, "b t"],
    skipped: Float[Tensor, " b"],
    dt: Float[Tensor, "b t"] | None = None,
) -> tuple[Float[Tensor, "b t"], Float[Tensor, " b"]]:
    """Time from the last seen sample to each one, and that which is skipped at the end.

    Args:
        seen: samples that are read. skipped: time since the last one of them, before the first.
        dt: time since the previous sample, seen or not; None is 1 everywhere.
    """
    t = seen.shape[1]
    place = torch.arange(1, t + 1, dtype=skipped.dtype).expand(seen.shape)
    if dt is not None:
        place = dt.double().cumsum(1)
    last = torch.where(seen, place, -skipped[:, None]).cummax(1).values
    before = torch.cat([-skipped[:, None].to(place.dtype), last[:, :-1]], 1)
    return (place - before).to(skipped.dtype), (place[:, -1] - last[:, -1]).to(skipped.dtype)
