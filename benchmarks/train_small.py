"""Whether a penalty on the size of states in training makes a model that reduces further.

    python benchmarks/train_small.py TEXT [--layers s4d,mamba] [--weights 0,0.01,0.1]
        [--seeds 0,1,2] [--steps 300] [--cache FOLDER]

For every layer, weight of the penalty (`state_budget`) and seed, a text model of two blocks is
trained on the first nine tenths of TEXT, reduced by `longstate.reduce` without further training,
and scored on 16 KiB of the rest, which no training or reduction reads. The table has the mean of
the seeds of the bits per byte for each kept share of the states, and the smallest kept share that
costs a model at most 1 % of its own bits per byte: the median of the seeds.

Finished runs are kept in the cache folder and not repeated.
"""

import json
import statistics
import time
from pathlib import Path

import torch
from command import parser
from measure import machine, save

import longstate
from longstate import TextModel
from longstate.train import TextTraining

KEPT = (1.0, 0.5, 0.25, 0.125, 0.0625)
CONTEXT, BATCH, WIDTH, BLOCKS, TEST = 128, 8, 32, 2, 1 << 14


def run(text: str, layer: str, weight: float, seed: int, steps: int) -> dict[str, float]:
    """Bits per byte for every kept share."""
    cut = len(text) * 9 // 10
    training = TextTraining(batch_size=BATCH, steps=steps, state_budget=weight)
    model = TextModel(
        layer, d_model=WIDTH, n_layers=BLOCKS, context=CONTEXT, training=training, seed=seed
    )
    started = time.monotonic()
    model.fit(text=text[:cut])
    seconds = time.monotonic() - started
    data = torch.tensor(list(text[: 32 * CONTEXT].encode()[: 32 * CONTEXT])).view(32, CONTEXT)
    found = {"seconds": seconds}
    for share in KEPT:
        small = model if share == 1 else longstate.reduce(model, data, keep=share)[0]
        found[str(share)] = small.score(text=text[cut : cut + TEST]).bits_per_byte
    return found


def cached(folder: Path, text: str, layer: str, weight: float, seed: int, steps: int) -> dict:
    path = folder / f"{layer}_{weight:g}_{seed}_{steps}.json"
    if not path.exists():
        found = run(text, layer, weight, seed, steps)
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found))
        print(path.name, found, flush=True)
    return json.loads(path.read_text())


def smallest(found: dict[str, float]) -> float:
    """The smallest kept share, of those in a row from the whole, within 1 % of the whole model."""
    best = 1.0
    for share in KEPT:
        if found[str(share)] > 1.01 * found["1.0"]:
            break
        best = share
    return best


def main() -> None:
    options = parser(__doc__)
    options.add_argument("text")
    options.add_argument("--layers", default="s4d,mamba")
    options.add_argument("--weights", default="0,0.01,0.1")
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--steps", type=int, default=300)
    options.add_argument("--cache", type=Path, default=Path("train_small_cache"))
    arguments = options.parse_args()
    torch.set_num_threads(1)
    text = Path(arguments.text).read_text()
    seeds = [int(s) for s in arguments.seeds.split(",")]
    lines = [
        "# A penalty on the size of states in training", "", machine(), "",
        f"Text: {Path(arguments.text).name}. {BLOCKS} blocks of {WIDTH} channels, windows of "
        f"{CONTEXT}, batches of {BATCH}, {arguments.steps} steps; seeds {arguments.seeds}. Bits "
        f"per byte of {TEST:,} bytes that were not read before, mean of the seeds.", "",
        "Command: `python benchmarks/train_small.py TEXT`", "",
    ]  # fmt: skip
    head = ["layer", "state_budget", *(f"keep {share:g}" for share in KEPT), "least share for 1 %"]
    lines += ["| " + " | ".join(head) + " |", "| --- | --: |" + " --: |" * (len(KEPT) + 1)]
    for layer in arguments.layers.split(","):
        for weight in (float(w) for w in arguments.weights.split(",")):
            runs = [
                cached(arguments.cache, text, layer, weight, seed, arguments.steps)
                for seed in seeds
            ]
            means = [f"{statistics.mean(r[str(k)] for r in runs):.3f}" for k in KEPT]
            least = statistics.median(smallest(r) for r in runs)
            lines.append("| " + " | ".join([layer, f"{weight:g}", *means, f"{least:g}"]) + " |")
    save("train_small", "\n".join(lines))


if __name__ == "__main__":
    main()
