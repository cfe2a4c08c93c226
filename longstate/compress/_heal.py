"""Healing: training a reduced model towards the outputs of the whole one.

Only outputs are compared, labels are not used. The loss is that of `distance`: of a language model
the Kullback-Leibler divergence of the next token, of any other the energy of the difference as a
share. All parameters of the reduced model that were trainable learn, with AdamW and a low rate;
layers keep their kind, because only the values of their parameters change.

A part of the data is held out. The weights that do best there are returned, those before the
healing among them: on that part healing never makes a model worse. That also holds if it stops
because a loss is not finite.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from longstate.compress import _models as models
from longstate.compress._calls import Call, Rows, answers, calls_of, tensors_of
from longstate.compress._data import Given, apart, batches_of, nats
from longstate.compress._report import Healing
from longstate.errors import InputError
from longstate.models import LanguageModel
from longstate.train import Progress, Training
from longstate.train._diagnose import NotFiniteError
from longstate.train._loop import train

RATE, DYNAMICS_RATE = 5e-4, 1e-4  # a quarter and a tenth of those of a training
EPOCHS = 1000  # of at most `_LOOK` steps
PATIENCE = 5  # evaluations without a better value before it ends
_HELD_OUT = 8  # one row of so many is held out
_MOST_HELD_OUT = 256
_LOOK = 50  # steps between evaluations, at most
_ROWS, _TOKENS = 32, 4096  # of a step, at most


class Healed(NamedTuple):
    """What `heal` returns: something of the kind that it was given, and what it did."""

    model: Any
    healing: Healing


def heal(
    small: Any,
    model: Any,
    data: Given,
    *,
    minutes: float,
    seed: int = 0,
    show: Callable[[Progress], None] | None = None,
) -> Healed:
    """Train a reduced model towards the outputs of the whole one, and return a better copy.

        better, healing = heal(small, model, tokens, minutes=5)

    Ctrl-C ends it early with the best weights so far, and so does a loss that is not finite; the
    report says why. It ends by itself when the held-out part stops improving.

    Args:
        small: what `reduce` made of `model`. It is not changed.
        model: the whole one.
        data: as for `reduce`, at least two sequences. The last eighth is held out. More data
            than a reduction needs is useful here: the text that the model was trained on.
        minutes: time, at most.
        seed: of the order of the data.
        show: called after each step, with an estimate of the number of steps.

    Raises:
        InputError: minutes is not above 0, or there are fewer than two sequences.
    """
    check_minutes(minutes)
    teacher, student = models.inner(model), copy.deepcopy(models.inner(small))
    batches = batches_of(models.input_of(model, data))
    task = _Distillation(teacher, student, Rows(calls_of(teacher, batches)), seed)
    settings = Training(
        epochs=EPOCHS, minutes=minutes, batch_size=task.size, learning_rate=RATE,
        dynamics_rate=DYNAMICS_RATE, weight_decay=0.0, patience=PATIENCE,
    )  # fmt: skip
    before = task.score(teacher)
    task.loss(task.epoch(0)[0]).backward()  # compiles kernels, which takes no time of the healing
    task.steps = 0
    end = _train(task, settings, seed, None if show is None else estimated(show, minutes))
    healing = Healing(
        metric=task.metric,
        before=before,
        reduced=end.losses[0],
        healed=min(end.losses),
        held_out=sum(map(len, task.held_out)),
        steps=end.steps,
        seconds=end.seconds,
        ended=end.ended,
        why=end.why,
    )
    return Healed(models.outer(small, student.eval()), healing)


class _End(NamedTuple):
    """How a training ended. `losses`: on the part held out, at least one; else as in `Healing`."""

    losses: list[float]
    steps: int
    seconds: float
    ended: str
    why: str = ""


def _train(
    task: "_Distillation",
    settings: Training,
    seed: int,
    show: Callable[[Progress], None] | None,
) -> _End:
    """Train the student."""
    started, losses = time.monotonic(), []

    def looked(progress: Progress) -> None:
        losses.append(progress.looks[-1].validation_loss)

    try:
        history = train(task, settings, seed=seed, show=show, looked=looked)
    except NotFiniteError as e:
        seconds = time.monotonic() - started
        return _End(losses or [math.nan], e.step, seconds, "not finite", e.where)
    return _End(losses, task.steps, history.seconds, history.ended)


def check_minutes(minutes: float) -> None:
    """Refuse a time that is no time, before any work is done.

    Raises:
        InputError: it is not above 0.
    """
    if not 0 < minutes < math.inf:
        raise InputError(f"minutes of healing must be above 0; got {minutes}")


def estimated(show: Callable[[Progress], None], minutes: float) -> Callable[[Progress], None]:
    """`show` with the number of steps that fit into the time, in place of the most there can be."""

    def told(progress: Progress) -> None:
        share = progress.seconds / (60 * minutes)
        steps = min(progress.total, math.ceil(progress.step / max(share, 1e-9)))
        show(dataclasses.replace(progress, total=max(steps, progress.step)))

    return told


class _Distillation:
    """A `Task` of the training loop."""

    def __init__(self, teacher: nn.Module, student: nn.Module, rows: Rows, seed: int):
        count = len(rows.row)
        if count < 2:
            raise InputError(
                f"healing needs at least 2 sequences, one of them to hold out; data has {count}"
            )
        self.model, self.teacher, self.rows, self.seed = student, teacher.eval(), rows, seed
        held = max(1, count // _HELD_OUT)
        self.learnt = np.arange(count - held)
        kept = np.linspace(count - held, count - 1, min(held, _MOST_HELD_OUT))
        length = max(x.shape[1] if x.dim() > 1 else 1 for c in rows.calls for x in tensors_of(c))
        most = max(1, _TOKENS // length) if isinstance(teacher, LanguageModel) else _ROWS
        self.size = min(_ROWS, most, max(1, count // 16))
        self.held_out = rows.split(kept.astype(int), self.size)
        self.steps = 0

    def epoch(self, epoch: int) -> list[np.ndarray]:
        draw = np.random.default_rng([self.seed, epoch])
        batches = self.rows.split(draw.permutation(self.learnt), self.size)
        return [batches[i] for i in draw.permutation(len(batches))[:_LOOK]]

    def loss(self, indices: np.ndarray) -> Tensor:
        self.model.eval()  # no dropout, as the whole model has none
        self.steps += 1
        call = self.rows.batch(indices)
        with torch.no_grad():
            true = answers(self.teacher, call)
        return apart(self.model, true, answers(self.model, call))

    def read(self, indices: np.ndarray) -> Tensor:
        return answers(self.model, self.rows.batch(indices))

    def validate(self) -> float:
        return self.score(self.model)

    @torch.no_grad()
    def score(self, model: nn.Module) -> float:
        """The metric on the held-out part."""
        total = rows = 0.0
        for indices in self.held_out:
            call = self.rows.batch(indices)
            other = answers(model, call)
            cost = self._nats(call, other)
            if cost is None:
                cost = float(apart(model, answers(self.teacher, call), other).clamp(min=0))
            total, rows = total + cost * len(indices), rows + len(indices)
        return total / rows

    @property
    @torch.no_grad()
    def metric(self) -> str:
        if not isinstance(self.model, LanguageModel):
            return "energy of the change of the output, as a share"
        call = self.rows.batch(self.held_out[0])
        known = self._nats(call, answers(self.teacher, call)) is not None
        return "nats per token" if known else "nats between the distributions of the next token"

    def _nats(self, call: Call, logits: Tensor) -> float | None:
        """What the next token costs. None: this is no call of a language model on tokens alone."""
        tokens, *more = (*call.args, None)
        if not isinstance(tokens, Tensor) or more != [None] or call.kwargs:
            return None
        return nats(self.model, tokens, logits)
