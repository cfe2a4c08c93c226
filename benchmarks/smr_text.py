"""Text with and without State Memory Replay, after equal steps and after equal processor time.

    python benchmarks/smr_text.py tinyshakespeare.txt [--layers mamba s4d] [--steps 600]
        [--seeds 3]

Bytes; two blocks of 128 channels, windows of 256. The step of a training with SMR and of one
without are timed in turn, in processor time; the model without SMR is then trained a third time,
for as many steps as fit in the time of the model with SMR. Each training has its own schedule of
learning rates, that ends with it. The last tenth of the text is read in windows of 256.

Finished runs are kept in `benchmarks/trained`, so that the script can be stopped and run again.
"""

import statistics
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from command import parser
from kept import FOLDER
from measure import machine, save
from runs import Run, Runs, seeds_of

from longstate.models import LanguageModel, LanguageSpec
from longstate.train import ByteTokens, Training, train
from longstate.train._corpus import Corpus, open_corpus
from longstate.train._text_task import TextTask

WIDTH, BLOCKS, CONTEXT = 128, 2, 256
SETTINGS = Training(
    epochs=4, batch_size=8, learning_rate=3e-3, dynamics_rate=1e-3, weight_decay=0.1, patience=9
)
ROUNDS, TIMED = 7, 6  # rounds of the timing, and steps of each


def task_of(layer: str, corpus: Corpus, steps: int, seed: int) -> TextTask:
    torch.manual_seed(seed)
    model = LanguageModel(LanguageSpec(256, WIDTH, (layer,) * BLOCKS))
    return TextTask(model, corpus, CONTEXT, steps=steps, settings=SETTINGS, seed=seed)


def cost(layer: str, corpus: Corpus) -> list[float]:
    """Processor time of a step with SMR over that of one without, in each round."""

    def steps(name: str) -> Iterator[float]:
        task = task_of(name, corpus, TIMED * (ROUNDS + 1), 0)
        optimiser = torch.optim.AdamW(task.model.parameters())
        rows = task.epoch(0)
        for _ in range(ROUNDS + 1):
            began = time.process_time()
            for i in range(TIMED):
                optimiser.zero_grad()
                task.loss(rows[i % len(rows)]).backward()
                optimiser.step()
            yield time.process_time() - began

    with_smr, without = steps(f"smr:{layer}"), steps(layer)
    return [a / b for a, b in zip(with_smr, without, strict=True)][1:]  # the first one compiles


def learn(layer: str, corpus: Corpus, steps: int, seed: int) -> dict[str, float]:
    """Bits per byte of the validation part, and processor time."""
    task = task_of(layer, corpus, steps, seed)
    began = time.process_time()
    history = train(task, SETTINGS, seed=seed)
    seconds = time.process_time() - began
    with torch.inference_mode():
        task.model.eval()
        bits = task.validate()
    return {
        "bits": bits, "seconds": seconds, "best_step": history.best_step,
        "parameters": sum(p.numel() for p in task.model.parameters()),
    }  # fmt: skip


def row(layer: str, what: str, runs: list[Run]) -> str:
    bits = [run["bits"] for run in runs]
    spread = f" ± {statistics.stdev(bits):.3f}" if len(bits) > 1 else ""
    seconds = statistics.median(run["seconds"] for run in runs)
    cells = (
        layer, what, f"{runs[0]['steps']:,}", f"{statistics.mean(bits):.3f}{spread}",
        f"{len(bits)}", f"{runs[0]['parameters']:,}", f"{seconds:.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("data", type=Path)
    options.add_argument("--layers", nargs="+", default=["mamba", "s4d"])
    options.add_argument("--steps", type=int, default=600, help="of the model with SMR")
    options.add_argument("--seeds", type=int, default=3)
    given = options.parse_args()
    corpus = open_corpus([given.data], ByteTokens(), FOLDER)
    kept = Runs(FOLDER / "smr_text.jsonl", ("layer", "steps", "seed"))
    costs = Runs(FOLDER / "smr_text_costs.jsonl", ("layer",))
    lines, costly = [], []
    for layer in given.layers:
        if not costs.has(layer=layer):
            costs.add({"layer": layer, "ratios": cost(layer, corpus)})
        ratios = next(c["ratios"] for c in costs.all() if c["layer"] == layer)
        more = round(given.steps * statistics.median(ratios))
        plans = {
            "SMR": (f"smr:{layer}", given.steps),
            "alone, equal steps": (layer, given.steps),
            "alone, equal time": (layer, more),
        }
        for what, (name, steps) in plans.items():
            do = partial(learn, name, corpus, steps)
            runs = list(seeds_of(kept, given.seeds, do, layer=name, steps=steps))
            lines.append(row(layer, what, runs))
        costly.append(
            f"{layer} {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    seeds = ", ".join(map(str, range(given.seeds)))
    text = [
        f"# Text with and without State Memory Replay: {given.data.stem}, bytes",
        "",
        f"{BLOCKS} blocks of {WIDTH} channels, windows of {CONTEXT}, batches of "
        f"{SETTINGS.batch_size}, AdamW at {SETTINGS.learning_rate:g} for all. Bits per byte of the "
        f"last tenth, lower is better; mean ± deviation over the seeds {seeds}. Processor time of "
        "a step with SMR over one without, median (range) of "
        f"{ROUNDS} rounds: {', '.join(costly)}.",
        f"Command: `python benchmarks/smr_text.py {given.data.name}`",
        "",
        machine(),
        "",
        "| layer | training | steps | bits per byte | seeds | parameters | CPU s |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *lines,
    ]
    save("smr_text", "\n".join(text) + "\n")


if __name__ == "__main__":
    main()
