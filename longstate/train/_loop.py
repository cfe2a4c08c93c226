"""The training loop of all models.

It can be stopped at any time and continued, with bit-identical results on the CPU: the order of the
windows depends only on the seed and the epoch, and weights, moments, random state and position are
in the checkpoint.
"""

import math
import threading
import time
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from longstate.errors import InputError
from longstate.layers import Layer
from longstate.train import _ranks as ranks
from longstate.train._diagnose import NotFiniteError, describe_nonfinite
from longstate.train._history import Evaluated, TrainingHistory
from longstate.train._keeping import NOT_KEPT, Saved, save
from longstate.train._keeping import Keeping as Keeping
from longstate.train._keeping import Progress as Progress
from longstate.train._optim import make_optimiser, set_rate
from longstate.train._parallel import Gradients
from longstate.train._settings import Training
from longstate.train._shrinking import Shrinking, put_layers, shrinking_of
from longstate.train._stopping import stop_signals

COUNTED = 1000  # epochs


class Task(Protocol):
    """The interface between the loop and a task, such as forecasting or language modelling."""

    @property
    def model(self) -> nn.Module: ...

    def epoch(self, epoch: int) -> list[np.ndarray]:
        """Numbers of the cases of each batch, in order; a function of the seed and `epoch` only."""

    def loss(self, indices: np.ndarray, /) -> Tensor:
        """Mean loss of one batch."""

    def read(self, indices: np.ndarray, /) -> object:
        """Call the model on the inputs of one batch."""

    def validate(self) -> float:
        """Loss on the validation part."""


CLIP = 1.0
_APART = 1 << 32  # between the seeds of two ranks; a run's own seed is below


