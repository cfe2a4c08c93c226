"""Ways to a text model with a small state: a penalty, truncation while training, a small layer.

    python benchmarks/train_small.py TEXT [--layers s4d,mamba] [--weights 0,0.01,0.1]
        [--shares 0.125] [--seeds 0,1,2] [--steps 300] [--cache FOLDER]

For every layer, weight of the penalty (`state_budget`) and seed, a text model of two blocks is
trained on the first nine tenths of TEXT, reduced by `longstate.reduce` without further training,
and scored on 16 KiB of the rest, which no training or reduction reads. The first table has the mean
of the seeds of the bits per byte for each kept share of the states, and the smallest kept share
that costs a model at most 1 % of its own bits per byte: the median of the seeds.

The second table compares four ways to the same share: reduction after training, without and with
the first penalty above 0, truncation while training (`shrink_to`), and layers that have so few
states from the start. The number of steps is the same for all.

Finished runs are kept in the cache folder and not repeated.
"""

import inspect
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import torch
from command import parser
from measure import machine, save
from published import error_of_mean

import longstate
from longstate import TextModel, layers
from longstate.models import LanguageSpec
from longstate.train import TextTraining, _text_model

KEPT = (1.0, 0.5, 0.25, 0.125, 0.0625)
CONTEXT, BATCH, WIDTH, BLOCKS, TEST = 128, 8, 32, 2, 1 << 14


class Way(NamedTuple):
    """How a model is trained. `start`: share of the states that its layers have at the start."""

    weight: float = 0.0
    shrink_to: float | None = None
    start: float = 1.0

    @property
    def name(self) -> str:
        if self.shrink_to is not None:
            return f"shrink{self.shrink_to:g}"
        return f"{self.weight:g}" if self.start == 1 else f"start{self.start:g}"


def new_model(layer: str, way: Way, seed: int, steps: int) -> TextModel:
    training = TextTraining(
        batch_size=BATCH, steps=steps, state_budget=way.weight, shrink_to=way.shrink_to
    )
    return TextModel(
        layer, d_model=WIDTH, n_layers=BLOCKS, context=CONTEXT, training=training, seed=seed
    )


def options(layer: str, share: float) -> dict[str, dict[str, int]]:
    """Of a language model whose layers have a share of their usual number of states."""
    kind = next(getattr(layers, name) for name in dir(layers) if name.lower() == layer)
    whole = inspect.signature(kind).parameters["d_state"].default
    return {layer: {"d_state": round(share * whole)}}


def run(text: str, layer: str, way: Way, seed: int, steps: int) -> dict[str, float]:
    """Bits per byte for every kept share; of a model that is small already, without reduction."""
    cut = len(text) * 9 // 10
    model, started = new_model(layer, way, seed, steps), time.monotonic()
    smaller = {} if way.start == 1 else {"options": options(layer, way.start)}
    with mock.patch.object(_text_model, "LanguageSpec", partial(LanguageSpec, **smaller)):
        model.fit(text=text[:cut])
    found: dict[str, float] = {"seconds": time.monotonic() - started}
    data = torch.tensor(list(text[: 32 * CONTEXT].encode()[: 32 * CONTEXT])).view(32, CONTEXT)
    for share in KEPT if way.shrink_to is None and way.start == 1 else (1.0,):
        small = model if share == 1 else longstate.reduce(model, data, keep=share)[0]
        found[str(share)] = small.score(text=text[cut : cut + TEST]).bits_per_byte
    return found


def cached(folder: Path, text: str, layer: str, way: Way, seed: int, steps: int) -> dict[str, Any]:
    path = folder / f"{layer}_{way.name}_{seed}_{steps}.json"
    if not path.exists():
        found = run(text, layer, way, seed, steps)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
        print(path.name, found, flush=True)
    made: dict[str, Any] = json.loads(path.read_text())
    return made


def smallest(found: dict[str, float]) -> float:
    """The smallest kept share, of those in a row from the whole, within 1 % of the whole model."""
    best = 1.0
    for share in KEPT:
        if found[str(share)] > 1.01 * found["1.0"]:
            break
        best = share
    return best


def penalties(every: Any, layer: str, weights: list[float]) -> list[str]:
    """Rows of the first table."""
    lines = []
    for weight in weights:
        runs = every(layer, Way(weight))
        means = [f"{statistics.mean(r[str(k)] for r in runs):.3f}" for k in KEPT]
        least = statistics.median(smallest(r) for r in runs)
        lines.append("| " + " | ".join([layer, f"{weight:g}", *means, f"{least:g}"]) + " |")
    return lines


def ways(every: Any, layer: str, share: float, weight: float) -> list[str]:
    """Rows of the second table."""
    lines = []
    for name, way, key in (
        ("whole", Way(), "1.0"),
        ("reduced after training", Way(), str(share)),
        (f"penalty of {weight:g}, reduced after training", Way(weight), str(share)),
        ("truncated while training", Way(shrink_to=share), "1.0"),
        ("small from the start", Way(start=share), "1.0"),
    ):
        bits = [r[key] for r in every(layer, way)]
        cells = [layer, name, f"{statistics.mean(bits):.3f} ± {error_of_mean(bits):.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("text", type=Path)
    options.add_argument("--layers", default="s4d,mamba")
    options.add_argument("--weights", default="0,0.01,0.1")
    options.add_argument("--shares", default="0.125", help="some of 0.5, 0.25, 0.125, 0.0625")
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--cache", type=Path, default=Path("train_small_cache"))
    options.add_argument("--note", default="", help="a remark for the result, such as other load")
    given = options.parse_args()
    torch.set_num_threads(1)
    text = given.text.read_text("utf-8")
    seeds = [int(s) for s in given.seeds.split(",")]
    weights, shares = ([float(x) for x in v.split(",")] for v in (given.weights, given.shares))
    penalty = next((w for w in weights if w > 0), 0.0)

    def every(layer: str, way: Way) -> list[dict[str, Any]]:
        return [cached(given.cache, text, layer, way, seed, given.steps) for seed in seeds]

    lines = [
        "# A penalty on the size of states in training", "", machine(), "",
        f"Text: {given.text.name}. {BLOCKS} blocks of {WIDTH} channels, windows of "
        f"{CONTEXT}, batches of {BATCH}, {given.steps} steps; seeds {given.seeds}. Bits "
        f"per byte of {TEST:,} bytes that were not read before, mean of the seeds. {given.note}",
        "", "Command: `python benchmarks/train_small.py TEXT`", "",
    ]  # fmt: skip
    head = ["layer", "state_budget", *(f"keep {share:g}" for share in KEPT), "least share for 1 %"]
    lines += ["| " + " | ".join(head) + " |", "| --- | --: |" + " --: |" * (len(KEPT) + 1)]
    for layer in given.layers.split(","):
        lines += penalties(every, layer, weights)
    for share in shares:
        lines += ["", f"## Ways to {share:.1%} of the state", ""]
        lines += ["Bits per byte: mean of the seeds ± standard error.", ""]
        lines += ["| layer | way | bits per byte |", "| --- | --- | --: |"]
        for layer in given.layers.split(","):
            lines += ways(every, layer, share, penalty)
    save("train_small", "\n".join(lines))


if __name__ == "__main__":
    main()
