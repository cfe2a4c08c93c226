"""Pruning a recurrent network that was trained with a penalty by distance.

    python benchmarks/moduli.py [--seeds 3] [--steps 1500] [--strength 0.1] [--pruned 0.9]

The adding problem: of 30 numbers two are marked, and their sum is wanted. An `Elman` layer with 64
units is trained with the penalty of `GeometricPenalty` for `--steps`. In half as many further
steps its smallest recurrent weights are set to zero, more and more of them, up to the share
`--pruned`; then the rest is trained for another half. The penalties are none, plain L1, one by
distance on a torus, and the same factors given to random pairs: a gain that random pairs have too
is not due to the geometry. The error is the mean squared error relative to the variance of the sum:
1 is what the mean gives.
"""

import statistics
from functools import partial
from typing import Any

import torch
from command import parser
from kept import FOLDER
from measure import cell, machine, save
from runs import Runs, seeds_of
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.compress import GeometricPenalty
from longstate.layers import Elman

LENGTH, UNITS, BATCH, RATE = 30, 64, 64, 2e-3
VARIANCE = 1 / 6  # of the sum of two uniform numbers
PENALTIES: dict[str, dict[str, Any] | None] = {
    "none": None,
    "plain L1": {"profile": "uniform"},
    "torus": {},
    "torus, shuffled": {"shuffled": True},
}


def adding(count: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Numbers and marks (count, 30, 2); sums (count)."""
    numbers = torch.rand(count, LENGTH, generator=draw)
    marked = torch.rand(count, LENGTH, generator=draw).topk(2, dim=1).indices
    marks = torch.zeros(count, LENGTH).scatter_(1, marked, 1.0)
    return torch.stack([numbers, marks], -1), (numbers * marks).sum(1)


class Adder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode, self.layer = nn.Linear(2, 16), Elman(16, d_state=UNITS)
        self.decode = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.layer(self.encode(x))
        return self.decode(y[:, -1])[:, 0]


def learn(penalty: str, seed: int, steps: int, strength: float, pruned: float) -> dict[str, float]:
    """The errors before and after pruning, and the share of the weights that is left."""
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(1000 + seed)
    model, options = Adder(), PENALTIES[penalty]
    weight = model.layer.recurrent.weight
    nn.init.eye_(weight)
    cost = None if options is None else GeometricPenalty(UNITS, seed=seed, **options)
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    kept = torch.ones_like(weight)
    errors = {}
    for step in range(2 * steps):
        x, y = adding(BATCH, draw)
        loss = F.mse_loss(model(x), y)
        if cost is not None:
            loss = loss + strength * cost(weight)
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
        if step + 1 == steps:
            errors["whole"] = error(model)
        share = pruned * min(1.0, max(0.0, (step + 1 - steps) / (steps // 2)))
        with torch.no_grad():
            if share > 1 - float(kept.mean()):
                size = weight.abs().flatten()
                kept = (size > size.kthvalue(round(share * len(size))).values).view_as(weight) * 1.0
            weight.mul_(kept)
    left = float((weight != 0).double().mean())
    return {**errors, "error": error(model), "left": left}


@torch.no_grad()
def error(model: Adder) -> float:
    x, y = adding(4000, torch.Generator().manual_seed(999))
    return float(F.mse_loss(model(x), y)) / VARIANCE


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=1500)
    options.add_argument("--strength", type=float, default=0.1)
    options.add_argument("--pruned", type=float, default=0.9)
    given = options.parse_args()
    rest = {"steps": given.steps, "strength": given.strength, "pruned": given.pruned}
    kept = Runs(FOLDER / "moduli.jsonl", ("penalty", "seed", *rest))
    lines = []
    for penalty in PENALTIES:
        do = partial(learn, penalty, **rest)
        mine = list(seeds_of(kept, given.seeds, do, penalty=penalty, **rest))
        columns = [cell([run[key] for run in mine]) for key in ("whole", "error")]
        left = statistics.mean(run["left"] for run in mine)
        lines.append(f"| {penalty} | {' | '.join(columns)} | {left:.3f} | {len(mine)} |")
    text = [
        "# Pruning after a penalty by distance: the adding problem",
        "",
        f"An Elman layer of {UNITS} units, {LENGTH} numbers; {2 * given.steps:,} steps, penalty "
        f"times {given.strength:g}. Squared error over the variance of the sum: mean (lowest to "
        "highest seed).",
        "Command: `python benchmarks/moduli.py`",
        "",
        machine(),
        "",
        "| penalty | before pruning | after pruning | weights left | seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
        *lines,
    ]
    save("moduli", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
