"""Bounds of a selective layer for all possible outputs of the norm before it.

A norm before a layer gives u = weight * z + bias with |z| <= sqrt(d), for every input of the norm.
So there are bounds on the layer's steps that hold for every text. The raw step is a sum over inner
channels of SiLU(v_c). On the range of v_c each SiLU lies between two lines of equal slope, and the
sum of lines is linear in z, whose smallest value on a ball is known (the idea of CROWN, Zhang et
al. 2018). Slope 0 is interval arithmetic; the best of several slopes is used.

`longstate.memory._attack` searches for the worst input, which bounds the true value from the other
side.

Axes: d model channels, c inner channels, o steps, n state, k taps, g groups with one write vector.
"""

from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from longstate.systems import Selection

_GRID = 129  # points on the range of a SiLU
_BEND = 0.5  # bound of the second derivative of SiLU
_BOTTOM = -1.2784645  # where SiLU is lowest


@dataclass(frozen=True, eq=False)
class Ball:
    """Inputs u = weight * z + bias, |z| <= radius: the possible outputs of a norm.

    Args:
        weight, bias (d).
        radius: of z.
    """

    weight: Float[Tensor, " d"]
    bias: Float[Tensor, " d"]
    radius: float


class Range(NamedTuple):
    """Lowest and highest value."""

    low: Tensor
    high: Tensor


def cast(selection: Selection, dtype: torch.dtype) -> Selection:
    """The same on the CPU, in another type."""
    values: dict[str, Any] = {f.name: getattr(selection, f.name) for f in fields(selection)}
    for name, v in values.items():
        if isinstance(v, Tensor):
            values[name] = v.detach().cpu().to(dtype)
    return Selection(**values)


def steps(s: Selection, ball: Ball) -> Range:
    """Certified range of every step (o), of regular samples (dt = 1)."""
    low, high = _raw(s, ball)
    least, most = s.limit
    step = Range(F.softplus(low).clamp(min=least), F.softplus(high).clamp(min=least))
    return step if most is None else Range(step.low.clamp(max=most), step.high.clamp(max=most))


def rates(s: Selection, ball: Ball) -> Tensor:
    """Certified lower bound of every decay rate (o, n)."""
    assert s.rate is not None
    if s.rate_of is None:
        return s.rate
    assert s.rate_direct is not None
    assert s.rate_shift is not None
    raw = _on_ball(s.rate_direct, ball)
    return s.rate_of(s.rate_shift + raw.low)[:, None]


def decay(s: Selection, ball: Ball, step: Tensor) -> Tensor:
    """Certified upper bound of the decay (o, n) of a step of at least `step` (o)."""
    return (-rates(s, ball) * step[:, None]).exp()


def inner_size(s: Selection, ball: Ball) -> Tensor:
    """Bound of |x| (c) over all inputs."""
    x = _activated(s, _convolved(s, ball))
    return torch.maximum(x.low.abs(), x.high.abs())


