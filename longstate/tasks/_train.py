"""One run: a small model of two blocks of one layer, trained on one task with one learning rate.

    symbols -> embedding, or numbers -> linear map; blocks; norm; linear map -> answers

Optimiser, schedule and clipping are those of the trainers; parameters that a layer names `dynamics`
have a rate of at most 1e-3. A run ends after the task's
steps, or after `seconds` of processor time, which other load does not change much.
"""

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from longstate.layers import Layer
from longstate.models import Stack
from longstate.tasks._candidates import Candidate, candidate, state_bytes
from longstate.tasks._settings import Run, Settings
from longstate.tasks._task import Batch, Task
from longstate.tasks._tasks import accuracy, task, whole_rows
from longstate.train import Training
from longstate.train._loop import CLIP
from longstate.train._optim import make_optimiser, set_rate

_DYNAMICS = 1e-3
_SYMBOLS = 25_000  # of an evaluation at one time
VALIDATION, TEST = 10**9, 2 * 10**9  # seeds of rows; training has others


class Model(nn.Module):
    """From the inputs of a task to its answers.

    Args:
        task: gives the sizes.
        mixers: one layer for each block.
    """

    def __init__(self, task: Task, mixers: list[Layer]):
        super().__init__()
        width = mixers[0].d_model
        self.into = (
            nn.Embedding(task.symbols, width) if task.symbols else nn.Linear(task.features, width)
        )
        self.stack = Stack(mixers)
        self.out = nn.Linear(width, task.answers)

    def forward(self, x: Tensor) -> tuple[Tensor, Any]:
        """Answers (b, t, v) as logits or numbers, and the state."""
        x = x if x.dtype == torch.long else x.float()
        y, state = self.stack(self.into(x))
        return self.out(y), state


def build(task: Task, layer: Candidate, settings: Settings, seed: int = 0) -> Model:
    """A model with new weights."""
    torch.manual_seed(seed)
    return Model(task, [layer.make(settings.width) for _ in range(settings.blocks)])


def loss(task: Task, outputs: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of symbols, of each member of a set, or the squared error of numbers."""
    given, target = outputs[batch.scored], batch.targets[batch.scored]
    if task.answer == "symbol":
        return F.cross_entropy(given, target)
    if task.answer == "set":
        return F.binary_cross_entropy_with_logits(given, target.float())
    return F.mse_loss(given, target.float())


def decide(task: Task, outputs: Tensor) -> Tensor:
    """Answers as `Task.solve` gives them."""
    if task.answer == "symbol":
        return outputs.argmax(-1)
    return outputs > 0 if task.answer == "set" else outputs


def execute(run: Run, go_on: Callable[[], bool] = lambda: True) -> dict[str, Any] | None:
    """Train and test; facts for JSON, or None if `go_on` said no in between."""
    chosen, settings = task(run.task), run.settings
    model = build(chosen, candidate(run.layer), settings, run.seed)
    began = time.monotonic()
    steps, planned, last = 0, max(1, round(chosen.budget.steps * settings.scale)), math.nan
    draw = Generator().manual_seed(run.seed)
    optimiser = make_optimiser(
        model, Training(learning_rate=run.rate, dynamics_rate=min(run.rate, _DYNAMICS))
    )
    start: float | None = None
    while steps < planned:
        if not go_on():
            return None
        spent = 0.0 if start is None else time.process_time() - start
        done = max(steps / planned, spent / settings.seconds)
        if done >= 1:
            break
        set_rate(optimiser, int(done * planned), planned)
        last = _step(model, optimiser, chosen, draw)
        steps += 1
        if start is None:
            start = time.process_time()  # the first step compiles kernels
        if not math.isfinite(last):
            break
    trained = time.monotonic() - began
    tests = [
        _test(model, chosen, length, TEST + run.seed)
        for length in (chosen.budget.length, *chosen.budget.longer)
    ]
    checked = _test(model, chosen, chosen.budget.length, VALIDATION + run.seed)
    inputs = chosen.sample(1, chosen.budget.length, Generator().manual_seed(0)).inputs
    return {
        **asdict(run),
        "steps": steps,
        "planned": planned,
        "loss": last if math.isfinite(last) else None,
        "validation": checked["accuracy"],
        "tests": tests,
        "parameters": sum(p.numel() for p in model.parameters()),
        "state_bytes": state_bytes(model, inputs),
        "training_seconds": trained,
        "seconds": time.monotonic() - began,
    }


def _step(model: Model, optimiser: torch.optim.Optimizer, chosen: Task, draw: Generator) -> float:
    budget, length = chosen.budget, chosen.budget.length
    if budget.shortest is not None:
        length = int(torch.randint(budget.shortest, length + 1, (), generator=draw))
    batch = chosen.sample(budget.batch, length, draw)
    found = loss(chosen, model(batch.inputs)[0], batch)
    optimiser.zero_grad()
    found.backward()
    nn.utils.clip_grad_norm_(model.parameters(), CLIP)
    optimiser.step()
    return float(found.detach())


@torch.no_grad()
def _test(model: Model, chosen: Task, length: int, seed: int) -> dict[str, Any]:
    rows = max(32, min(512, _SYMBOLS // length))
    batch = chosen.sample(rows, length, Generator().manual_seed(seed))
    part = max(1, _SYMBOLS // length // 8)
    outputs = torch.cat([model(x)[0] for x in batch.inputs.split(part)])
    answers = decide(chosen, outputs)
    found = accuracy(chosen, answers, batch)
    return {
        "length": length,
        "rows": rows,
        "accuracy": found if math.isfinite(found) else None,
        "whole_rows": whole_rows(chosen, answers, batch),
    }
