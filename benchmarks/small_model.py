"""A small model for a task of `longstate.tasks`, and its training."""

import math
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers import Layer
from longstate.models import Stack
from longstate.models._block import Gate
from longstate.tasks import Batch, Task, accuracy
from longstate.train import Training, make_optimiser

WIDTH, WARM, PART = 64, 50, 32
Draw = Callable[[torch.Generator], list[Any]]


class Trained(nn.Module):
    """A model with a loss of a batch; `diverged` if one in training was not finite."""

    diverged = False

    def loss(self, batch: Any) -> Tensor:
        raise NotImplementedError


class Model(Trained):
    """Symbols or numbers to the answers of a task.

    Args:
        task: with symbols or numbers, and one answer at a position.
        layers: one for each block.
        gate: what follows a layer in its block; see `longstate.models.Stack`.
    """

    def __init__(self, task: Task, layers: list[Layer], gate: Gate = "auto"):
        super().__init__()
        self.task = task
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


def train(
    model: Trained,
    draw: Draw,
    seed: int,
    steps: int,
    rate: float,
    dynamics_rate: float | None = None,
) -> float:
    """Train on the batches of `draw`, whose losses are added. Returns seconds of processor time.

    The rate rises for `WARM` steps and then falls to zero. It holds for all parameters, if no other
    one is given for the dynamics. Training ends where the loss is not finite; the model is then
    `diverged`.
    """
    began, generator = time.process_time(), torch.Generator().manual_seed(seed)
    optimiser = make_optimiser(
        model, Training(learning_rate=rate, dynamics_rate=dynamics_rate or rate)
    )
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
