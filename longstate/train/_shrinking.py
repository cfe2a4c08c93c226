"""Training with layers that become smaller on the way: the optimiser's part.

`longstate.compress.Shrinking` chooses the smaller layers. Parameters that it leaves as they are
keep their moments; those of the smaller states begin with new ones.
"""

from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor, nn

from longstate.layers import Layer
from longstate.models._exchange import exchange
from longstate.train._optim import make_optimiser
from longstate.train._settings import Training

Run = Callable[[], object]


class Shrinking(Protocol):
    """What chooses the smaller layers; see `longstate.compress.Shrinking`."""

    def begin(self, model: nn.Module, run: Run) -> None: ...

    def layers(self, model: nn.Module, done: float, run: Run) -> dict[str, Layer]: ...


def shrinking_of(settings: Training) -> Shrinking | None:
    """What makes the layers of a training smaller; None if nothing is to."""
    if settings.shrink_to is None:
        return None
    import longstate  # `longstate.compress` is above this package, so it is loaded on use

    shrinking: Shrinking = longstate.compress.Shrinking(settings.shrink_to)
    return shrinking


def put_layers(
    model: nn.Module,
    layers: Mapping[str, Layer],
    optimiser: torch.optim.Optimizer,
    settings: Training,
) -> torch.optim.Optimizer:
    """Put smaller layers into a model; returns an optimiser of its parameters."""
    before = dict(model.named_parameters())
    exchange(model, layers)
    new = make_optimiser(model, settings)
    for name, parameter in model.named_parameters():
        old = before.get(name)
        if old is not None and old in optimiser.state and _equal(old, parameter):
            new.state[parameter] = optimiser.state[old]
    return new


def _equal(a: Tensor, b: Tensor) -> bool:
    return a is b or (a.shape == b.shape and torch.equal(a, b))
