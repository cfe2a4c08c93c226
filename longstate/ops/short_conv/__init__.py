"""A causal convolution of a few taps, for each channel separately; the last inputs are the state.

    y_t = f(bias + sum_k weight_k x_{t - (k_max - k)})        f = SiLU or nothing

`taps` are the inputs before the first step: the last ones of the previous call, or zeros. A reset
makes everything before it zero. A sample where `mask` is False is skipped: its output is 0, and
later outputs do not use it.

Source: the convolution in front of the scan in Mamba (Gu and Dao, 2023). Differs from its code: the
state holds k - 1 past inputs and not k; padding may lie anywhere.

Axes: b batch, t time, d channels, k taps.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import check_flags, implementation
from longstate.ops._choice import choose_for_length, expect, shape_of
from longstate.ops._op import register

FEW = 16  # steps; for so few, preparing the other kernel takes longer than the work


def short_conv(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    taps: Tensor | None = None,
    *,
    activation: str | None = None,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Convolved samples, and the inputs that the next call needs.

    Args:
        x (b, t, d): input.
        weight (d, k): oldest tap first, as PyTorch's `Conv1d` stores it.
        bias (d): added before the activation.
        taps (b, k - 1, d): inputs before the first step, oldest first. Zero when None.
        activation: "silu" or None.
        mask (b, t): bool. False skips a sample: output 0, and it does not enter the taps.
        reset (b, t): bool. True forgets everything before that sample, masked or not.
        impl: "auto", "reference", "cpu" or "triton". Under "auto", up to 16 steps on a CPU go to a
            kernel of their own, unless a gradient, a mask or a reset is wanted: then a single step
            goes to the reference.

    Returns:
        y (b, t, d) and taps (b, k - 1, d), both of the type of `x`. Differentiable in `x`,
        `weight`, `bias` and `taps`.

    Raises:
        ValueError: shapes do not fit, t is 0, or `impl` cannot run here.
    """
    _check(x, weight, bias, taps, activation, mask, reset)
    b, _, d = x.shape
    past = weight.shape[1] - 1
    taps = x.new_zeros(b, past, d) if taps is None else taps.to(x.dtype)
    flags = mask is not None or reset is not None
    impl = choose_for_length(impl, x, weight, bias, taps, flags=flags, few=FEW)
    if impl == "step":
        from longstate.ops.short_conv import cpu_step

        return cpu_step.forward(x, weight, bias, taps, activation == "silu")
    if impl == "reference":
        from longstate.ops.short_conv import reference

        y, last = reference.forward(x, weight, bias, taps, activation, mask, reset)
        return y.to(x.dtype), last
    sources, ends = _sources(x, past, mask, reset)
    (y,) = _conv(Inputs(x, weight, bias, taps, sources, activation == "silu", impl))
    return y, _last_taps(x, taps, ends, flags)


def _sources(
    x: Tensor, past: int, mask: Tensor | None, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Positions of each output's inputs.

    Positions count the taps and then the samples of `x`. Returns positions (b or 1, t, k) for the
    outputs, int32, -1 where nothing is read, and (b or 1, k - 1) for the next taps.
    """
    t = x.shape[1]
    time = torch.arange(past + t, device=x.device)
    window = torch.arange(past + 1, device=x.device)
    if mask is None and reset is None:
        return (time[:t, None] + window)[None].int(), time[None, t:]
    some = mask if mask is not None else reset
    assert some is not None
    kept = torch.ones_like(some) if mask is None else mask
    count = kept.cumsum(1)
    # Positions in order without skipped samples: taps, then kept samples. One more place receives
    # the positions of the skipped samples; it is never read.
    order = torch.arange(past + t + 1, device=x.device).repeat(x.shape[0], 1)
    rank = torch.where(kept, past + count - 1, past + t)
    order = order.scatter(1, rank, time[past:].expand_as(rank))
    first = (count - 1).clamp(min=0)
    sources = order.gather(1, (first[..., None] + window).flatten(1)).view(*count.shape, -1)
    ends = order.gather(1, count[:, -1:] + window[:past])
    if reset is not None:
        since = torch.where(reset, time[past:], 0).cummax(1).values
        sources = torch.where(sources < since[..., None], -1, sources)
        ends = torch.where(ends < since[:, -1:], -1, ends)
    return torch.where(kept[..., None], sources, -1).int(), ends


def _last_taps(x: Tensor, taps: Tensor, ends: Tensor, flags: bool) -> Tensor:
    past, t = taps.shape[1], x.shape[1]
    if past == 0:
        return taps.clone()
    if not flags:
        return x[:, t - past :].clone() if t >= past else torch.cat((taps[:, t:], x), 1)
    row = torch.arange(x.shape[0], device=x.device)[:, None]
    ends = ends.expand(x.shape[0], past)
    recent = x[row, (ends - past).clamp(min=0)]
    older = taps[row, ends.clamp(0, past - 1)]
    last = torch.where((ends >= past)[..., None], recent, older)
    return torch.where((ends >= 0)[..., None], last, torch.zeros_like(last))


def _check(
    x: Tensor, weight: Tensor, bias: Tensor | None, taps: Tensor | None, activation: str | None,
    mask: Tensor | None, reset: Tensor | None,
) -> None:  # fmt: skip
    # The messages are only put together when needed: that takes as long as a small kernel.
    if x.dim() != 3:
        raise ValueError(f"x must be (batch, time, channels); got {shape_of(x)}")
    b, t, d = x.shape
    expect(t > 0, "x has no time steps; short_conv needs at least one")
    if weight.dim() != 2 or weight.shape[0] != d or weight.shape[1] == 0:
        raise ValueError(f"weight must be ({d}, taps > 0); got {shape_of(weight)}")
    if bias is not None and bias.shape != (d,):
        raise ValueError(f"bias must be ({d},); got {shape_of(bias)}")
    expected = (b, weight.shape[1] - 1, d)
    if taps is not None and taps.shape != expected:
        raise ValueError(f"taps must be {expected}; got {shape_of(taps)}")
    if activation not in (None, "silu"):
        raise ValueError(f"activation must be None or 'silu'; got {activation!r}")
    check_flags(b, t, mask=mask, reset=reset)


class Inputs(NamedTuple):
    """As for `short_conv`; `sources` are the positions of each output's inputs."""

    x: Tensor
    weight: Tensor
    bias: Tensor | None
    taps: Tensor
    sources: Tensor
    silu: bool
    impl: str


def _forward(s: Inputs) -> tuple[Tensor]:
    return (implementation("short_conv", s.impl).forward(s),)


def _fake(s: Inputs) -> tuple[Tensor]:
    return (s.x.new_empty(s.x.shape),)


def _backward(s: Inputs, grad_y: Tensor | None) -> dict[str, Tensor]:
    grad_y = torch.zeros_like(s.x) if grad_y is None else grad_y
    return implementation("short_conv", s.impl).backward(s, grad_y)


def _reference(s: Inputs) -> tuple[Tensor]:
    from longstate.ops.short_conv import reference

    return (reference.gather(s),)


_conv = register("short_conv", Inputs, _forward, _fake, _backward, _reference, returns="y")
