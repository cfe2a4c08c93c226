"""How the states of a layer forgot on some data: never, at once, or normally; and growing states.

For a selective layer from its trace, in float64 on the CPU; for a linear one from its eigenvalues.

Axes: b batch, t time, c channels, n state of a channel.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from longstate.memory._recording import widened
from longstate.memory._timescales import timescales
from longstate.systems._numbers import in_float64

_FROZEN = 1e-4  # a state is frozen if it never loses more than this share in a step
_EMPTY = 0.01  # a state is empty if it never keeps more than this share in a step
_GROWING = 1.8  # from half of a sequence to all of it, a sum grows by 2, its square root by 1.4
_ROOM = 1 << 24  # most numbers in the decays of the sequences that are traced at once


class Forgetting(NamedTuple):
    """How one layer forgot, over all calls.

    Attributes:
        layer: its name.
        step: smallest and largest step dt, the weight of an input in the state. None: linear.
        decay: smallest and largest factor of a state in one step.
        frozen: share of the states that never lost more than 1e-4 of their value in a step.
        empty: share of the states that never kept more than 1 % of their value in a step.
        size: largest |state|. None: linear.
        growth: largest |state| in the last eighth of a sequence over that in its first half; 1 or
            less means no growth. None if the sequence was shorter than 16 samples.
    """

    layer: str
    step: tuple[float, float] | None
    decay: tuple[float, float]
    frozen: float
    empty: float
    size: float | None
    growth: float | None

    def saturated(self) -> str:
        """The saturated states in words; empty if there are none."""
        found = []
        if self.frozen == 1:
            found.append("never forgets")
        if self.empty == 1:
            found.append("never remembers")
        if self.growth is not None and self.growth > _GROWING:
            found.append("grows")
        return ", ".join(found)


class Extremes:
    """Running extremes of one selective layer."""

    def __init__(self) -> None:
        self.low = self.high = torch.empty(0)
        self.step, self.size, self.growth = (math.inf, -math.inf), 0.0, -math.inf

    def add(self, trace: Any, mask: Tensor | None) -> None:
        there = torch.ones(trace.x.shape[:2], dtype=torch.bool) if mask is None else mask
        if not bool(there.any()):
            return
        decay, step = trace.decay[there], trace.gain[there]
        low, high = decay.amin(0), decay.amax(0)
        if trace.erase is not None:  # in the direction of writing, less is kept
            lost = trace.erase * trace.write.square().sum(-1)
            low = low - lost[there].amax(0)[:, None]
        first = not self.low.numel()
        self.low = low if first else torch.minimum(self.low, low)
        self.high = high if first else torch.maximum(self.high, high)
        self.step = (min(self.step[0], float(step.min())), max(self.step[1], float(step.max())))
        if mask is not None and not bool(mask.all()):
            return  # a trace ignores masks, so its states would be wrong
        size = trace.states().abs().amax((0, 2, 3))
        t = len(size)
        self.size = max(self.size, float(size.max()))
        if t >= 16:
            early, late = float(size[: t // 2].max()), float(size[-(t // 8) :].max())
            self.growth = max(self.growth, late / max(early, 1e-300))

    def summary(self, name: str) -> Forgetting:
        growth = None if self.growth == -math.inf else self.growth
        return Forgetting(
            name,
            self.step,
            (float(self.low.min()), float(self.high.max())),
            float((self.low > 1 - _FROZEN).double().mean()),
            float((self.high < _EMPTY).double().mean()),
            self.size,
            growth,
        )

    def read(self, layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Add a call of the layer, a few rows of the batch at a time."""
        u, state = args[0], args[1] if len(args) > 1 else kwargs.get("state")
        mask = kwargs.get("mask")
        wide = widened(layer)
        with torch.no_grad():
            u = in_float64(u)
            if mask is not None:
                mask = mask.cpu()
                u = u.masked_fill(~mask[..., None], 0)
            width = getattr(wide, "d_state", 16) * 4 * u.shape[-1]
            rows = max(1, _ROOM // max(1, u.shape[1] * width))
            for i in range(0, len(u), rows):
                at = None if mask is None else mask[i : i + rows]
                self.add(wide.trace(u[i : i + rows], _rows(state, i, i + rows)), at)


def _rows(state: Any, start: int, stop: int) -> Any:
    """Some rows of a state, in float64 on the CPU."""
    if state is None:
        return None
    return tree_map(
        lambda v: (
            (in_float64(v) if v.is_floating_point() else v.detach().cpu())[start:stop]
            if isinstance(v, Tensor)
            else v
        ),
        state,
    )


def of_linear(name: str, layer: Any) -> Forgetting:
    """`Forgetting` of a layer with a `system`."""
    with torch.no_grad():
        steps = timescales(widened(layer).system()).steps
    left = torch.exp(-1 / steps)
    return Forgetting(
        name,
        None,
        (float(left.min()), float(left.max())),
        float((left > 1 - _FROZEN).double().mean()),
        float((left < _EMPTY).double().mean()),
        None,
        None,
    )
