"""Which slow oscillation is in a long, noisy series: LinOSS beside Mamba, S5 and S4D.

    python benchmarks/long_series.py [--seeds 3] [--steps 200]

A series of 8,192 samples has white noise of variance 1 and a sine of amplitude 0.5 and random
phase, which goes through 4, 6, 8, 11, 16, 23, 32 or 45 cycles: eight classes. Two blocks of 32
channels, the mean over time, and a linear map; 4 series in a step. Of the learning rates 0.001 and
0.01 the one that is better on other series with seed 0 is used for all seeds. Accuracy on 128 more
series: mean and, in brackets, lowest to highest. Chance is 1 / 8. Finished runs are kept in
`trained/long_series.jsonl`, so that the script can be stopped and run again.

The claim is that of LinOSS (Rusch and Rus, 2024, arXiv:2410.03943) on series of tens of thousands
of samples, such as movements of worms. This set is ours: oscillations decide in it.
"""

import math
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command import parser
from measure import cell, machine, save
from runs import Run, Runs, seeds_of
from small_model import Trained, train
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from longstate.layers import S4D, S5, Layer, LinOSS, Mamba
from longstate.models import Stack

LAYERS = {"linoss": LinOSS, "mamba": Mamba, "s5": S5, "s4d": S4D}
LENGTH, WIDTH, BATCH, TESTS, RATES = 8192, 32, 4, 128, (1e-3, 1e-2)
CYCLES, AMPLITUDE = torch.tensor([4, 6, 8, 11, 16, 23, 32, 45]), 0.5


def series(count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Series (b, t, 1), and their classes."""
    kind = torch.randint(0, len(CYCLES), (count,), generator=generator)
    phase = 2 * math.pi * torch.rand(count, 1, generator=generator)
    angle = 2 * math.pi * CYCLES[kind, None] * torch.arange(LENGTH) / LENGTH
    noise = torch.randn(count, LENGTH, generator=generator)
    return (AMPLITUDE * torch.sin(angle + phase) + noise)[..., None], kind


class Model(Trained):
    def __init__(self, layers: list[Layer]):
        super().__init__()
        self.into, self.stack = nn.Linear(1, WIDTH), Stack(layers)
        self.out = nn.Linear(WIDTH, len(CYCLES))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.stack(self.into(x))[0].mean(1))
        return logits

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self(batch[0]), batch[1])


@torch.no_grad()
def accuracy(model: Model, seed: int) -> float:
    x, y = series(TESTS, Generator().manual_seed(seed))
    given = torch.cat([model(part).argmax(-1) for part in x.split(BATCH)])
    return float((given == y).double().mean())


def run(layer: str, steps: int, rate: float, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    model = Model([LAYERS[layer](WIDTH) for _ in range(2)])
    draw = lambda generator: [series(BATCH, generator)]  # noqa: E731
    seconds = train(model, draw, seed, steps, rate, min(rate, 1e-3))
    found = {"validation": accuracy(model, 10**8 + seed), "test": accuracy(model, 10**9 + seed)}
    return {**found, "seconds": seconds}


def of_layer(layer: str, runs: Runs, seeds: int, steps: int) -> list[Run]:
    """The runs of all seeds with the better rate."""
    tried = {
        rate: next(seeds_of(runs, 1, partial(run, layer, steps, rate),
                            layer=layer, steps=steps, rate=rate))
        for rate in RATES
    }  # fmt: skip
    rate = max(RATES, key=lambda r: tried[r]["validation"])
    do = partial(run, layer, steps, rate)
    return list(seeds_of(runs, seeds, do, layer=layer, steps=steps, rate=rate))


def row(layer: str, found: list[Run]) -> str:
    seconds = statistics.fmean(r["seconds"] for r in found)
    cells = [cell([r["test"] for r in found]), f"{found[0]['rate']:g}", str(len(found))]
    return f"| {layer} | {' | '.join(cells)} | {seconds:.0f} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=200)
    given = options.parse_args()
    torch.set_num_threads(1)
    kept = Path(__file__).parent / "trained" / "long_series.jsonl"
    runs = Runs(kept, ("layer", "steps", "rate", "seed"))
    done = {layer: of_layer(layer, runs, given.seeds, given.steps) for layer in LAYERS}
    lines = [
        "# Which slow oscillation is in a long series", "", machine(), "",
        f"{LENGTH:,} samples, {given.steps} steps of {BATCH} series. Accuracy: mean (lowest to "
        "highest seed).", "",
        "Command: `python benchmarks/long_series.py`", "",
        "## long series", "",
        "| layer | accuracy | rate | seeds | CPU s |", "| --- | ---: | ---: | ---: | ---: |",
        *(row(layer, found) for layer, found in done.items()),
        f"| chance | {1 / len(CYCLES):.3f} |  |  |  |",
    ]  # fmt: skip
    save("long_series", "\n".join(lines))


if __name__ == "__main__":
    main()
