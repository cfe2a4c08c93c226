"""Multivariate series: Chimera beside S4D and ridge regression, forecasts and classes.

    python benchmarks/chimera.py ETTh1.csv [--seeds 3] [--steps 100]

Forecasts: all 7 columns of ETTh1 for the next 96 hours from 96, split 12, 4 and 4 months, in
deviations of the training part, windows less their last value; mean squared error on the test part,
of a window every 8 hours.
Classes: JapaneseVowels and BasicMotions, in their usual split, from the mean over time.
Networks have two blocks with 8 numbers for each variate, and equal steps. "S4D, together" mixes all
variates after each block, "S4D, alone" reads each as a series of its own. The ridge regressions
read the whole window of a variate, or all values of a case, and choose their penalty on the
validation part or by leave-one-out. Seconds are processor time of one thread. Finished runs are
kept in `trained/chimera.jsonl`.
"""

import itertools
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from command import parser, peers
from kept import FOLDER
from measure import cell, machine, save
from runs import Run, Runs, seeds_of
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers import S4D, Chimera
from longstate.models import Stack
from longstate.train import read_csv, read_series

with peers(__name__, __doc__, "aeon"):
    import aeon

MONTH, WINDOW, HORIZON, CHANNELS, BATCH, RATE = 30 * 24, 96, 96, 8, 16, 4e-3
SETS = ("JapaneseVowels", "BasicMotions")
MODELS = ("Chimera", "S4D, together", "S4D, alone")
PENALTIES = tuple(10.0**i for i in range(-2, 6))


class Batch(NamedTuple):
    """Series (b, t, v), which samples there are (b, t), and answers: (b, horizon, v), or
    classes (b)."""

    x: Tensor
    mask: Tensor
    y: Tensor

    def at(self, rows: Tensor) -> "Batch":
        return Batch(*(part[rows] for part in self))


class Model(nn.Module):
    """Two blocks between an embedding of each value and an answer.

    Args:
        kind: one of `MODELS`. variates: of a sample.
        answers: numbers for each variate (forecasts) or for the whole series (classes).
        forecasts: which of the two.
    """

    def __init__(self, kind: str, variates: int, answers: int, forecasts: bool):
        super().__init__()
        self.alone, self.forecasts = kind == "S4D, alone", forecasts
        width = CHANNELS if self.alone else variates * CHANNELS
        self.place = nn.Parameter(0.1 * torch.randn(variates, CHANNELS))
        self.scale = nn.Parameter(torch.randn(CHANNELS))

        def layer() -> S4D | Chimera:
            if kind == "Chimera":
                return Chimera(width, variates=variates, d_state=4)
            return S4D(width, d_state=32)

        self.stack = Stack([layer() for _ in range(2)])
        self.head = nn.Linear(CHANNELS if forecasts else variates * CHANNELS, answers)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        b, t, v = x.shape
        each = x[..., None] * self.scale + self.place  # b, t, v, p
        if self.alone:
            rows, seen = each.transpose(1, 2).flatten(0, 1), mask.repeat_interleave(v, 0)
            y = self.stack(rows, mask=seen)[0].view(b, v, t, -1).transpose(1, 2)
        else:
            y = self.stack(each.flatten(2), mask=mask)[0].view(b, t, v, -1)
        if self.forecasts:
            return self.head(y[:, -1]).mT  # b, horizon, v
        return self.head(y.sum(1).flatten(1) / mask.sum(1, keepdim=True))


def read_hours(path: Path) -> tuple[Tensor, ...]:
    """Columns of the three parts (t, v), each with the window that leads into it."""
    frame = read_csv(path).iloc[: 20 * MONTH]
    values = torch.tensor(frame.drop(columns="date").to_numpy(np.float32))
    values = (values - values[: 12 * MONTH].mean(0)) / values[: 12 * MONTH].std(0)
    ends = (0, 12 * MONTH, 16 * MONTH, 20 * MONTH)
    return tuple(values[max(0, a - WINDOW) : b] for a, b in itertools.pairwise(ends))


def windows(values: Tensor, every: int) -> Batch:
    both = values.unfold(0, WINDOW + HORIZON, every).mT  # i, t, v
    both = both - both[:, WINDOW - 1 : WINDOW]
    x = both[:, :WINDOW]
    return Batch(x, torch.ones(x.shape[:2], dtype=torch.bool), both[:, WINDOW:])


def read_cases(name: str) -> tuple[Batch, Batch]:
    """Training and test cases, in deviations of the training part, padded with zeros."""
    folder = Path(aeon.__file__).parent / "datasets" / "data" / name
    parts = [read_series(folder / f"{name}_{part}.ts") for part in ("TRAIN", "TEST")]
    rows = np.concatenate(parts[0].X, axis=1)
    mean, std = rows.mean(1)[:, None], rows.std(1)[:, None]
    known, longest = sorted(set(parts[0].y)), max(x.shape[1] for part in parts for x in part.X)
    found = []
    for part in parts:
        x, mask = torch.zeros(len(part.X), longest, len(mean)), torch.zeros(len(part.X), longest)
        for i, case in enumerate(part.X):
            x[i, : case.shape[1]] = torch.tensor(((case - mean) / std).T)
            mask[i, : case.shape[1]] = 1
        found.append(Batch(x, mask > 0, torch.tensor([known.index(y) for y in part.y])))
    return found[0], found[1]


