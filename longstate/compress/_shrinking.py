"""Truncation while training: the states become smaller step by step, and training goes on.

This is the idea of CompreSSM (Hankel singular values found early in training tell which states will
not be needed), for all layers that `reduce` knows: balanced truncation of linear layers, balanced
projections or dropped columns of selective ones. Here the final size is given, not a tolerance.
With s the share of the training that is over, the states of all layers together keep

    share(s) = to^min(1, 2 s)

of their bytes, distributed over the layers as `reduce` does. A truncation costs less early, when
much of the training is left to mend it, and the steps afterwards cost less.

That training mends the truncations is a heuristic; the loss after each of them is measured.
"""

from collections.abc import Callable
from typing import Any

from torch import nn

from longstate.compress._allocate import sensitivities, spend
from longstate.compress._plan import Plan
from longstate.compress._reduce import plans_of
from longstate.errors import InputError
from longstate.layers import Layer

UNTIL = 0.5
"""Share of the training after which the final size is reached."""
_LEAST = 0.05  # share of the present bytes that a truncation before the last must save

Run = Callable[[], object]


class Shrinking:
    """Chooses smaller layers for a model in training.

    Args:
        to: share of the bytes of the recurrences' states to keep in the end.

    Raises:
        InputError: it is no share.
    """

    def __init__(self, to: float):
        if not 0 < to < 1:
            raise InputError(f"to must be above 0 and below 1; got {to}")
        self.to = to
        self._whole = 0

    def begin(self, model: nn.Module, run: Run) -> None:
        """Take the size of a model before its training.

        Args:
            model: the model.
            run: lets the model read some of its training data.

        Raises:
            InputError: no layer of the model can become smaller.
        """
        self._whole = _bytes(_plans(model, run))

    def layers(self, model: nn.Module, done: float, run: Run) -> dict[str, Layer]:
        """The smaller layers by name, for the model to have from now on; often none.

        Args:
            model: the model as it is trained so far. It is not changed.
            done: share of the training that is over.
            run: see `begin`.
        """
        plans = _plans(model, run)
        now, room = _bytes(plans), self._whole * self.to ** min(1.0, done / UNTIL)
        if now <= room or (done < UNTIL and now - room < _LEAST * now):
            return {}
        weights = sensitivities(model, plans, run) if len(plans) > 1 else [1.0]
        sizes = spend(plans, weights, room)
        return {p.name: _draft(p, r) for p, r in zip(plans, sizes, strict=True) if r < p.full}


def _plans(model: nn.Module, run: Run) -> list[Plan]:
    plans, rows = plans_of(model, [run], "auto")
    if not plans:
        why = next(
            (row.note for row in rows.values() if row.note), "it has none that `reduce` knows"
        )
        raise InputError(f"no layer of this model can become smaller in training: {why}")
    return plans


def _bytes(plans: list[Plan]) -> int:
    return sum(plan.full * plan.unit for plan in plans)


def _draft(plan: Plan, r: int) -> Layer:
    """A layer with r units, or with the next number that it can have."""
    while r < plan.full:
        try:
            made: Any = plan.draft(r)
            return made.train(plan.layer.training)
        except InputError:
            r += 1
    return plan.layer
