"""Search for the worst inputs of a selective layer.

An attack is a sequence of inputs, each of which is a possible output of the norm before the layer.
Its value is computed by the layer itself on that sequence, from its trace in float64, and not taken
from the search. So an error in the search can only make an attack weaker.

Axes: d model channels, o steps (channels or heads), k samples of an attack, m sequences.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.memory._recording import Recorded
from longstate.memory._selective_bounds import Ball, _convolved, _slopes, cast, rates, steps
from longstate.systems import Selection

_ROUNDS, _POLISHED = 12, 24
_FEW = 4  # number of steps whose inputs are tried: those with the least values in the search


class Found(NamedTuple):
    """The worst value found for one quantity.

    Attributes:
        value: at the last sample of `inputs`.
        inputs (k, d): inputs of the layer, from a zero state, at dt = 1.
    """

    value: float
    inputs: Tensor


class Attack(NamedTuple):
    """Attacks on the smallest step, and on the smallest decay exponent (rate times step)."""

    step: Found | None
    exponent: Found


def attack(layer: Any, s: Selection, ball: Ball, seen: Recorded | None = None) -> Attack:
    """Search for the input with the smallest step, and for the one with the weakest decay.

    Args:
        layer: in float64, on the CPU; has `trace`.
        s: the constants of that layer.
        ball: the possible inputs of the layer.
        seen: a recording on data, whose worst samples are tried too.
    """
    z, value = _search(s, ball)
    slow = value * rates(s, ball).amin(1)
    chosen = torch.cat([v.argsort()[:_FEW] for v in (value, slow)]).unique()
    z = _polish(layer, s, ball, z[chosen], chosen)
    tried = list(ball.radius * z * ball.weight + ball.bias)
    if seen is not None:
        tried += _worst_windows(seen, s)
    step, exponent = [], []
    for inputs in (v.detach() for v in tried):
        with torch.no_grad():
            least, weak = replay(layer, s, inputs[None])
        step.append(Found(float(least.min()), inputs))
        exponent.append(Found(float(weak.min()), inputs))
    return Attack(
        None if s.split else min(step, key=lambda f: f.value), min(exponent, key=lambda f: f.value)
    )


def _worst_windows(seen: Recorded, s: Selection) -> list[Tensor]:
    """The samples (k or fewer, d) on which the worst steps of the data depended."""
    gain, k = seen.trace.gain.unflatten(-1, (len(s.shift), -1)).amin(-1), s.taps.shape[1]  # b t o
    if s.rate_of is None:
        assert s.rate is not None
        weak = gain * s.rate.amin(1)
    else:
        weak = -seen.trace.decay.amax(-1)
    windows = []
    for values in (gain, weak):
        b, t = divmod(int(values.amin(-1).argmin()), values.shape[1])
        windows.append(seen.inputs[b, max(0, t - k + 1) : t + 1])
    return windows


def replay(layer: Any, s: Selection, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Steps and decay exponents (m, o) of the last sample of inputs (m, k, d), from the layer.

    If the layer splits its gain, the steps follow from the decays only.
    """
    trace = layer.trace(inputs)
    o, eps = len(s.shift), torch.finfo(torch.float64).eps
    gain = trace.gain[:, -1].unflatten(-1, (o, -1)).amin(-1)
    if s.rate_of is None:
        assert s.rate is not None
        return gain, gain * s.rate.amin(1)
    left = trace.decay[:, -1].unflatten(1, (o, -1)).amax((-2, -1))
    return gain, eps - left.clamp(min=1e-300).log()


def _of(values: Tensor, chosen: Tensor) -> Tensor:
    """Entry chosen[m] of each row m."""
    return values.gather(1, chosen[:, None])[:, 0]


@torch.enable_grad()  # it needs gradients, also if the caller has disabled them
def _search(s: Selection, ball: Ball) -> tuple[Tensor, Tensor]:
    """Unit vectors z (o, k, d) of each step's worst input, and the approximate step (o).

    Starts at the input that is worst for the chords of `steps`, and follows the gradient in single
    precision.
    """
    k = s.taps.shape[1]
    if s.low is None or s.spread is not None:
        W = s.direct if s.direct is not None else s.into[: len(s.shift)]
        return F.normalize(-(W * ball.weight), dim=-1)[:, None].repeat(1, k, 1), steps(s, ball).low
    narrow = cast(s, torch.float32)
    weight, bias = ball.weight.float(), ball.bias.float()
    slope = _slopes(_convolved(s, ball))[1].float()
    assert narrow.low is not None
    tilted = narrow.low * slope
    start = [-(tilted * narrow.taps[:, j]) @ (narrow.into * weight) for j in range(k)]
    z = F.normalize(torch.stack(start, dim=1), dim=-1)  # (o, k, d)
    best, where = torch.full_like(narrow.shift, torch.inf), z
    for i in range(_ROUNDS + 1):
        z = z.detach().requires_grad_()
        raw = _raw_at(narrow, z, weight, bias, ball.radius)
        (g,) = torch.autograd.grad(raw.sum(), z)
        better = raw.detach() < best
        best = torch.where(better, raw.detach(), best)
        where = torch.where(better[:, None, None], z.detach(), where)
        z = F.normalize(z.detach() - 0.3 / (1 + i / 3) * F.normalize(g, dim=-1), dim=-1)
    least, most = s.limit
    return F.normalize(where.double(), dim=-1), F.softplus(best.double()).clamp(least, most)


def _raw_at(s: Selection, z: Tensor, weight: Tensor, bias: Tensor, radius: float) -> Tensor:
    """The raw step of each o for its inputs z (o, k, d), which are on the unit sphere."""
    assert s.low is not None
    v = (radius * z * weight + bias) @ s.into.T + s.offset  # (o, k, c)
    x = F.silu((v * s.taps.T).sum(1) + s.bias)
    return s.shift + (s.low * x).sum(1)


@torch.enable_grad()
def _polish(layer: Any, s: Selection, ball: Ball, z: Tensor, chosen: Tensor) -> Tensor:
    """Follow the gradient of the layer itself, for a few steps' inputs z (m, k, d)."""
    best, where = torch.full((len(z),), torch.inf, dtype=torch.float64), z
    for i in range(_POLISHED + 1):
        z = z.detach().requires_grad_()
        value = _of(replay(layer, s, ball.radius * z * ball.weight + ball.bias)[1], chosen)
        (g,) = torch.autograd.grad(value.clamp(min=1e-300).log().sum(), z)
        better = value.detach() < best
        best = torch.where(better, value.detach(), best)
        where = torch.where(better[:, None, None], z.detach(), where)
        z = z.detach() - 0.3 / (1 + i / 4) * F.normalize(g.nan_to_num(), dim=-1)
        z = z / z.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return where
