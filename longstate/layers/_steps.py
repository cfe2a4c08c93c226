"""Where the step of a sample comes from: small modules, and steps from time stamps.

    learned      s                                   one for all samples
    tokens       softplus(w u_t + c)
    linear       gap_t
    saturating   a (1 - exp(-gap_t / scale))
    cosine       softplus(w cos(f gap_t + p) + c)

gap_t is the time since the previous sample, as a multiple of the regular interval. All are near 1
at first for a gap of 1. Axes: b batch, t time, d channels, f frequencies.
"""

import math

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._dynamics import Dynamic

_ONE = math.log(math.expm1(1))  # softplus of it is 1
_FREQUENCIES = 100


class StepSource(Dynamic):
    """Base of sources: `forward(u, gap)` gives steps, finite and at least 0."""

    def forward(self, u: Float[Tensor, "*b d"], gap: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        """The step of each sample.

        Args:
            u (..., d): input.
            gap (...): time since the previous sample.
        """
        raise NotImplementedError


class Learned(StepSource):
    """The same step for all samples."""

    dynamics = ("log_step",)

    def __init__(self, d_model: int):
        super().__init__()
        self.log_step = nn.Parameter(torch.zeros(()))

    def forward(self, u: Float[Tensor, "*b d"], gap: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return self.log_step.to(gap.dtype).exp().expand(gap.shape)


class Tokens(StepSource):
    """A step that depends on the input."""

    dynamics = ("weight", "shift")

    def __init__(self, d_model: int):
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(d_model) * d_model**-0.5)
        self.shift = nn.Parameter(torch.tensor(_ONE))

    def forward(self, u: Float[Tensor, "*b d"], gap: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        x = u.to(gap.dtype) @ self.weight.to(gap.dtype)
        x = torch.where(x.isfinite(), x, 0)  # the layer sees that u is not finite, and its step is
        return F.softplus(x + self.shift.to(gap.dtype))


class Linear(StepSource):
    """The time since the previous sample."""

    def __init__(self, d_model: int):
        super().__init__()

    def forward(self, u: Float[Tensor, "*b d"], gap: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        return gap


class Saturating(StepSource):
    """Long gaps count as about the same, with a learned scale and a learned largest step."""

    dynamics = ("log_scale", "log_largest")

    def __init__(self, d_model: int):
        super().__init__()
        scale = 10.0
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale)))
        self.log_largest = nn.Parameter(torch.tensor(-math.log(-math.expm1(-1 / scale))))

    def forward(self, u: Float[Tensor, "*b d"], gap: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        scale, largest = (p.to(gap.dtype).exp() for p in (self.log_scale, self.log_largest))
        return -largest * torch.expm1(-gap / scale)


class Cosine(StepSource):
    """A learned function of the gap, made of cosines of frequencies between 1/8 and 1."""

    dynamics = ("frequency", "phase", "weight", "shift")

    def __init__(self, d_model: int):
        super().__init__()
        self.frequency = nn.Parameter(10 ** -torch.linspace(0, 0.9, _FREQUENCIES))
        self.phase = nn.Parameter(torch.zeros(_FREQUENCIES))
        self.weight = nn.Parameter(0.1 * torch.randn(_FREQUENCIES) * _FREQUENCIES**-0.5)
        self.shift = nn.Parameter(torch.tensor(_ONE))

    def forward(self, u: Float[Tensor, "*b d"], gap: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
        f, p, w, c = (getattr(self, name).to(gap.dtype) for name in self.dynamics)
        return F.softplus(torch.cos(gap[..., None] * f + p) @ w + c)


SOURCES: dict[str, type[StepSource]] = {
    "learned": Learned,
    "tokens": Tokens,
    "linear": Linear,
    "saturating": Saturating,
    "cosine": Cosine,
}


def intervals(
    times: Shaped[Tensor, "b t"],
    *,
    unit: float = 1.0,
    mask: Bool[Tensor, "b t"] | None = None,
    reset: Bool[Tensor, "b t"] | None = None,
    before: Shaped[Tensor, " b"] | None = None,
) -> Float[Tensor, "b t"]:
    """The `dt` of a layer from time stamps: the time since the previous sample that is not masked.

    Args:
        times (b, t): stamps, which do not decrease. Give them as int64 or float64: in float32
            seconds since 1970 are whole minutes. The differences are taken before rounding.
        unit: the regular interval, such as the median gap of the training data, in units of
            `times`. It has to be the same in training and in use.
        mask (b, t): False samples are left out, and so are their stamps, which may be NaN.
        reset (b, t): True begins a sequence.
        before (b): the stamp of the last sample of an earlier call, to go on behind it.

    Returns:
        dt (b, t): 1 at the first sample of a sequence, 0 where masked. In the type of `times`, or
        the default type if they are whole numbers.

    Raises:
        ValueError: stamps decrease or are not finite, or `unit` is not above 0.
    """
    if not 0 < unit < math.inf:
        raise ValueError(f"unit must be a finite number above 0; got {unit!r}")
    at = torch.arange(times.shape[1], device=times.device).expand(times.shape)
    kept = torch.ones_like(at, dtype=torch.bool) if mask is None else mask
    latest = torch.where(kept, at, -1).cummax(dim=1).values
    previous = F.pad(latest[:, :-1], (1, 0), value=-1)
    starts = torch.full_like(at, -1)
    if reset is not None:
        starts = torch.where(reset, at, -1).cummax(dim=1).values
    inside = (previous >= 0) & (previous >= starts)
    since = times.gather(1, previous.clamp(min=0))
    if before is not None:
        outside = ~inside & (starts < 0)
        since = torch.where(outside, before[:, None], since)
        inside = inside | outside
    gap = torch.where(inside & kept, times - since, 0)
    wrong = ~((gap >= 0) & gap.isfinite())
    if wrong.any():
        row, t = wrong.nonzero()[0].tolist()
        raise ValueError(
            f"times must be finite and must not decrease; row {row} has {times[row, t].item()} at "
            f"sample {t} behind {since[row, t].item()}"
        )
    return torch.where(inside | ~kept, gap / unit, 1)
