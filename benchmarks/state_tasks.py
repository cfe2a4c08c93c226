"""The tasks of `state_study.py`: recall, text and series, each for a stack of two small blocks."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from recall import CONTEXT, LETTERS, recall
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.models import LanguageModel, LanguageSpec, Stack, layer_class
from longstate.train import read_csv

WIDTH, BLOCKS = 32, 2
WINDOW, HORIZON, CONTEXT_BYTES = 192, 24, 256
FILES = {
    "recall": None, "text": "tinyshakespeare.txt", "wiki": "wikitext2_valid.txt",
    "etth1": "ETTh1.csv", "elec": "vic_elec.csv",
}  # fmt: skip
COLUMNS = {"etth1": "OT", "elec": "Demand"}


class Series(nn.Module):
    """One column in, the next rows out, relative to the last one."""

    def __init__(self, stack: Stack):
        super().__init__()
        self.into, self.stack = nn.Linear(1, WIDTH), stack
        self.out = nn.Linear(WIDTH, HORIZON)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.stack(self.into(x[..., None] - x[:, -1:, None]))
        return self.out(y[:, -1]) + x[:, -1:]


class Task(NamedTuple):
    """A task: its model around a stack's options, batches for training, and the metric."""

    make: Callable[[str, dict[str, Any]], nn.Module]
    loss: Callable[[nn.Module, int], Tensor]
    metric: Callable[[nn.Module], float]


def language(vocab: int) -> Callable[[str, dict[str, Any]], nn.Module]:
    def make(layer: str, options: dict[str, Any]) -> nn.Module:
        spec = LanguageSpec(vocab, WIDTH, (layer,) * BLOCKS, options={layer: options}, gate="none")
        return LanguageModel(spec)

    return make


def series(layer: str, options: dict[str, Any]) -> nn.Module:
    return Series(Stack([layer_class(layer)(WIDTH, **options) for _ in range(BLOCKS)], gate="none"))


def recall_task(seed: int) -> Task:
    def answers(model: nn.Module, x: Tensor) -> Tensor:
        return model(x)[0][:, CONTEXT:, LETTERS:]

    def loss(model: nn.Module, step: int) -> Tensor:
        x, y = recall(32, 1_000_000 * (seed + 1) + step)
        return F.cross_entropy(answers(model, x).flatten(0, 1), y.flatten())

    def metric(model: nn.Module) -> float:
        x, y = recall(2000, 999)
        return float((answers(model, x).argmax(-1) == y).double().mean())

    return Task(language(2 * LETTERS), loss, metric)


def text_task(path: Path, seed: int) -> Task:
    data = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8).long()
    cut = len(data) * 9 // 10
    draw = torch.Generator().manual_seed(seed)

    def loss(model: nn.Module, step: int) -> Tensor:
        starts = torch.randint(0, cut - CONTEXT_BYTES - 1, (8,), generator=draw)
        rows = torch.stack([data[i : i + CONTEXT_BYTES + 1] for i in starts])
        return F.cross_entropy(model(rows[:, :-1])[0].flatten(0, 1), rows[:, 1:].flatten())

    def metric(model: nn.Module) -> float:
        rows = data[cut:][: (len(data) - cut) // (CONTEXT_BYTES + 1) * (CONTEXT_BYTES + 1)]
        losses = [
            F.cross_entropy(model(part[:, :-1])[0].flatten(0, 1), part[:, 1:].flatten()) * len(part)
            for part in rows.view(-1, CONTEXT_BYTES + 1).split(32)
        ]
        return float(sum(losses)) / (len(rows) // (CONTEXT_BYTES + 1)) / math.log(2)

    return Task(language(256), loss, metric)


def series_task(path: Path, column: str, seed: int) -> Task:
    frame = read_csv(path)[column].to_numpy("float32", copy=True)
    values = torch.from_numpy(frame)
    cut = len(values) * 4 // 5
    values = (values - values[:cut].mean()) / values[:cut].std()
    draw = torch.Generator().manual_seed(seed)
    span = WINDOW + HORIZON

    def loss(model: nn.Module, step: int) -> Tensor:
        starts = torch.randint(0, cut - span, (32,), generator=draw)
        rows = torch.stack([values[i : i + span] for i in starts])
        return F.mse_loss(model(rows[:, :WINDOW]), rows[:, WINDOW:])

    def metric(model: nn.Module) -> float:
        rows = values[cut:].unfold(0, span, 12)
        found = torch.cat([model(part[:, :WINDOW]) for part in rows.split(64)])
        return float(F.mse_loss(found, rows[:, WINDOW:]))

    return Task(series, loss, metric)


def task(name: str, folder: Path, seed: int) -> Task:
    if name == "recall":
        return recall_task(seed)
    path = folder / str(FILES[name])
    if name in COLUMNS:
        return series_task(path, COLUMNS[name], seed)
    return text_task(path, seed)
