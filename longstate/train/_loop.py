"""The training loop of all models.

It can be stopped at any time and continued, with bit-identical results on the CPU: the order of the
windows depends only on the seed and the epoch, and weights, moments, random state and position are
in the checkpoint.
"""

import dataclasses
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from longstate._facts import read
from longstate.errors import InputError
from longstate.models._saving import check_tensors
from longstate.train import _checkpoint as checkpoint
from longstate.train._diagnose import describe_nonfinite
from longstate.train._history import Evaluated, TrainingHistory
from longstate.train._old_names import ADDED, renamed
from longstate.train._optim import make_optimiser, set_rate
from longstate.train._settings import Training
from longstate.train._state_penalty import StatePenalty
from longstate.train._stopping import stop_signals


class Task(Protocol):
    """The interface between the loop and a task, such as forecasting or language modelling."""

    @property
    def model(self) -> nn.Module: ...

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Indices of each batch, in order; a function of the seed and `epoch` only."""

    def loss(self, indices: np.ndarray) -> Tensor:
        """Mean loss of one batch."""

    def validate(self) -> float:
        """Loss on the validation part."""


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
    """The description in a checkpoint: the identity of the run, and a `Progress`."""

    identity: dict[str, Any]
    progress: dict[str, Any]


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


CLIP = 1.0


def train(
    task: Task,
    settings: Training,
    *,
    seed: int = 0,
    keeping: Keeping = Keeping(),
    show: Callable[[Progress], None] | None = None,
    looked: Callable[[Progress], None] | None = None,
    ended: Callable[[TrainingHistory], None] | None = None,
) -> TrainingHistory:
    """Train `task.model`. At the end it has the best weights on the validation part.

    Ctrl-C, SIGTERM and SIGHUP end it early, with a checkpoint; see `stop_signals` for the effect on
    the process.

    Args:
        task: model, batches and losses.
        settings: lengths and rates.
        seed: of dropout; the task has its own for the order of the windows.
        keeping: checkpoints. An existing one is continued.
        show: called after each step.
        looked: called after each evaluation on the validation part; the model has the evaluated
            weights then.
        ended: called at the end with the best weights, also when a signal ends the process.

    Raises:
        InputError: a loss or gradient is not finite; the checkpoint is of another run or cannot be
            read or written.
    """
    optimiser = make_optimiser(task.model, settings)
    with torch.random.fork_rng(devices=[]), stop_signals() as interrupted:
        torch.manual_seed(seed)
        best = _copy(task.model)
        progress = Progress(total=sum(len(task.epoch(e)) for e in range(settings.epochs)))
        weight = settings.state_budget
        penalty = StatePenalty(task.model, weight) if weight else None
        run = _Run(task, settings, optimiser, progress, keeping, penalty)
        if keeping.path is not None and keeping.path.exists():
            best = _resume(task.model, optimiser, progress, keeping)
        started = time.monotonic() - progress.seconds
        if not progress.looks:
            best = _look(task, progress, best)
            _save(run, best)
            if looked is not None:
                looked(progress)
        while not progress.ended:
            out_of_time = _epoch(run, best, started, interrupted, show)
            if interrupted.is_set():
                break
            best = _look(task, progress, best)
            progress.epoch, progress.batch = progress.epoch + 1, 0
            progress.ended = _ending(progress, settings, out_of_time)
            _save(run, best)
            if looked is not None:
                looked(progress)
        if interrupted.is_set():
            _save(run, best)
        task.model.load_state_dict(best)
        how = progress.ended or "interrupted"
        history = TrainingHistory(tuple(progress.looks), progress.best_step, how, progress.seconds)
        if ended is not None:
            ended(history)
    return history


class _Run(NamedTuple):
    """The parts of one run."""

    task: Task
    settings: Training
    optimiser: torch.optim.Optimizer
    progress: Progress
    keeping: Keeping
    penalty: StatePenalty | None


def _epoch(
    run: _Run,
    best: dict[str, Tensor],
    started: float,
    interrupted: threading.Event,
    show: Callable[[Progress], None] | None,
) -> bool:
    """Take the remaining steps of the epoch. Returns True if the time limit is reached.

    An interrupt ends it too. `started`: when the run would have started without breaks.
    """
    task, settings, optimiser, progress, keeping, penalty = run
    saved = time.monotonic()
    for batch in task.epoch(progress.epoch)[progress.batch :]:
        set_rate(optimiser, _place(progress, settings), progress.total)
        _step(task, optimiser, progress, batch, penalty)
        progress.seconds = time.monotonic() - started
        if show is not None:
            show(progress)
        if settings.minutes is not None and progress.seconds > 60 * settings.minutes:
            return True
        if interrupted.is_set():
            break
        if time.monotonic() - saved > keeping.seconds:
            _save(run, best)
            saved = time.monotonic()
    return False


def _step(
    task: Task,
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    batch: np.ndarray,
    penalty: StatePenalty | None,
) -> None:
    task.model.train()
    optimiser.zero_grad(set_to_none=True)
    before = torch.get_rng_state()
    if penalty is None:
        loss = total = task.loss(batch)
    else:
        loss, total = penalty.loss(progress.step, lambda: task.loss(batch))
    if bool(torch.isfinite(total)):
        total.backward()
        norm = nn.utils.clip_grad_norm_(task.model.parameters(), CLIP)
    if not bool(torch.isfinite(total)) or not bool(torch.isfinite(norm)):
        torch.set_rng_state(before)
        where = describe_nonfinite(task.model, lambda: task.loss(batch))
        raise InputError(f"training stopped at step {progress.step}: {where}")
    optimiser.step()
    progress.step += 1
    progress.batch += 1
    progress.loss_sum += float(loss.detach())
    progress.loss_count += 1


def _place(progress: Progress, settings: Training) -> int:
    """The position of the step in the schedule; by time if the time limit ends the run first."""
    if settings.minutes is None:
        return progress.step
    share = min(1.0, progress.seconds / (60 * settings.minutes))
    return max(progress.step, int(share * progress.total))


def _look(task: Task, progress: Progress, best: dict[str, Tensor]) -> dict[str, Tensor]:
    """Evaluate on the validation part; returns the best weights so far."""
    task.model.eval()
    with torch.no_grad():
        loss = task.validate()
    if not math.isfinite(loss):
        raise InputError(f"training stopped at step {progress.step}: the validation loss is {loss}")
    train_loss = progress.loss_sum / progress.loss_count if progress.loss_count else math.nan
    steps_per_epoch = max(1, len(task.epoch(0)))
    epoch = progress.step / steps_per_epoch
    progress.looks.append(Evaluated(progress.step, epoch, train_loss, loss))
    progress.loss_sum, progress.loss_count = 0.0, 0
    if loss < progress.best_loss:
        progress.best_loss, progress.best_step, progress.since_best = loss, progress.step, 0
        return _copy(task.model)
    progress.since_best += 1
    return best


def _ending(progress: Progress, settings: Training, out_of_time: bool) -> str:
    if out_of_time:
        return "out of time"
    if progress.epoch >= settings.epochs:
        return "finished"
    return "no progress" if progress.since_best >= settings.patience else ""


def _copy(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _save(run: _Run, best: dict[str, Tensor]) -> None:
    if run.keeping.path is None:
        return
    tensors = {f"model/{k}": v for k, v in run.task.model.state_dict().items()}
    tensors |= {f"best/{k}": v for k, v in best.items()}
    tensors |= checkpoint.pack_optimiser(run.optimiser)
    tensors["random"] = torch.get_rng_state()
    facts = {"identity": run.keeping.identity, "progress": dataclasses.asdict(run.progress)}
    checkpoint.save(run.keeping.path, "training", tensors, facts)


def _resume(
    model: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress, keeping: Keeping
) -> dict[str, Tensor]:
    path = keeping.path
    assert path is not None
    tensors, raw = checkpoint.load(path, "training")
    facts = read(TrainingFacts, raw, f"the description in {path}")
    saved, now = renamed(facts.identity), renamed(keeping.identity)
    for name in now | saved:
        theirs, ours = saved.get(name, ADDED.get(name)), now.get(name)
        name = name.replace("_", " ")
        if theirs != ours:
            raise InputError(
                f"{path} belongs to another run: its {name} is {theirs}, here it is "
                f"{ours}; choose another folder"
            )
    found = read(Progress, facts.progress, f"the progress in {path}")
    best = checkpoint.part(tensors, "best")
    check_tensors(best, model.state_dict(), path)
    checkpoint.restore(model, optimiser, tensors, path)
    vars(progress).update(vars(found))
    return best
