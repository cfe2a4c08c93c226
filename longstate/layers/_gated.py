"""Parts that the selective layers with heads share: a gated norm, initial steps, small helpers.

Axes: d channels, g groups of channels; ... any leading axes.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers._channelwise import log_uniform
from longstate.ops import gated_norm, short_conv
from longstate.systems import Convolution, Trace

_SMALLEST_STEP = 1e-4


class GatedRMSNorm(nn.Module):
    """weight * v / rms(v) with v = y * silu(z), the mean square taken over each group of channels.

    Args:
        d: channels.
        n_groups: number of groups of consecutive channels, each with its own mean square.
        eps: added to the mean square.
    """

    def __init__(self, d: int, n_groups: int = 1, eps: float = 1e-5):
        super().__init__()
        self.n_groups, self.eps = n_groups, eps
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, y: Float[Tensor, "*b d"], z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """Computed in float32 at least; the result has the type of `y`."""
        return gated_norm(y, z, self.weight, groups=self.n_groups, eps=self.eps)

    def factor(self, y: Float[Tensor, "*b d"], z: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        """The total factor of y: gate, norm and weight."""
        v = (y * F.silu(z)).unflatten(-1, (self.n_groups, -1))
        rms = (v.square().mean(-1, keepdim=True) + self.eps).rsqrt().expand_as(v)
        return F.silu(z) * rms.flatten(-2) * self.weight

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, n_groups={self.n_groups}"


class RMSNorm(nn.Module):
    """weight * v / rms(v) over the last axis, in float32 at least.

    Args:
        d: size of that axis.
        eps: added to the mean square.
    """

    def __init__(self, d: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, v: Float[Tensor, "*b d"]) -> Float[Tensor, "*b d"]:
        v = v.to(torch.promote_types(v.dtype, torch.float32))
        return v * (v.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight


def short_conv_weights(channels: int, taps: int) -> nn.Conv1d:
    """The weights of a short convolution, with the names of the published models.

    `longstate.ops.short_conv` runs it, because here past inputs are a part of the state.
    """
    return nn.Conv1d(channels, channels, taps, groups=channels, padding=taps - 1)


def initial_step_bias(n: int, dt_min: float, dt_max: float) -> Tensor:
    """b (n) such that softplus(b) is log-uniform in [dt_min, dt_max], and at least 1e-4."""
    dt = log_uniform((n,), dt_min, dt_max).exp().clamp(min=_SMALLEST_STEP)
    return dt + torch.log(-torch.expm1(-dt))


def heads(inner: int, d_head: int, n_groups: int) -> int:
    """Number of heads.

    Raises:
        ValueError: `d_head` does not divide `inner`, or `n_groups` does not divide the heads.
    """
    if inner % d_head:
        raise ValueError(f"d_head must divide expand * d_model = {inner}; got {d_head}")
    if (inner // d_head) % n_groups:
        raise ValueError(f"n_groups must divide the {inner // d_head} heads; got {n_groups}")
    return inner // d_head


def step_limits(pair: Sequence[float | None]) -> tuple[float, float | None]:
    """Smallest and largest step.

    Raises:
        ValueError: they are not in order.
    """
    least, most = pair if len(pair) == 2 else (None, None)
    if least is None or least < 0 or (most is not None and not most >= least):
        raise ValueError(
            f"dt_limit must be a smallest step of at least 0 and a largest one; got {pair!r}"
        )
    return float(least), None if most is None else float(most)


def beside(flag: Tensor, v: Tensor) -> Tensor:
    """`flag` (b) with axes added, to broadcast against `v` (b, ...)."""
    return flag.view(-1, *[1] * (v.dim() - 1))


def trace_of_heads(
    x: Tensor, log_a: Tensor, gain: Tensor, B: Tensor, C: Tensor, h0: Tensor, D: Tensor,
    own: Tensor | None = None,
) -> Trace:  # fmt: skip
    """A trace with one channel for each channel of each head, from x (b, t, h, p), log_a, gain, own
    (b, t, h), B and C (b, t, h, n), h0 (b, h, p, n), D (h)."""
    p, n = h0.shape[2:]

    def each(v: Tensor) -> Tensor:
        """Repeat (b, t, h, ...) for each channel of a head: (b, t, h p, ...)."""
        return v[:, :, :, None].expand(-1, -1, -1, p, *v.shape[3:]).flatten(2, 3)

    return Trace(
        x.flatten(2), each(log_a.exp())[..., None].expand(-1, -1, -1, n), each(gain), each(B),
        each(C), h0.flatten(1, 2), D.repeat_interleave(p), None if own is None else each(own),
    )  # fmt: skip


def traced_conv(
    v: Tensor, conv: nn.Conv1d, taps: Tensor, channels: int
) -> tuple[Tensor, Convolution]:
    """SiLU of the convolution (b, t, d), and the record of its first `channels` channels."""
    weight = conv.weight[:, 0]
    plain, _ = short_conv(v, weight, conv.bias, taps)
    bias = plain.new_zeros(len(weight)) if conv.bias is None else conv.bias
    part = slice(0, channels)
    made = Convolution(v[..., part], weight[part], bias[part], plain[..., part].sigmoid())
    return F.silu(plain), made
