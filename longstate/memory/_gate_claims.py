"""Claims about a linear recurrence with a gate, for all possible outputs of the norm before it.

One step of entry i is h -> (1 - g (1 - A)) h + g (B u), with a gate g that does not depend on h.
So a step multiplies the distance of two states by at most 1 - g_min (1 - A), and if every gate has
a positive lower bound and A < 1, all starts are forgotten at that rate. A bound on the gate's
Lipschitz constant says nothing about this; `longstate.memory.gate_contraction` has the condition
for gates that do depend on h.

The new entry is a weighted mean of the old one and B u / (1 - A), for every gate and every time
between samples. So from a zero state |h| is at most the largest |B u| / (1 - A).

The gate is a monotone function of a linear one: its extremes on the ball are closed forms, and
reached. An attack replays them, and does not search.

Axes: d model channels, n state, m inputs.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.memory._certificate import Claim
from longstate.memory._limits import bounded
from longstate.memory._linear_claims import KEPT
from longstate.memory._recording import Recorded
from longstate.memory._selective_bounds import Ball, _on_ball
from longstate.systems import GateSelection, Trace

_LONG = 4096  # samples of an attack on the size of a state, at most


class Worst(NamedTuple):
    """The largest value found, and the input (k, d) from a zero state that has it."""

    value: float
    inputs: Tensor


def least_gate(s: GateSelection, ball: Ball) -> Tensor:
    """Certified lower bound of every gate (n), as the decay sees it."""
    if s.hard:  # an entry that is not chosen
        return torch.full_like(s.shift, s.floor)
    return s.floor + (1 - s.floor) * (s.shift + _on_ball(s.gate, ball).low).sigmoid()


def most_written(s: GateSelection, ball: Ball) -> Tensor:
    """Certified upper bound of |h| (n) from a zero state, for all lengths and times."""
    into = _on_ball(s.into, ball)
    return torch.maximum(into.low.abs(), into.high.abs()) / s.lost


def gate_claims(
    name: str,
    layer: Any,
    s: GateSelection,
    ball: Ball,
    data: Recorded | None,
    *,
    attacked: bool,
    dt: tuple[float, float],
) -> list[Claim]:
    """Claims about a layer with a `GateSelection`; arguments as of `selective_claims`."""
    trace = None if data is None or not dt[0] <= 1 <= dt[1] else data.trace
    least = least_gate(s, ball)
    kept = float((1 - least * s.lost).amax()) ** dt[0]
    bound = float(most_written(s, ball).max())
    decay = size = None
    if attacked:
        decay, size = _attack(layer, s, ball, data)
    found = None if decay is None else decay.value ** dt[0]
    seen = None if trace is None else float(trace.decay.max())
    largest = None if trace is None else float(trace.states().abs().max())
    note = "some input keeps an entry for ever" if kept >= 1 else ""
    at = None if decay is None else decay.inputs
    grown = None if size is None else size.value
    return [
        Claim(
            name, "gate, at least", "certified", float(least.min()), None,
            None if trace is None else _least_seen(trace, s), False, None,
        ),
        Claim(
            name, "decay of a step, at most", "certified", kept, found, seen, True, kept <= 1,
            note, at,
        ),
        Claim(
            name, "steps until 1 % is left, at most", "certified", _steps(kept),
            None if found is None else _steps(found), None if seen is None else _steps(seen),
            True, None, "", at,
        ),
        bounded(
            Claim(
                name, "|state|, at most", "certified", bound, grown, largest, True, True, "",
                None if size is None else size.inputs,
            ),
            layer,
        ),
    ]  # fmt: skip


def _steps(kept: float) -> float:
    if kept >= 1:
        return math.inf
    return 1.0 if kept <= 0 else max(1.0, math.log(KEPT) / math.log(kept))


def _least_seen(trace: Trace, s: GateSelection) -> float:
    return float(((1 - trace.decay[..., 0]) / s.lost).min())


def _attack(layer: Any, s: GateSelection, ball: Ball, data: Recorded | None) -> tuple[Worst, Worst]:
    """The weakest decay and the largest state that the layer itself shows on inputs of the ball."""
    closed = _edge(-s.gate, ball)
    tried = [closed] if data is None else [closed, data.inputs.flatten(0, 1)]
    decay = Worst(-math.inf, closed[:1])
    with torch.no_grad():
        for inputs in tried:
            left = layer.trace(inputs[:, None]).decay.amax((1, 2, 3))
            worst = int(left.argmax())
            if float(left[worst]) > decay.value:
                decay = Worst(float(left[worst]), inputs[worst : worst + 1])
        i = int(most_written(s, ball).argmax())
        ends = torch.cat([_edge(sign * s.into[i : i + 1], ball) for sign in (1, -1)])
        size = Worst(-math.inf, ends[:1])
        for u in ends:
            left_over = float(layer.trace(u[None, None]).decay[0, 0, i, 0])
            length = max(1, math.ceil(-40 / math.log(min(max(left_over, 1e-17), 1 - 1e-9))))
            steady = u.expand(1, min(length, _LONG), -1)
            states = layer.trace(steady).states()[0, :, :, 0].abs().amax(1)
            if float(states.max()) > size.value:
                size = Worst(float(states.max()), u.expand(int(states.argmax()) + 1, -1))
        if data is not None:
            states = data.trace.states().abs().amax((2, 3))
            row, t = divmod(int(states.argmax()), states.shape[1])
            if float(states[row, t]) > size.value:
                size = Worst(float(states[row, t]), data.inputs[row, : t + 1])
    return decay, size


def _edge(W: Tensor, ball: Ball) -> Tensor:
    """Inputs (m, d) of the ball with the largest W u, one for each row of W (m, d)."""
    return ball.radius * F.normalize(W * ball.weight, dim=-1) * ball.weight + ball.bias