def learn(
    model: Model, data: Batch, seed: int, steps: int, loss: Callable[[Tensor, Tensor], Tensor]
) -> float:
    """Train on random rows. Returns seconds."""
    draw, began = torch.Generator().manual_seed(seed), time.process_time()
    optimizer = torch.optim.AdamW(model.parameters(), RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(steps):
        some = data.at(torch.randint(len(data.x), (BATCH,), generator=draw))
        value = loss(model(some.x, some.mask), some.y)
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return time.process_time() - began


@torch.no_grad()
def answers(model: Model, data: Batch) -> Tensor:
    rows = torch.arange(len(data.x)).split(64)
    return torch.cat([model(*data.at(some)[:2]) for some in rows])


def solve(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    gram = x.mT @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype)
    return torch.linalg.solve(gram, x.mT @ y)


def ridge_hours(train: Batch, validation: Batch, test: Batch) -> Tensor:
    """One regression for each variate, on its own window."""
    found = []
    for v in range(train.x.shape[2]):
        parts = [(b.x[..., v].double(), b.y[..., v].double()) for b in (train, validation)]
        weights = [solve(*parts[0], penalty) for penalty in PENALTIES]
        x, y = parts[1]
        best = min(weights, key=lambda w: float((x @ w - y).square().mean()))
        found.append(test.x[..., v].double() @ best)
    return torch.stack(found, -1)


def ridge_cases(train: Batch, test: Batch) -> Tensor:
    """Scores (b, classes) from all values of a case; errors of leaving one out are exact."""
    x, new = (F.pad(b.x.flatten(1), (0, 1), value=1.0).double() for b in (train, test))
    y = 2 * F.one_hot(train.y).double() - 1
    gram = x @ x.mT
    left: dict[float, float] = {}
    for penalty in PENALTIES:
        inverse = torch.linalg.inv(gram + penalty * torch.eye(len(x), dtype=x.dtype))
        left[penalty] = float((inverse @ y / inverse.diagonal()[:, None]).square().mean())
    best = min(left, key=lambda penalty: left[penalty])
    dual = torch.linalg.solve(gram + best * torch.eye(len(x), dtype=x.dtype), y)
    return new @ (x.mT @ dual)


def forecast(kind: str, path: Path, steps: int, seed: int) -> dict[str, float]:
    train, validation, test = (
        windows(v, n) for v, n in zip(read_hours(path), (1, 8, 8), strict=True)
    )
    if kind == "ridge":
        return {"score": float((ridge_hours(train, validation, test) - test.y).square().mean())}
    if kind == "last value":
        return {"score": float(test.y.square().mean())}
    torch.manual_seed(seed)
    model = Model(kind, train.x.shape[2], HORIZON, True)
    seconds = learn(model, train, seed, steps, F.mse_loss)
    return {"score": float((answers(model, test) - test.y).square().mean()), **size(model, seconds)}


def classify(kind: str, name: str, steps: int, seed: int) -> dict[str, float]:
    train, test = read_cases(name)
    if kind == "ridge":
        return {"score": right(ridge_cases(train, test), test)}
    if kind == "last value":
        return {"score": float("nan")}
    torch.manual_seed(seed)
    model = Model(kind, train.x.shape[2], int(train.y.max()) + 1, False)
    seconds = learn(model, train, seed, steps, F.cross_entropy)
    return {"score": right(answers(model, test), test), **size(model, seconds)}


def right(scores: Tensor, data: Batch) -> float:
    return 100 * float((scores.argmax(1) == data.y).double().mean())


def size(model: Model, seconds: float) -> dict[str, float]:
    return {"seconds": seconds, "size": sum(p.numel() for p in model.parameters())}


def row(kind: str, found: list[list[Run]]) -> str:
    cells = ["-" if kind == "last value" and i else cell([r["score"] for r in runs])
             for i, runs in enumerate(found)]  # fmt: skip
    if kind in MODELS:
        cells += [f"{found[0][0]['size']:,}"]
        cells += [f"{statistics.fmean(r['seconds'] for r in runs):.0f}" for runs in found]
    cells += ["-"] * (2 + 2 * len(SETS) - len(cells) + 1)
    return f"| {kind} | {' | '.join(cells)} | {len(found[0])} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("csv", type=Path)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=100)
    given = options.parse_args()
    torch.set_num_threads(1)
    kept = Runs(FOLDER / "chimera.jsonl", ("kind", "data", "seed", "steps"))
    names = ("ETTh1", *SETS)
    lines = []
    for kind in (*MODELS, "ridge", "last value"):
        found = []
        for name in names:
            source: Any = given.csv if name == "ETTh1" else name
            do: Any = partial(forecast if name == "ETTh1" else classify, kind, source, given.steps)
            seeds = given.seeds if kind in MODELS else 1
            found.append(list(seeds_of(kept, seeds, do, kind=kind, data=name, steps=given.steps)))
        lines.append(row(kind, found))
    head = ["model", "ETTh1, squared error", *(f"{name}, %" for name in SETS), "parameters, ETTh1"]
    head += [f"seconds, {name}" for name in names] + ["seeds"]
    text = [
        "# Multivariate series: Chimera, S4D and ridge regression",
        "",
        f"Windows of {WINDOW} hours, the next {HORIZON}, all columns; classes of whole series. "
        f"{given.steps} steps of {BATCH} windows or cases. Mean (lowest to highest seed).",
        "Command: `python benchmarks/chimera.py ETTh1.csv`",
        "",
        machine(),
        "",
        f"| {' | '.join(head)} |",
        f"| --- {'| ---: ' * (len(head) - 1)}|",
        *lines,
    ]
    save("chimera", "\n".join(text))


if __name__ == "__main__":
    main()
