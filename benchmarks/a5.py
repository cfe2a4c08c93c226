"""Products of even permutations of five things (A5) with one layer: dense and diagonal ones.

    python benchmarks/a5.py [--seeds 3] [--steps 2000]

The task `a5` of `longstate.tasks`: after every symbol the product of all so far. Models have one
block with 64 channels. Each step trains on 32 words of one length from 3 to 12 and, as the official
code does, on 32 words of length 2, without which the product of two is hardly found. Rows:

    dense              LinearCDE with 16 states, a matrix for each symbol, and a learned first state
    dense, from zero   the same, with a first state of zero
    dense, no pairs    the first one, trained without the words of length 2
    diagonal           LinearCDE with diagonal matrices, 64 states, and a learned first state
    mamba, attention   with their defaults

One learning rate, 0.003, for all. Accuracy over all positions but the first, at the longest length
of the training, 12, and beyond it: mean and, in brackets, lowest to highest seed. Finished runs are
kept in `trained/a5.jsonl`, so that the script can be stopped and run again.
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from command import parser
from measure import machine, save
from runs import Runs
from torch import nn

from longstate.layers import Attention, Layer, LinearCDE, Mamba
from longstate.models import Stack
from longstate.tasks import Task, accuracy, chance, task
from longstate.train import Training, make_optimiser

WIDTH, ROWS, RATE, LENGTHS, TESTED = 64, 32, 3e-3, (3, 12), (2, 12, 20, 40, 100)
COLUMNS = ("at 2", "at 12", "at 20", "at 40", "at 100")


class Kind(NamedTuple):
    """Attributes:
    make: the layer.
    pairs: whether every step also trains on words of length 2.
    """

    make: Callable[[], Layer]
    pairs: bool = True


KINDS = {
    "dense": Kind(lambda: LinearCDE(WIDTH, d_state=16, start="learned")),
    "dense, from zero": Kind(lambda: LinearCDE(WIDTH, d_state=16)),
    "dense, no pairs": Kind(lambda: LinearCDE(WIDTH, d_state=16, start="learned"), pairs=False),
    "diagonal": Kind(lambda: LinearCDE(WIDTH, variant="diagonal", start="learned")),
    "mamba": Kind(lambda: Mamba(WIDTH)),
    "attention": Kind(lambda: Attention(WIDTH)),
}


class Model(nn.Module):
    """Symbols to logits, with one block."""

    def __init__(self, layer: Layer):
        super().__init__()
        self.into, self.stack = nn.Embedding(60, WIDTH), Stack([layer])
        self.out = nn.Linear(WIDTH, 60)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.out(self.stack(self.into(x))[0])
        return logits


def train(kind: Kind, words: Task, seed: int, steps: int) -> Model:
    torch.manual_seed(seed)
    model, draw = Model(kind.make()), torch.Generator().manual_seed(seed)
    optimiser = make_optimiser(model, Training(learning_rate=RATE, dynamics_rate=RATE))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda i: min(1, (i + 1) / 50) * (1 - i / steps)
    )
    for _ in range(steps):
        length = int(torch.randint(LENGTHS[0], LENGTHS[1] + 1, (), generator=draw))
        batches = [words.sample(ROWS, n, draw) for n in ((length, 2) if kind.pairs else (length,))]
        losses = [
            nn.functional.cross_entropy(model(b.inputs)[b.scored], b.targets[b.scored])
            for b in batches
        ]
        optimiser.zero_grad()
        sum(losses, torch.zeros(())).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def tested(model: Model, words: Task, seed: int) -> list[float]:
    """Accuracy at each length, on words of its own."""
    found = []
    for length in TESTED:
        batch = words.sample(256, length, torch.Generator().manual_seed(10**9 + seed))
        answers = torch.cat([model(x).argmax(-1) for x in batch.inputs.split(32)])
        found.append(accuracy(words, answers, batch))
    return found


def run(name: str, seed: int, steps: int) -> dict[str, Any]:
    words, began = task("a5"), time.process_time()
    model = train(KINDS[name], words, seed, steps)
    spent = time.process_time() - began
    size = sum(p.numel() for p in model.parameters())
    found = {"accuracy": tested(model, words, seed), "seconds": spent, "parameters": size}
    return {"name": name, "seed": seed, "steps": steps, **found}


def row(name: str, found: list[dict[str, Any]]) -> str:
    each = zip(*(r["accuracy"] for r in found), strict=True)
    cells = [f"{statistics.fmean(v):.3f} ({min(v):.3f} to {max(v):.3f})" for v in each]
    seconds = statistics.fmean(r["seconds"] for r in found)
    cells += [str(len(found)), f"{found[0]['parameters']:,}", f"{seconds:.0f}"]
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    options.add_argument("--steps", type=int, default=2000)
    given = options.parse_args()
    torch.set_num_threads(1)
    kept = Path(__file__).parent / "trained" / "a5.jsonl"
    runs = Runs(kept, ("name", "seed", "steps"))
    for name in KINDS:
        for seed in range(given.seeds):
            if not runs.has(name=name, seed=seed, steps=given.steps):
                runs.add(run(name, seed, given.steps))
                print(runs.all()[-1], flush=True)
    done = {
        name: [r for r in runs.all() if r["name"] == name and r["steps"] == given.steps]
        for name in KINDS
    }
    head = ("layer", *COLUMNS, "seeds", "parameters", "CPU s")
    guess = f"{chance(task('a5'), 2):.3f}"
    lines = [
        "# Products in A5 with one layer", "", machine(), "",
        f"{given.steps} steps; accuracy: mean (lowest to highest seed).", "",
        "Command: `python benchmarks/a5.py`", "",
        "## a5", "",
        "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1),
        *(row(name, found[: given.seeds]) for name, found in done.items()),
        "| chance |" + f" {guess} |" * len(TESTED) + " |" * 3,
    ]  # fmt: skip
    save("a5", "\n".join(lines))


if __name__ == "__main__":
    main()