def state_size(s: Selection, ball: Ball, dt: float = 1.0) -> Tensor:
    """Bound of |h| (o, n) over all inputs and lengths.

    |h| <= M dt / (1 - exp(-rate dt)) at the largest step, where M bounds |x| |write|. The sum of
    all decayed writes is largest for steps of that size, so no lower bound of a step is needed. If
    the gain is split, the second part of the newest sample, at most one more step, has not decayed
    yet when the next sample comes.

    Args:
        dt: the longest time between two samples.
    """
    size = inner_size(s, ball)
    written = s.write_cap
    if written is None:
        assert s.write is not None
        written = (s.write.abs() * size).sum(1)
    o = len(s.shift)
    drive = size[: s.inner].unflatten(0, (o, -1)).amax(1)  # the largest channel of each head
    of_step = written.unflatten(0, (s.groups, -1)).repeat_interleave(o // s.groups, dim=0)  # (o, n)
    longest = dt * steps(s, ball).high[:, None]
    left = -torch.expm1(-rates(s, ball) * longest)
    # if step times rate underflows in float64, 1 / rate is the limit
    time = torch.where(left > 0, longest / left.clamp(min=1e-300), 1 / rates(s, ball))
    return drive[:, None] * of_step * (time + longest if s.split else time)


def _on_ball(W: Tensor, ball: Ball) -> Range:
    """Range of W u (o)."""
    middle, reach = W @ ball.bias, ball.radius * (W * ball.weight).norm(dim=1)
    return Range(middle - reach, middle + reach)


def _convolved(s: Selection, ball: Ball) -> Range:
    """Range of the convolution's output (c), before the activation.

    Past taps may be before the first sample, where v is 0.
    """
    middle = s.into @ ball.bias + s.offset
    reach = ball.radius * (s.into * ball.weight).norm(dim=1)
    low, high = s.bias.clone(), s.bias.clone()
    for j in range(s.taps.shape[1]):
        a, b = s.taps[:, j] * (middle - reach), s.taps[:, j] * (middle + reach)
        least, most = torch.minimum(a, b), torch.maximum(a, b)
        if j < s.taps.shape[1] - 1:
            least, most = least.clamp(max=0), most.clamp(min=0)
        low, high = low + least, high + most
    return Range(low, high)


def _activated(s: Selection, v: Range) -> Range:
    if not s.silu:
        return v
    ends = torch.stack([F.silu(v.low), F.silu(v.high)])
    low = torch.where((v.low < _BOTTOM) & (v.high > _BOTTOM), -0.2784645428, ends.amin(0))
    return Range(low, ends.amax(0))


def _raw(s: Selection, ball: Ball) -> Range:
    """Certified range of the raw step (o)."""
    low = high = s.shift
    if s.spread is not None:
        low, high = low - s.spread, high + s.spread
    if s.direct is not None:
        direct = _on_ball(s.direct, ball)
        low, high = low + direct.low, high + direct.high
    if s.low is not None:
        v = _convolved(s, ball)
        lows, highs = zip(*(_by_lines(s, ball, v, slope) for slope in _slopes(v)), strict=True)
        low, high = low + torch.stack(lows).amax(0), high + torch.stack(highs).amin(0)
    return Range(low, high)


def _slopes(v: Range) -> list[Tensor]:
    """Slopes (c) of the lines to try: 0, the chord, and tangents."""
    chord = (F.silu(v.high) - F.silu(v.low)) / (v.high - v.low).clamp(min=1e-12)
    middle = (v.low + v.high) / 2
    return [torch.zeros_like(chord), chord, 0.5 * chord, _derivative(middle), 0.5 + 0 * chord]


def _derivative(v: Tensor) -> Tensor:
    sigma = v.sigmoid()
    return sigma * (1 + v * (1 - sigma))


def _by_lines(s: Selection, ball: Ball, v: Range, slope: Tensor) -> Range:
    """Range of low x (o), every SiLU between slope v + below and slope v + above."""
    assert s.low is not None
    grid = torch.linspace(0, 1, _GRID, dtype=slope.dtype)
    points = v.low[:, None] + (v.high - v.low)[:, None] * grid
    rest = F.silu(points) - slope[:, None] * points
    # bound of the deviation between two points of the grid
    margin = _BEND * ((v.high - v.low) / (_GRID - 1)).square() / 8
    below, above = rest.amin(1) - margin, rest.amax(1) + margin
    plus, minus = s.low.clamp(min=0), s.low.clamp(max=0)
    tilted = s.low * slope
    low = plus @ below + minus @ above + tilted @ s.bias
    high = plus @ above + minus @ below + tilted @ s.bias
    middle = s.into @ ball.bias + s.offset
    for j in range(s.taps.shape[1]):
        weight = tilted * s.taps[:, j]
        centre = weight @ middle
        reach = ball.radius * (weight @ (s.into * ball.weight)).norm(dim=1)
        least, most = centre - reach, centre + reach
        if j < s.taps.shape[1] - 1:
            least, most = least.clamp(max=0), most.clamp(min=0)
        low, high = low + least, high + most
    return Range(low, high)
