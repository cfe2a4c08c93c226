"""The size of the state against a metric of the task, for several kept shares of the state."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from longstate._numbers import number
from longstate.compress import _models as models
from longstate.compress._allocate import even
from longstate.compress._data import Given, batches_of, exchanged
from longstate.compress._plan import Plan, state_bytes
from longstate.compress._reduce import plans_of
from longstate.compress._report import Method
from longstate.errors import InputError
from longstate.layers import Layer
from longstate.memory import Result
from longstate.memory._plot import draw
from longstate.memory._recording import find_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHARES = (1.0, 0.75, 0.5, 0.375, 0.25, 0.125, 0.0625)


class SizePoint(NamedTuple):
    """One kept share.

    Attributes:
        keep: share of the units of every layer.
        bytes: of the states of one sequence, taps and the like included.
        metric: of the model with these layers.
    """

    keep: float
    bytes: int
    metric: float


@dataclass(frozen=True, eq=False, kw_only=True)
class SizeCurve(Result):
    """Sizes of the state against a metric.

    Args:
        points: from the whole model to the smallest state.
        left_out: shares for which the time was too short.
    """

    points: tuple[SizePoint, ...]
    left_out: tuple[float, ...] = ()

    def rows(self) -> tuple[list[str], list[list[str]]]:
        body = [[f"{p.keep:g}", f"{p.bytes:,}", number(p.metric)] for p in self.points]
        return ["kept", "bytes", "metric"], body

    def to_dict(self) -> dict[str, Any]:
        points = [p._asdict() for p in self.points]
        return {**super().to_dict(), "points": points}

    def plot(self) -> "Figure":
        def paint(ax: Any) -> None:
            ax.plot([p.bytes for p in self.points], [p.metric for p in self.points], "o-")
            ax.set_xscale("log")

        return draw(self, "Size of the state", "bytes of a state", "metric", paint, wide=True)


def size_curve(
    model: Any,
    metric: Callable[[Any], float],
    data: Given | None = None,
    *,
    shares: Sequence[float] = SHARES,
    seconds: float = 30.0,
    method: Method = "auto",
) -> SizeCurve:
    """Reduce all layers to smaller and smaller shares, and measure what the model can still do.

    Each layer keeps the same share of its units, without refinement, error bounds and healing,
    which `reduce` adds: so a share takes seconds.

    Args:
        model: as for `reduce`. Its layers are exchanged while it is measured, and put back.
        metric: of `model`, with other layers in it.
        data: as for `reduce`; selective layers need it.
        shares: of the state, from large to small. The first is always measured.
        seconds: no share is begun that would probably end after this time.
        method: see `METHODS`.

    Raises:
        InputError: see `reduce`.
    """
    module, begun, last = models.inner(model), time.monotonic(), 0.0
    plans, _ = plans_of(module, batches_of(models.input_of(model, data)), method)
    if not plans:
        raise InputError(f"this {type(module).__name__} has no layer whose state can be smaller")
    fixed = sum(state_bytes(f.layer) for f in find_layers(module))
    fixed -= sum(state_bytes(p.layer) for p in plans)
    points: list[SizePoint] = []
    for keep in shares:
        now = time.monotonic()
        if points and now - begun + last > seconds:
            break
        layers = {p.name: _draft(p, r) for p, r in zip(plans, even(plans, keep), strict=True)}
        with torch.no_grad():
            if plans[0].layer is module:
                value = float(metric(layers[plans[0].name]))
            else:
                with exchanged(module, layers):
                    value = float(metric(model))
        size = fixed + sum(map(state_bytes, layers.values()))
        points.append(SizePoint(keep, size, value))
        last = time.monotonic() - now
    whole, small = points[0], points[-1]
    return SizeCurve(
        kind="exact",
        scope="this data and metric; equal shares, without refinement and healing",
        sentence=f"With {whole.bytes:,} bytes the metric is {number(whole.metric)}, with "
        f"{small.bytes:,} bytes {number(small.metric)}.",
        points=tuple(points),
        left_out=tuple(shares[len(points) :]),
    )


def _draft(plan: Plan, r: int) -> Layer:
    """With r units, or the next number that the layer can hold."""
    for size in range(r, plan.full):
        try:
            return plan.draft(size)
        except InputError:
            continue
    whole: Layer = plan.layer
    return whole
