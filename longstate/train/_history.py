"""What a training run did, as one frozen value."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluated:
    """One look at the validation part.

    Args:
        step: optimiser steps taken so far. Step 0 is the model before training: its line.
        epoch: passes over the training windows so far, a fraction.
        train_loss: mean training loss since the last look; nan at step 0.
        validation_loss: what early stopping watches.
    """

    step: int
    epoch: float
    train_loss: float
    validation_loss: float


@dataclass(frozen=True)
class TrainingHistory:
    """Every look at the validation part, and how the run ended.

    Args:
        looks: in order.
        best_step: the step whose weights were kept.
        ended: "finished", "no progress" (early stopping), "out of time" or "interrupted".
        seconds: time spent, over all resumed parts.
    """

    looks: tuple[Evaluated, ...]
    best_step: int
    ended: str
    seconds: float
