"""Numbers kept through noise, for layers that are trained with as much noise as in the test.

    python benchmarks/noise.py [--seeds 3] [--steps 400]

The task `noise_padded` of `longstate.tasks`: eight numbers, then noise, then eight questions. A
model of two blocks with 64 channels is trained on rows of one length, 16 of them in a step with a
rate of 0.01, and tested on other rows of that length. The longer the rows, the longer the noise.
Share of the variance that is explained: mean and, in brackets, lowest to highest seed. Finished
runs are kept in `trained/noise.jsonl`, so that the script can be stopped and run again.
"""

import statistics
from functools import partial
from pathlib import Path
from typing import Any

import torch
from command import parser
from measure import cell, machine, save
from runs import Run, Runs, seeds_of
from small_model import WIDTH, Model, train

from longstate.layers import HOPE, S4D, Mamba
from longstate.tasks import task

LAYERS = {"hope": HOPE, "s4d": S4D, "mamba": Mamba}
LENGTHS, ROWS, TESTS, RATE = (64, 512), 16, 128, 1e-2


def run(layer: str, length: int, steps: int, seed: int) -> dict[str, Any]:
    torch.manual_seed(seed)
    padded = task("noise_padded")
    model = Model(padded, [LAYERS[layer](WIDTH) for _ in range(2)])
    seconds = train(model, lambda g: [padded.sample(ROWS, length, g)], seed, steps, RATE)
    test = padded.sample(TESTS, length, torch.Generator().manual_seed(10**9 + seed))
    return {"explained": model.score(test), "seconds": seconds}


def row(layer: str, found: list[list[Run]]) -> str:
    cells = [cell([r["explained"] for r in runs]) for runs in found]
    seconds = statistics.fmean(r["seconds"] for r in found[-1])
    return f"| {layer} | {' | '.join(cells)} | {len(found[0])} | {seconds:.0f} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=400)
    given = options.parse_args()
    torch.set_num_threads(1)
    kept = Path(__file__).parent / "trained" / "noise.jsonl"
    runs = Runs(kept, ("layer", "length", "seed", "steps"))
    done = {
        layer: [
            list(seeds_of(runs, given.seeds, partial(run, layer, length, given.steps),
                          layer=layer, length=length, steps=given.steps))
            for length in LENGTHS
        ]
        for layer in LAYERS
    }  # fmt: skip
    head = ("layer", *(f"length {n}" for n in LENGTHS), "seeds", "CPU s of the longest")
    lines = [
        "# Numbers kept through noise, trained and tested with the same length", "", machine(), "",
        f"Two blocks of {WIDTH} channels, {given.steps} steps of {ROWS} rows, rate {RATE:g}. "
        "Explained share of the variance: mean (lowest to highest seed).", "",
        "Command: `python benchmarks/noise.py`", "",
        "## noise", "",
        "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1),
        *(row(layer, found) for layer, found in done.items()),
    ]  # fmt: skip
    save("noise", "\n".join(lines))


if __name__ == "__main__":
    main()
