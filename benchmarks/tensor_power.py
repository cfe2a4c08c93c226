"""The adding problem with a cell of learned powers.

    python benchmarks/tensor_power.py [--seeds 3] [--steps 800] [--units 48]

Of 30 numbers two are marked, and their sum is wanted (`benchmarks/moduli.py`). Cells of `--units`:
Elman, `TensorPower` with its power kept at 1 and with a learned power from 1 and from 2, and an
LSTM. Every cell has `--steps` of Adam, with clipped gradients. The error is the mean squared error
over the variance of the sum: 1 is what the mean gives. The power is the mean over units at the end.
"""

import math
from functools import partial

import torch
from command import parser
from kept import FOLDER
from measure import cell, machine, save
from moduli import BATCH, RATE, VARIANCE, adding
from runs import Runs, seeds_of
from torch import Tensor, nn
from torch.nn import functional as F

from longstate.layers import LSTM, Elman, Layer, TensorPower

CELLS = ("Elman", "power 1, fixed", "power from 1", "power from 2", "LSTM")


def made(name: str, units: int) -> Layer:
    if not name.startswith("power"):
        return {"Elman": Elman, "LSTM": LSTM}[name](16, d_state=units)
    layer = TensorPower(16, d_state=units)
    nn.init.constant_(layer.log_power, math.log(float(name.split(",")[0][-1])))
    layer.log_power.requires_grad_("fixed" not in name)
    return layer


class Adder(nn.Module):
    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.encode, self.layer, self.decode = nn.Linear(2, 16), layer, nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.layer(self.encode(x))[0][:, -1])[:, 0]


def learn(name: str, seed: int, steps: int, units: int) -> dict[str, float]:
    torch.manual_seed(seed)
    draw = torch.Generator().manual_seed(1000 + seed)
    model = Adder(made(name, units))
    optimiser = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], RATE)
    for _ in range(steps):
        x, y = adding(BATCH, draw)
        optimiser.zero_grad()
        F.mse_loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimiser.step()
    with torch.no_grad():
        x, y = adding(2000, torch.Generator().manual_seed(999))
        error = float(F.mse_loss(model(x), y)) / VARIANCE
        power = getattr(model.layer, "log_power", torch.zeros(1)).exp().mean()
    return {"error": error, "power": float(power)}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=800)
    options.add_argument("--units", type=int, default=48)
    given = options.parse_args()
    rest = {"steps": given.steps, "units": given.units}
    kept = Runs(FOLDER / "tensor_power.jsonl", ("cell", "seed", *rest))
    lines = []
    for name in CELLS:
        mine = list(seeds_of(kept, given.seeds, partial(learn, name, **rest), cell=name, **rest))
        columns = [cell([run[key] for run in mine]) for key in ("error", "power")]
        lines.append(f"| {name} | {' | '.join(columns)} | {len(mine)} |")
    text = [
        "# The adding problem with learned powers",
        "",
        f"30 numbers, {given.units} units, {given.steps} steps. Squared error over the variance of "
        "the sum, and the mean power: mean (lowest to highest seed).",
        "Command: `python benchmarks/tensor_power.py`",
        "",
        machine(),
        "",
        "| cell | error | power | seeds |",
        "| --- | ---: | ---: | ---: |",
        *lines,
    ]
    save("tensor_power", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
