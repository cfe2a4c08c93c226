"""Claims about a selective layer, for all possible outputs of the norm before it.

Axes: o steps (channels or heads), n state of a channel.
"""

import math
from typing import Any

import torch
from torch import Tensor

from longstate.memory._attack import Found, attack
from longstate.memory._certificate import Claim
from longstate.memory._contraction import SHORTEST, average_contraction
from longstate.memory._limits import bounded
from longstate.memory._linear_claims import KEPT
from longstate.memory._recording import Recorded, widened
from longstate.memory._selective_bounds import Ball, inner_size, rates, state_size, steps
from longstate.systems import Selection, Trace

Two = tuple[float | None, float | None]
"""The value of an attack, and the value on data."""


def selective_claims(
    name: str,
    layer: Any,
    ball: Ball,
    data: Recorded | None,
    *,
    attacked: bool,
    dt: tuple[float, float],
) -> list[Claim]:
    """Claims about a layer with a `selection`.

    Args:
        ball: the possible inputs of the layer.
        data: a recording of the layer on data.
        attacked: whether to search for bad inputs.
        dt: shortest and longest time between samples. Values on data, at dt = 1, are left out if
            dt = 1 is not in this range.
    """
    wide = widened(layer)
    s = wide.selection()
    if not dt[0] <= 1 <= dt[1]:
        data = None
    trace = None if data is None else data.trace
    size = None if trace is None else float(trace.states().abs().max())
    if s.rate is None:
        return _regression(name, layer, s, ball, trace, size)
    least = dt[0] * steps(s, ball).low
    rate = rates(s, ball).amin(1)
    e = float((least * rate).min())
    found = attack(wide, s, ball, data) if attacked else None
    step = _at(None if found is None else found.step, dt[0]), _seen_step(s, trace)
    exponent = _at(None if found is None else found.exponent, dt[0]), _seen_exponent(s, trace)
    bound = float(state_size(s, ball, dt[1]).max())
    at = None if found is None or found.step is None else found.step.inputs
    exponent_at = None if found is None else found.exponent.inputs

    def claim(what: str, value: float, two: Two, rising: bool, holds: bool | None, u: Any) -> Claim:
        return Claim(name, what, "certified", value, two[0], two[1], rising, holds, "", u)

    left, lasting = _left(e), _steps(e)
    decays = _left(exponent[0]), _left(exponent[1])
    lasted = _steps(exponent[0]), _steps(exponent[1])
    assert left is not None
    assert lasting is not None
    return [
        claim("step dt, at least", float(least.min()), step, False, None, at),
        claim("decay exponent of a step, at least", e, exponent, False, None, exponent_at),
        claim("decay of a step, at most", left, decays, True, e >= 0, exponent_at),
        claim("steps until 1 % is left, at most", lasting, lasted, True, None, exponent_at),
        bounded(claim("|state|, at most", bound, (None, size), True, True, None), layer),
        *_average(name, trace),
    ]


def _at(found: Found | None, dt: float) -> float | None:
    """The value of an attack, for another time between samples."""
    return None if found is None else dt * found.value


def _seen_step(s: Selection, trace: Trace | None) -> float | None:
    if trace is None or s.split:  # a split gain does not give the step
        return None
    return float(trace.gain.min())


def _seen_exponent(s: Selection, trace: Trace | None) -> float | None:
    if trace is None:
        return None
    if s.rate_of is not None:  # only the decay is known, up to one rounding
        lost = float(-trace.decay.clamp(min=1e-300).log().max())
        return lost + torch.finfo(torch.float64).eps
    assert s.rate is not None
    rows = s.rate.amin(1)
    return float((_of_each_step(trace.gain, len(rows)) * rows).min())


def _of_each_step(gain: Tensor, count: int) -> Tensor:
    """The least gain (b, t, c) of each of the steps (o); channels share steps."""
    return gain.amin((0, 1)).unflatten(0, (count, -1)).amin(1)


def _average(name: str, trace: Trace | None) -> list[Claim]:
    """How fast two initial states approach each other on the data, on average."""
    if trace is None or trace.length < SHORTEST:
        return []
    found = average_contraction(trace)
    values = (
        ("mean log decay, slowest state", found.exponent),
        ("its interval's upper end (95 %)", found.high),
        ("distance of two states, log per step", found.coupled),
    )
    return [Claim(name, what, "estimate", None, None, v, True, None) for what, v in values]


def _left(exponent: float | None) -> float | None:
    return None if exponent is None else math.exp(-exponent)


def _steps(exponent: float | None) -> float | None:
    if exponent is None:
        return None
    return math.inf if exponent <= 0 else -math.log(KEPT) / exponent


def _regression(
    name: str, layer: Any, s: Selection, ball: Ball, trace: Trace | None, size: float | None
) -> list[Claim]:
    """Longhorn: |h_T|^2 <= |h_0|^2 + 1/2 sum of beta x^2, so |h_T| <= sqrt(T / 2) sup |x|."""
    sup = float(inner_size(s, ball)[: s.inner].max())
    rate = sup * math.sqrt(0.5)
    grown = None if trace is None or size is None else size / math.sqrt(trace.length)
    growth = Claim(
        name, "|state| / sqrt(steps), at most", "certified", rate, None, grown, True, True
    )
    return [
        Claim(name, "decay of a step, at most", "certified", 1.0, None, None, True, True),
        bounded(growth, layer),
        *_average(name, trace),
    ]
