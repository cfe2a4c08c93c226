"""What a model can never do, whatever it reads: proved, attacked, and seen.

For every layer that mixes along time, claims with up to three numbers side by side: what is
certified for all inputs, what an attack on the layer found, and what was seen on data. They must
come in this order, and every run asserts it. A layer behind a norm is certified for everything that
the norm lets through, so for every text and every weight before it.

A model that has learned to hold a value has, by design, inputs that freeze its state: contraction
and memory are one quantity with opposite signs. Read the certificate as boundedness, guaranteed
non-expansion and how long the layer can possibly retain, not as a margin.

Axes: o steps (channels or heads), n state of a channel.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from longstate.errors import InputError
from longstate.memory._certificate import Certificate, Claim
from longstate.memory._contraction import SHORTEST, average_contraction
from longstate.memory._gains import gains
from longstate.memory._recording import Data, layers_of, record, widened
from longstate.memory._selective_bounds import (
    Ball,
    decay,
    inner_size,
    state_size,
    steps,
)
from longstate.memory._selective_bounds import attack as smallest_found
from longstate.memory._threshold import event_threshold
from longstate.memory._timescales import eigenvalues
from longstate.systems import Trace

_KEPT = 0.01  # of a state; what is left when it counts as forgotten


def certify(
    model: nn.Module,
    data: Data | None = None,
    *,
    attack: bool = True,
    radius: float | None = None,
    progress: Callable[[str], None] | None = None,
) -> Certificate:
    """Certify every layer of a model.

    Args:
        model: a layer, a backbone or a model. Layers are found by their `system` or `selection`; a
            block with `norm` and `mixer` says what reaches its layer.
        data: one input of the model, for the third number: tokens (b, t), or u (b, t, d). Or a
            function without arguments that runs the model on what it likes.
        attack: search for bad inputs, for the second number.
        radius: length of u, for selective layers that neither LayerNorm nor RMSNorm precedes.
        progress: called with each layer's name before it is certified.

    Raises:
        InputError: no layer can be certified, a selective layer has neither norm nor radius, a
            weight is not finite, or an adapter adds to a layer what its weights do not show.
    """
    found = list(layers_of(model))
    if not found:
        raise InputError(
            f"this {type(model).__name__} has no layer that can be certified: none has a system() "
            "or a selection()"
        )
    for name, value in model.state_dict().items():
        if isinstance(value, Tensor) and not bool(value.isfinite().all()):
            raise InputError(f"{name} holds NaN or infinity; nothing can be certified of it")
    seen = {} if data is None else record(model, data)
    claims: list[Claim] = []
    for name, layer, norm in found:
        if progress is not None:
            progress(name)
        _check_parts(name, layer)
        if hasattr(layer, "system"):
            claims += _linear(name, layer)
        else:
            ball = _ball(name, layer, norm, radius)
            claims += _selective(name, layer, ball, seen.get(name), attack)
    for claim in claims:
        assert claim.ordered(), f"a bound is wrong: {claim}"
    failed = [c for c in claims if c.holds is False]
    return Certificate(
        kind="certified",
        scope="all inputs",
        sentence=(
            f"No layer, of {len(found)}, can expand a state, whatever the input."
            if not failed
            else f"{len({c.layer for c in failed})} of {len(found)} layers fail a claim; first "
            f"{failed[0].layer}: {failed[0].what}."
        ),
        claims=tuple(claims),
    )


def _check_parts(name: str, layer: nn.Module) -> None:
    """Constants are read off weights: whatever else computes inside a layer would go unseen."""
    if not type(layer).__module__.startswith("longstate."):
        return  # it is its author's to say what it does
    for part, module in layer.named_modules():
        home = type(module).__module__
        if not home.startswith(("torch.nn.", "longstate.")):
            raise InputError(
                f"{name}.{part} is a {type(module).__name__} of {home.split('.')[0]}; merge it "
                "into the layer before that is certified (PEFT: merge_and_unload)"
            )


def _limits(norm: nn.Module, d: int) -> bool:
    """Whether this norm is known to put out weight * z + bias with |z| <= sqrt(d)."""
    if isinstance(norm, nn.LayerNorm):
        return norm.normalized_shape == (d,)
    weight = getattr(norm, "weight", None)
    return type(norm).__name__.endswith("RMSNorm") and (weight is None or weight.shape == (d,))


def _ball(name: str, layer: Any, norm: nn.Module | None, radius: float | None) -> Ball:
    d = layer.d_model
    one, zero = torch.ones(d, dtype=torch.float64), torch.zeros(d, dtype=torch.float64)
    if norm is None or not _limits(norm, d):
        if radius is None:
            what = "no norm" if norm is None else f"no norm but a {type(norm).__name__}"
            raise InputError(
                f"{what} comes before {name}, so that its input has no limit; pass radius=, the "
                "largest length that one sample's input can have"
            )
        return Ball(one, zero, radius)
    weight, bias = getattr(norm, "weight", None), getattr(norm, "bias", None)
    return Ball(
        one if weight is None else weight.detach().double().cpu(),
        zero if bias is None else bias.detach().double().cpu(),
        math.sqrt(d),
    )


def _linear(name: str, layer: Any) -> list[Claim]:
    system = widened(layer).system()
    size = float(eigenvalues(system).abs().max())
    stable, lost = size < 1, _steps(-math.log(size) if size > 0 else math.inf)
    claims = [
        Claim(name, "largest |eigenvalue|", "exact", size, None, None, True, stable),
        Claim(name, "steps until 1 % is left, at most", "exact", lost, None, None, True, None),
    ]
    if not stable:
        return claims
    g = gains(system)
    worst = int(g.h_infinity.flatten().argmax())
    high, low = (float(v.flatten()[worst]) for v in (g.h_infinity, g.h_infinity_below))
    l1, u = float(g.l1.max()), float(event_threshold(system).ratio.min())
    return [
        *claims,
        Claim(name, "gain of energy (H-infinity)", "certified", high, low, None, True, True),
        Claim(name, "gain of white noise (H2)", "exact", float(g.h2.max()), None, None, True, None),
        Claim(name, "gain of amplitude (l1)", "upper_bound", l1, None, None, True, True),
        Claim(
            name, "|u| / |state| that cannot make it grow", "certified", u, None, None, False, None
        ),
    ]


def _selective(name: str, layer: Any, ball: Ball, trace: Trace | None, attack: bool) -> list[Claim]:
    s = widened(layer).selection()
    size = None if trace is None else float(trace.states().abs().max())
    if s.rate is None:
        return _regression(name, s, ball, trace, size)
    step = steps(s, ball)
    rows = s.rate.amin(1)
    found = smallest_found(s, ball) if attack else None
    seen = None if trace is None or s.floor else _of_each_step(trace.gain, step.low)
    if found is not None and seen is not None:
        found = torch.minimum(found, seen)
    assert found is None or bool((step.low <= found * (1 + 1e-9)).all()), name
    e = _least(step.low * rows), _least(found, rows), _least(seen, rows)
    if trace is not None and s.floor:  # of each rate only the least is known, so it is read off
        lost = float(-trace.decay.clamp(min=1e-300).log().max())
        e = *e[:2], lost + torch.finfo(torch.float64).eps
    bound = float(state_size(s, ball).max())
    slow = bool((decay(s, step.low) <= 1).all())
    return [
        Claim(
            name, "step dt, at least", "certified", _least(step.low), _least(found), _least(seen),
            False, None,
        ),
        Claim(name, "decay exponent of a step, at least", "certified", *e, False, None),
        Claim(
            name, "decay of a step, at most", "certified", _left(e[0]), _left(e[1]), _left(e[2]),
            True, slow,
        ),
        Claim(
            name, "steps until 1 % is left, at most", "certified", _steps(e[0]), _steps(e[1]),
            _steps(e[2]), True, None,
        ),
        Claim(name, "|state|, at most", "certified", bound, None, size, True, math.isfinite(bound)),
        *_average(name, trace),
    ]  # fmt: skip


def _of_each_step(gain: Tensor, step: Tensor) -> Tensor:
    """The least of a gain (b, t, c) of each of the steps (o) that channels share."""
    return gain.amin((0, 1)).unflatten(0, (len(step), -1)).amin(1)


def _least(step: Tensor | None, rate: Tensor | None = None) -> float | None:
    if step is None:
        return None
    return float((step if rate is None else step * rate).min())


def _average(name: str, trace: Trace | None) -> list[Claim]:
    """How fast two starts meet on the data: an average, which one input cannot spoil."""
    if trace is None or trace.length < SHORTEST:
        return []
    found = average_contraction(trace)
    rates = (
        ("mean log decay, slowest state", found.exponent),
        ("its interval's upper end (95 %)", found.high),
        ("two starts approach, log per step", found.coupled),
    )
    return [Claim(name, what, "estimate", None, None, rate, True, None) for what, rate in rates]


def _left(exponent: float | None) -> float | None:
    return None if exponent is None else math.exp(-exponent)


def _steps(exponent: float | None) -> float | None:
    if exponent is None:
        return None
    return math.inf if exponent <= 0 else -math.log(_KEPT) / exponent


def _regression(
    name: str, s: Any, ball: Ball, trace: Trace | None, size: float | None
) -> list[Claim]:
    """Longhorn: |h_T|^2 <= |h_0|^2 + 1/2 sum of beta x^2, so |h_T| <= sqrt(T / 2) sup |x|."""
    sup = float(inner_size(s, ball)[: s.inner].max())
    rate = sup * math.sqrt(0.5)
    grown = None if trace is None or size is None else size / math.sqrt(trace.length)
    return [
        Claim(name, "decay of a step, at most", "certified", 1.0, None, None, True, True),
        Claim(name, "|state| / sqrt(steps), at most", "certified", rate, None, grown, True, True),
        *_average(name, trace),
    ]