def train(
    task: Task,
    settings: Training,
    *,
    seed: int = 0,
    keeping: Keeping = NOT_KEPT,
    show: Callable[[Progress], None] | None = None,
    looked: Callable[[Progress], None] | None = None,
    ended: Callable[[TrainingHistory], None] | None = None,
) -> TrainingHistory:
    """Train `task.model`. At the end, also by a loss that is not finite, it has the best weights on
    the validation part.

    In a process group all ranks train it together: see `longstate.train._parallel`. Rank 0 writes
    the checkpoints, and calls `show` and `looked`.

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
    if ranks.rank():
        show = looked = None
    with torch.random.fork_rng(devices=[]), stop_signals() as asked:
        interrupted = ranks.AnyRank(asked)
        torch.manual_seed(seed + ranks.rank() * _APART)
        run, best = _begin(task, settings, keeping)
        progress = run.progress
        started = time.monotonic() - progress.seconds
        if not progress.looks:
            best = _look(run, best)
            run.save(best)
            if looked is not None:
                looked(progress)
        try:
            while not progress.ended:
                out_of_time = _epoch(run, best, started, interrupted, show)
                if interrupted.is_set():
                    break
                best = _look(run, best)
                progress.epoch, progress.batch = progress.epoch + 1, 0
                progress.ended = _ending(progress, settings, out_of_time)
                if run.shrinking is not None:
                    run, best = _shrink(run, run.shrinking, best)
                run.save(best)
                if looked is not None:
                    looked(progress)
        except NotFiniteError:
            task.model.load_state_dict(best)
            raise
        if interrupted.is_set():
            run.save(best)
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
    gradients: Gradients
    shrinking: Shrinking | None
    changed: frozenset[str] = frozenset()  # names of layers that became smaller

    def save(self, best: dict[str, Tensor]) -> None:
        model = self.task.model
        self.gradients.fill()
        save(self.keeping, self.progress, model, best, self.optimiser, sorted(self.changed))

    def with_layers(self, layers: Mapping[str, Layer]) -> "_Run":
        """The same run after its model got smaller layers."""
        optimiser = put_layers(self.task.model, layers, self.optimiser, self.settings)
        changed, gradients = self.changed | layers.keys(), Gradients(self.task, self.settings)
        return self._replace(optimiser=optimiser, gradients=gradients, changed=changed)


def _begin(task: Task, settings: Training, keeping: Keeping) -> tuple[_Run, dict[str, Tensor]]:
    """The run and its best weights, from the checkpoint if there is one."""
    model, shrinking = task.model, shrinking_of(settings)
    progress = Progress(total=_steps(task, settings.epochs))
    if shrinking is not None and ranks.size() > 1:
        raise InputError("shrink_to works in one process; got it with several")
    gradients = Gradients(task, settings)
    optimiser = make_optimiser(gradients.model, settings)
    run = _Run(task, settings, optimiser, progress, keeping, gradients, shrinking)
    if shrinking is not None:
        shrinking.begin(model, _reading(task))
    if keeping.path is None or not keeping.path.exists():
        return run, _copy(model)
    saved = Saved(keeping)
    layers = saved.layers(model)
    run = run.with_layers(layers) if layers else run
    best = saved.restore(model, run.optimiser)
    run.gradients.take()
    vars(progress).update(vars(saved.progress))
    return run, best


def _steps(task: Task, epochs: int) -> int:
    """Of a whole training; of many epochs an estimate, because counting them would take minutes."""
    counted = min(epochs, COUNTED)
    steps = sum(len(task.epoch(e)) for e in range(counted))
    return steps if counted == epochs else max(1, round(steps * epochs / counted))


def _reading(task: Task) -> Callable[[], object]:
    """Lets the model read the first batch of the training."""
    return lambda: task.read(task.epoch(0)[0])


def _shrink(
    run: _Run, shrinking: Shrinking, best: dict[str, Tensor]
) -> tuple[_Run, dict[str, Tensor]]:
    """Make layers smaller if it is time for it. The search for the best weights starts again."""
    task, progress = run.task, run.progress
    done = 1.0 if progress.ended else _place(progress, run.settings) / progress.total
    with torch.random.fork_rng(devices=[]):
        layers = shrinking.layers(task.model, done, _reading(task))
    if not layers:
        return run, best
    run = run.with_layers(layers)
    progress.best_loss, progress.since_best = math.inf, 0
    progress.ended = "" if progress.ended == "no progress" else progress.ended
    return run, _look(run, best)


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
    task, settings, progress = run.task, run.settings, run.progress
    saved = progress.seconds
    for batch in task.epoch(progress.epoch)[progress.batch :]:
        set_rate(run.optimiser, _place(progress, settings), progress.total)
        _step(run, batch)
        progress.seconds = ranks.of_first(time.monotonic() - started)
        if show is not None:
            show(progress)
        if settings.minutes is not None and progress.seconds > 60 * settings.minutes:
            return True
        if interrupted.is_set():
            break
        if progress.seconds - saved > run.keeping.seconds:
            run.save(best)
            saved = progress.seconds
    return False


def _step(run: _Run, batch: np.ndarray) -> None:
    task, progress, gradients = run.task, run.progress, run.gradients
    gradients.model.train()
    task.model.train()
    run.optimiser.zero_grad(set_to_none=True)
    before = torch.get_rng_state()
    loss = gradients.compute(progress.step, batch)
    if not math.isfinite(loss) or not bool(torch.isfinite(gradients.clip(CLIP))):
        torch.set_rng_state(before)
        gradients.fill()
        where = describe_nonfinite(task.model, lambda: task.loss(gradients.own(batch)))
        raise NotFiniteError(progress.step, where)
    run.optimiser.step()
    progress.step += 1
    progress.batch += 1
    progress.loss_sum += loss
    progress.loss_count += 1


def _place(progress: Progress, settings: Training) -> int:
    """The position of the step in the schedule; by time if the time limit ends the run first."""
    if settings.minutes is None:
        return progress.step
    share = min(1.0, progress.seconds / (60 * settings.minutes))
    return max(progress.step, int(share * progress.total))


def _look(run: _Run, best: dict[str, Tensor]) -> dict[str, Tensor]:
    """Evaluate on the validation part; returns the best weights so far."""
    task, progress = run.task, run.progress
    run.gradients.fill()
    task.model.eval()
    with torch.no_grad():
        loss = ranks.of_first(task.validate())
    if not math.isfinite(loss):
        raise NotFiniteError(progress.step, f"the validation loss is {loss}")
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
