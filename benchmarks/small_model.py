"""A small model for a task of `longstate.tasks`, its training, and runs of it that are kept."""

import math
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from runs import Run, Runs
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers import Layer
from longstate.models import Stack
from longstate.models._block import Gate
from longstate.tasks import Batch, Task, accuracy
from longstate.train import Training, make_optimiser

WIDTH, WARM, PART = 64, 50, 32
Draw = Callable[[torch.Generator], list[Batch]]


class Model(nn.Module):
    """Symbols or numbers to the answers of a task.

    Args:
        task: with symbols or numbers, and one answer at a position.
        layers: one for each block.
        gate: what follows a layer in its block; see `longstate.models.Stack`.
    """

    def __init__(self, task: Task, layers: list[Layer], gate: Gate = "auto"):
        super().__init__()
        self.task, self.diverged = task, False
        inputs = nn.Embedding(task.symbols, WIDTH) if task.symbols else None
        self.into = inputs or nn.Linear(task.features, WIDTH)
        self.stack, self.out = Stack(layers, gate=gate), nn.Linear(WIDTH, task.answers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.out(self.stack(self.into(x))[0])
        return y

    def loss(self, batch: Batch) -> Tensor:
        given, wanted = self(batch.inputs)[batch.scored], batch.targets[batch.scored]
        numbers = self.task.answer == "numbers"
        return F.mse_loss(given, wanted) if numbers else F.cross_entropy(given, wanted)

    @torch.no_grad()
    def score(self, batch: Batch) -> float:
        """Accuracy, or the share of the variance that is explained; NaN if training diverged."""
        if self.diverged:
            return math.nan
        given = torch.cat([self(x) for x in batch.inputs.split(PART)])
        return accuracy(
            self.task, given if self.task.answer == "numbers" else given.argmax(-1), batch
        )


def train(model: Model, draw: Draw, seed: int, steps: int, rate: float) -> float:
    """Train on the batches of `draw`, whose losses are added. Returns seconds of processor time.

    The rate rises for `WARM` steps and then falls to zero. It holds for all parameters. Training
    ends where the loss is not finite; the model is then `diverged`.
    """
    began, generator = time.process_time(), torch.Generator().manual_seed(seed)
    optimiser = make_optimiser(model, Training(learning_rate=rate, dynamics_rate=rate))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min(1, (i + 1) / WARM) * (1 - i / steps)
    )
    for _ in range(steps):
        loss = torch.stack([model.loss(batch) for batch in draw(generator)]).sum()
        optimiser.zero_grad()
        loss.backward()
        if not loss.isfinite():
            model.diverged = True
            break
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    model.eval()
    return time.process_time() - began


def seeds_of(
    runs: Runs, seeds: int, do: Callable[[int], dict[str, Any]], **named: Any
) -> Iterator[Run]:
    """The run of every seed under this name, from the file or done now and kept."""
    for seed in range(seeds):
        if not runs.has(seed=seed, **named):
            runs.add({**named, "seed": seed, **do(seed)})
            print(runs.all()[-1], flush=True)
        wanted = {**named, "seed": seed}
        yield next(r for r in runs.all() if all(r[k] == v for k, v in wanted.items()))


def cell(values: list[float]) -> str:
    """Mean and, in brackets, lowest to highest; or how many seeds diverged."""
    lost = sum(map(math.isnan, values))
    if lost:
        return f"{lost} of {len(values)} diverged"
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"
