"""Products of even permutations of five things (A5) with one layer: dense and diagonal ones.

    python benchmarks/a5.py [--seeds 3] [--steps 3000]

The task `a5` of `longstate.tasks`: after every symbol the product of all so far. Models have one
block with 64 channels, and an MLP after the layer, as the official code has. Each step trains on 32
words of one length from 3 to 12 and, as the official code does, on 32 words of length 2. Rows:

    dense              LinearCDE with 16 states, a matrix for each symbol, and a learned first state
    diagonal           LinearCDE with diagonal matrices, 64 states, and a learned first state
    mamba, attention   with their defaults
    rotations          the first one with stable=True: matrices that lengthen no state
    dense, from zero   the first one with a first state of zero
    ..., no pairs      the same, trained without the words of length 2
    ..., GLU           the same, with a GLU instead of the MLP, the default of this library

One learning rate, 0.003, for all. Accuracy over all positions but the first, at the longest length
of the training, 12, and beyond it: mean and, in brackets, lowest to highest seed. Finished runs are
kept in `trained/a5.jsonl`, so that the script can be stopped and run again.
"""

import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from command import parser
from measure import cell, machine, save
from runs import Run, Runs, seeds_of
from small_model import WIDTH, Model, train

from longstate.layers import Attention, Layer, LinearCDE, Mamba
from longstate.models._block import Gate
from longstate.tasks import Batch, chance, task

ROWS, RATE, LENGTHS, TESTED = 32, 3e-3, (3, 12), (2, 12, 20, 40, 100)


class Kind(NamedTuple):
    """Attributes:
    make: the layer.
    pairs: whether every step also trains on words of length 2.
    gate: after the layer.
    """

    make: Callable[[], Layer]
    pairs: bool = True
    gate: Gate = "mlp"


def dense() -> LinearCDE:
    return LinearCDE(WIDTH, d_state=16, start="learned")


def rotations() -> LinearCDE:
    return LinearCDE(WIDTH, d_state=16, start="learned", stable=True)


KINDS = {
    "dense": Kind(dense),
    "diagonal": Kind(lambda: LinearCDE(WIDTH, variant="diagonal", start="learned")),
    "mamba": Kind(lambda: Mamba(WIDTH)),
    "attention": Kind(lambda: Attention(WIDTH)),
    "rotations": Kind(rotations),
    "rotations, GLU": Kind(rotations, gate="glu"),
    "rotations, no pairs": Kind(rotations, pairs=False),
    "dense, from zero": Kind(lambda: LinearCDE(WIDTH, d_state=16)),
    "dense, no pairs": Kind(dense, pairs=False),
    "dense, GLU": Kind(dense, gate="glu"),
}


def run(kind: Kind, steps: int, seed: int) -> dict[str, Any]:
    """Train one model, and test it at each length on words of its own."""
    torch.manual_seed(seed)
    words = task("a5")
    model = Model(words, [kind.make()], gate=kind.gate)

    def draw(generator: torch.Generator) -> list[Batch]:
        length = int(torch.randint(LENGTHS[0], LENGTHS[1] + 1, (), generator=generator))
        lengths = (length, 2) if kind.pairs else (length,)
        return [words.sample(ROWS, n, generator) for n in lengths]

    seconds = train(model, draw, seed, steps, RATE)
    tests = [words.sample(256, n, torch.Generator().manual_seed(10**9 + seed)) for n in TESTED]
    size = sum(p.numel() for p in model.parameters())
    return {"accuracy": [model.score(t) for t in tests], "seconds": seconds, "parameters": size}


def row(name: str, found: list[Run]) -> str:
    cells = [cell(list(v)) for v in zip(*(r["accuracy"] for r in found), strict=True)]
    seconds = statistics.fmean(r["seconds"] for r in found)
    cells += [str(len(found)), f"{found[0]['parameters']:,}", f"{seconds:.0f}"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=3000)
    given = options.parse_args()
    torch.set_num_threads(1)
    kept = Path(__file__).parent / "trained" / "a5.jsonl"
    runs = Runs(kept, ("name", "seed", "steps"))
    done = {
        name: list(seeds_of(runs, given.seeds, partial(run, kind, given.steps),
                            name=name, steps=given.steps))
        for name, kind in KINDS.items()
    }  # fmt: skip
    head = ("layer", *(f"at {n}" for n in TESTED), "seeds", "parameters", "CPU s")
    guess = f"{chance(task('a5'), 2):.3f}"
    lines = [
        "# Products in A5 with one layer", "", machine(), "",
        f"{given.steps} steps; accuracy: mean (lowest to highest seed).", "",
        "Command: `python benchmarks/a5.py`", "",
        "## a5", "",
        "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1),
        *(row(name, found) for name, found in done.items()),
        "| chance |" + f" {guess} |" * len(TESTED) + " |" * 3,
    ]  # fmt: skip
    save("a5", "\n".join(lines))


if __name__ == "__main__":
    main()
