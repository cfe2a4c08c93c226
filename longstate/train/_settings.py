"""Settings of models and training. Nothing heavy is imported, so that `--help` is fast.

The command line has an option for every field here, with the text of its docstring.
"""

import math
from dataclasses import dataclass, field, fields
from typing import Any

from longstate.errors import SEEDS, InputError, expect_whole


@dataclass(frozen=True)
class Execution:
    """How the steps of a training are computed: on several processes, in less memory or faster.

    Args:
        parallel: Under torchrun, `ddp` (every process has the whole model) or `fsdp` (each trains a
            part of it). batch_size counts the windows of all processes.
        accumulate: Parts of a process's windows in each step, one after the other, to save memory.
        dtype: Type of the numbers in matrix products of training, `float32` or `bfloat16`. Weights,
            moments and states of layers are float32. bfloat16 is faster where processors have it.
        segment: Samples or tokens that pass through all blocks together, to save memory: the
            backward pass runs each segment again. All of a window if not given.

    Raises:
        InputError: a value is out of its range.
    """

    parallel: str = field(default="ddp", kw_only=True)
    accumulate: int = field(default=1, kw_only=True)
    dtype: str = field(default="float32", kw_only=True)
    segment: int | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _one_of(self, "parallel", "ddp", "fsdp")
        _one_of(self, "dtype", "float32", "bfloat16")
        _counts(self, "accumulate", "segment")


def execution_of(settings: Execution) -> dict[str, Any]:
    """The fields of `Execution` by name."""
    return {f.name: getattr(settings, f.name) for f in fields(Execution)}


@dataclass(frozen=True)
class Training(Execution):
    """Settings of the training of a forecaster, beside those of `Execution`.

    Args:
        epochs: Passes over the training windows, at most.
        minutes: Time for training, at most. Results of such a run cannot be repeated exactly.
        batch_size: Windows per step.
        windows_per_epoch: Windows of one epoch, at most; drawn again for each epoch.
        learning_rate: Highest learning rate, for all parameters but the layers' dynamics.
        dynamics_rate: Highest learning rate of the layers' decays, frequencies and step sizes.
        weight_decay: Weight decay of the weight matrices.
        patience: Stop after this many epochs without a better validation loss.
        state_budget: Weight of a penalty on the size of the layers' states, so that they can be
            reduced after training; 0 for none, 0.01 to begin with.
        shrink_to: Share of the layers' states to keep: they are truncated step by step during the
            first half of the training. Not at all if not given.

    Raises:
        InputError: a value is out of its range.
    """

    epochs: int = 20
    minutes: float | None = None
    batch_size: int = 64
    windows_per_epoch: int = 2048
    learning_rate: float = 2e-3
    dynamics_rate: float = 1e-3
    weight_decay: float = 0.01
    patience: int = 4
    state_budget: float = 0.0
    shrink_to: float | None = None

    def __post_init__(self) -> None:
        _counts(self, "epochs", "batch_size", "windows_per_epoch", "patience")
        super().__post_init__()
        _positive(self, "minutes", "learning_rate", "dynamics_rate")
        _not_negative(self, "weight_decay", "state_budget")
        _share(self, "shrink_to")


@dataclass(frozen=True)
class Size:
    """Size of a forecaster's state space model.

    Args:
        d_model: Channels between the blocks.
        n_layers: Number of blocks.
        d_state: States of each layer.
        dropout: Share of each block's output that is set to zero in training.

    Raises:
        InputError: a value is out of its range.
    """

    d_model: int = 32
    n_layers: int = 2
    d_state: int = 64
    dropout: float = 0.1

    def __post_init__(self) -> None:
        _counts(self, "d_model", "n_layers", "d_state")
        if not 0 <= self.dropout < 1:
            raise InputError(f"dropout must be at least 0 and below 1; got {self.dropout!r}")


@dataclass(frozen=True)
class TextTraining(Execution):
    """Settings of the training of a language model, beside those of `Execution`.

    Args:
        batch_size: Windows per step.
        steps: Steps of the optimiser; 800 if neither steps, epochs nor minutes are given.
        epochs: Passes over the training text, instead of steps.
        minutes: Time for training, at most. If the time ends the training first, the learning rate
            follows the time.
        learning_rate: Highest learning rate.
        dynamics_rate: Highest learning rate of the layers' decays, frequencies and step sizes; the
            smaller of 0.001 and the learning rate if not given.
        weight_decay: Weight decay of the weight matrices.
        state_budget: Weight of a penalty on the size of the layers' states, so that they can be
            reduced after training; 0 for none, 0.01 to begin with.
        shrink_to: Share of the layers' states to keep: they are truncated step by step during the
            first half of the training. Not at all if not given.

    Raises:
        InputError: a value is out of its range.
    """

    batch_size: int = 2
    steps: int | None = None
    epochs: float | None = None
    minutes: float | None = None
    learning_rate: float = 3e-3
    dynamics_rate: float | None = None
    weight_decay: float = 0.1
    state_budget: float = 0.0
    shrink_to: float | None = None

    def __post_init__(self) -> None:
        _counts(self, "batch_size", "steps")
        super().__post_init__()
        _positive(self, "epochs", "minutes", "learning_rate", "dynamics_rate")
        _not_negative(self, "weight_decay", "state_budget")
        _share(self, "shrink_to")
        if self.steps is not None and self.epochs is not None:
            raise InputError("give steps or epochs, not both")


def _one_of(settings: object, name: str, first: str, second: str) -> None:
    value = getattr(settings, name)
    if value not in (first, second):
        raise InputError(f"{name} must be {first!r} or {second!r}; got {value!r}")


_MOST = {
    "d_model": 10**6, "d_state": 10**6, "n_layers": 1000, "batch_size": 2**16, "epochs": 10**6,
}  # fmt: skip


def _counts(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            expect_whole(name, value, most=_MOST.get(name, 10**9))


def check_sizes(**sizes: object) -> None:
    """Refuse sizes of a model that no training could use; those of `Size`, `context` and `seed`.

    Raises:
        InputError: names the first one.
    """
    for name, value in sizes.items():
        if name == "seed":
            expect_whole(name, value, 0, SEEDS - 1)
        elif value is not None:
            expect_whole(name, value, most=_MOST.get(name, 10**9))


def _positive(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise InputError(f"{name} must be a number above 0; got {value!r}")


def _share(settings: object, name: str) -> None:
    value = getattr(settings, name)
    if value is not None and not 0 < value < 1:
        raise InputError(f"{name} must be a number above 0 and below 1; got {value!r}")


def _not_negative(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value < math.inf:
            raise InputError(f"{name} must be a number of at least 0; got {value!r}")
