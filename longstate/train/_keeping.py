"""The checkpoint of a training: weights, moments, random state and position."""

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from longstate._facts import read
from longstate.errors import InputError
from longstate.layers import Layer
from longstate.models._saving import check_tensors, describe_layer, layer_maker
from longstate.train import _checkpoint as checkpoint
from longstate.train import _ranks as ranks
from longstate.train._history import Evaluated
from longstate.train._old_names import ADDED, FREE, renamed


@dataclass
class Progress:
    """The position of the run. All of it is in the checkpoint."""

    total: int
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    loss_count: int = 0
    best_step: int = 0
    best_loss: float = math.inf
    since_best: int = 0
    seconds: float = 0.0
    ended: str = ""
    looks: list[Evaluated] = field(default_factory=list)


@dataclass(frozen=True)
class TrainingFacts:
    """The description in a checkpoint: the identity of the run, a `Progress`, and those layers by
    name that became smaller in training, from `describe_layer`."""

    identity: dict[str, Any]
    progress: dict[str, Any]
    layers: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Keeping:
    """Where and how often checkpoints are written.

    Args:
        path: the checkpoint file; None writes nothing.
        identity: data and settings; a checkpoint with another identity is refused.
        seconds: time between checkpoints in an epoch. One is also written after each epoch.
    """

    path: Path | None = None
    identity: dict[str, Any] = field(default_factory=dict)
    seconds: float = 20.0


NOT_KEPT = Keeping()


class Saved:
    """A checkpoint that was read.

    Args:
        keeping: where it is, and the identity that it must have.

    Raises:
        InputError: it belongs to another run, or is damaged.
    """

    def __init__(self, keeping: Keeping):
        assert keeping.path is not None
        self.path = keeping.path
        self.tensors, raw = checkpoint.load(self.path, "training")
        self._facts = read(TrainingFacts, raw, f"the description in {self.path}")
        saved, now = renamed(self._facts.identity), renamed(keeping.identity)
        for name in (now | saved).keys() - FREE:
            theirs, ours = saved.get(name, ADDED.get(name)), now.get(name)
            name = name.replace("_", " ")
            if theirs != ours:
                raise InputError(
                    f"{self.path} belongs to another run: its {name} is {theirs}, here it is "
                    f"{ours}; choose another folder"
                )
        self.progress = read(Progress, self._facts.progress, f"the progress in {self.path}")

    def layers(self, model: nn.Module) -> dict[str, Layer]:
        """New layers of the sizes that those of these names had become in training."""
        found = {}
        for name, facts in self._facts.layers.items():
            if not isinstance(dict(model.named_modules()).get(name), Layer):
                raise InputError(f"{self.path} is damaged: its model has no layer {name}")
            found[name] = layer_maker(facts, f"the layer {name} in {self.path}")()
        return found

    def restore(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
        """Restore weights, moments and the random state; returns the best weights so far."""
        best = checkpoint.part(self.tensors, "best")
        check_tensors(best, model.state_dict(), self.path)
        checkpoint.restore(model, optimiser, self.tensors, self.path, ranks.rank())
        return best


def save(
    keeping: Keeping,
    progress: Progress,
    model: nn.Module,
    best: dict[str, Tensor],
    optimiser: torch.optim.Optimizer,
    changed: Iterable[str] = (),
) -> None:
    """Write a checkpoint: all ranks call it, and the first one writes.

    Args:
        best: the best weights so far.
        changed: names of the layers that became smaller in training.
    """
    if keeping.path is None:
        return
    tensors = {f"model/{k}": v for k, v in model.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    tensors |= checkpoint.pack_optimiser(optimiser)
    tensors |= checkpoint.pack_random(ranks.of_all(torch.get_rng_state()))
    if ranks.rank() == 0:
        facts: dict[str, Any] = {
            "identity": keeping.identity,
            "progress": dataclasses.asdict(progress),
            "layers": {name: describe_layer(layer_at(model, name)) for name in changed},
        }
        checkpoint.save(keeping.path, "training", tensors, facts)
    ranks.total(0.0)  # the others wait until the file is there


def layer_at(model: nn.Module, name: str) -> Layer:
    """The layer of that name."""
    layer = model.get_submodule(name)
    assert isinstance(layer, Layer)
    return layer
