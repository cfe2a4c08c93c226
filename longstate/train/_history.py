"""The history of a training run, a frozen dataclass."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Evaluated:
    """One evaluation on the validation part.

    Args:
        step: number of optimiser steps. Step 0 is the model before training: its line.
        epoch: passes over the training windows so far, a fraction.
        train_loss: mean training loss since the last evaluation; nan at step 0.
        validation_loss: loss that early stopping uses.
    """

    step: int
    epoch: float
    train_loss: float
    validation_loss: float


@dataclass(frozen=True)
class TrainingHistory:
    """All evaluations on the validation part, and how the run ended.

    Args:
        looks: the evaluations, in order.
        best_step: the step whose weights were kept.
        ended: "finished", "no progress" (early stopping), "out of time" or "interrupted".
        seconds: total time of all resumed parts.
    """

    looks: tuple[Evaluated, ...]
    best_step: int
    ended: str
    seconds: float
