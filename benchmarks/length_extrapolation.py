"""Evaluate layers on longer texts than in their training.

    python benchmarks/length_extrapolation.py tinyshakespeare.txt --work FOLDER
        [--layers Mamba "Longhorn, exact"] [--steps 1000] [--seeds 0,1,2] [--threads 2]

Bytes; small models of equal depth, steps, rate and, by their width, parameters; trained on windows
of 256. The last tenth of the text is then read in windows of 256, 1024 and 4096 bytes, each from a
zero state that is carried through the whole window. The same bytes are predicted in each case: all
of them, and the last 256 of every window of 4096, which are predicted after 0, 768 and 3840 bytes
of the window. The published claim is that Longhorn keeps its perplexity at 16 times the training
length (Liu et al. 2024, arXiv:2407.14207).

One JSON line for each finished run is written to FOLDER/runs.jsonl; finished runs are not repeated.
"""

import math
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from command import parser
from measure import machine, save
from runs import Runs
from torch.nn import functional as F

from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec
from longstate.train import ByteTokens, Progress, Training, train
from longstate.train._corpus import Corpus, open_corpus
from longstate.train._text_task import TextTask

CONTEXT, LENGTHS, LAST = 256, (256, 1024, 4096), 256
BLOCKS, BATCH, RATE = 2, 8, 3e-3
HEADS = {"d_state": 64, "d_head": 32}
LAYERS: dict[str, tuple[str, dict[str, Any]]] = {
    "Mamba": ("mamba", {}),
    "Mamba-2": ("mamba2", HEADS),
    "Mamba-3": ("mamba3", HEADS),
    "Longhorn, diagonal": ("longhorn", {"variant": "diagonal"}),
    "Longhorn, exact": ("longhorn", {"variant": "exact"}),
    "S4D": ("s4d", {}),
}


def make(label: str, width: int) -> LanguageModel:
    layer, options = LAYERS[label]
    return LanguageModel(LanguageSpec(256, width, (layer,) * BLOCKS, options={layer: options}))


def size(model: LanguageModel) -> int:
    return sum(p.numel() for p in model.parameters())


def width_for(label: str, parameters: int) -> int:
    """The width with the number of parameters closest to `parameters`."""

    def sizes() -> Iterator[tuple[int, int]]:
        for width in range(96, 257, 2):
            try:
                yield abs(size(make(label, width)) - parameters), width
            except InputError:  # heads do not divide every width
                continue

    return min(sizes())[1]


def learn(label: str, seed: int, corpus: Corpus, steps: int) -> dict[str, Any]:
    width = width_for(label, size(make("Mamba", 128)))
    settings = Training(
        epochs=4,
        batch_size=BATCH,
        learning_rate=RATE,
        dynamics_rate=1e-3,
        weight_decay=0.1,
        patience=9,
    )
    torch.manual_seed(seed)
    model = make(label, width)
    task = TextTask(model, corpus, CONTEXT, steps=steps, settings=settings, seed=seed)

    def show(progress: Progress) -> None:
        if sys.stderr.isatty():
            print(f"\r{label}, seed {seed}: step {progress.step}", end="\x1b[K\r", file=sys.stderr)

    began = time.process_time()  # so that other work on the machine is not counted
    history = train(task, settings, seed=seed, show=show)
    trained = time.process_time() - began
    found = evaluate(model.eval(), corpus)
    return {
        "layer": label,
        "seed": seed,
        "steps": steps,
        "text": corpus.digest,
        "width": width,
        "parameters": size(model),
        "best_step": history.best_step,
        "seconds": trained,
        "seconds_evaluating": time.process_time() - began - trained,
        **found,
    }


@torch.inference_mode()
def evaluate(model: LanguageModel, corpus: Corpus) -> dict[str, dict[str, float]]:
    """Bits per byte at each length: over all bytes, and over the last of the longest windows."""
    longest = max(LENGTHS)
    windows = (corpus.tokens - corpus.train - 1) // longest
    if not windows:
        raise InputError(f"the last tenth of the text must be longer than {longest} bytes")
    text = torch.from_numpy(corpus.window(corpus.train, windows * longest + 1))
    inputs, targets = text[:-1], text[1:]
    everything, last = {}, {}
    for length in LENGTHS:
        rows = max(1, longest // length)
        losses = []
        for start in range(0, len(inputs), rows * length):
            piece = slice(start, start + rows * length)
            logits, _ = model(inputs[piece].view(-1, length))
            losses.append(F.cross_entropy(logits.flatten(0, 1), targets[piece], reduction="none"))
        bits = torch.cat(losses).double() / math.log(2)
        everything[str(length)] = float(bits.mean())
        last[str(length)] = float(bits.view(windows, longest)[:, -LAST:].mean())
    return {"all": everything, "last": last}


def cell(values: list[float]) -> str:
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread}"


def table(runs: list[dict[str, Any]], key: str) -> list[str]:
    heads = [f"{n}" for n in LENGTHS]
    lines = [
        f"| layer | {' | '.join(heads)} | {LENGTHS[-1]} less {LENGTHS[0]} |",
        "| --- |" + " --- |" * (len(heads) + 1),
    ]
    for label in LAYERS:
        mine = [run[key] for run in runs if run["layer"] == label]
        if mine:
            cells = [cell([m[n] for m in mine]) for n in heads]
            cells.append(cell([m[heads[-1]] - m[heads[0]] for m in mine]))
            lines.append(f"| {label} | {' | '.join(cells)} |")
    return lines


def report(runs: list[dict[str, Any]], data: Path, corpus: Corpus, steps: int) -> str:
    made = ["| layer | d_model | parameters | seeds | training, CPU s | evaluation, CPU s |"]
    made.append("| --- | --- | --- | --- | --- | --- |")
    for label in LAYERS:
        mine = [run for run in runs if run["layer"] == label]
        if mine:
            seconds = [
                statistics.median(r[k] for r in mine) for k in ("seconds", "seconds_evaluating")
            ]
            seeds = ", ".join(str(seed) for seed in sorted(r["seed"] for r in mine))
            made.append(
                f"| {label} | {mine[0]['width']} | {mine[0]['parameters']:,} | {seeds} | "
                f"{seconds[0]:.0f} | {seconds[1]:.0f} |"
            )
    windows = (corpus.tokens - corpus.train - 1) // LENGTHS[-1]
    return "\n".join(
        [
            f"# Beyond the training length: {data.stem}, bytes",
            "",
            f"Trained on windows of {CONTEXT}: {BLOCKS} blocks, {steps} steps of {BATCH} windows "
            f"({steps * BATCH * CONTEXT / corpus.train:.1f} passes), AdamW at {RATE:g} (dynamics "
            "0.001) for all, not tuned for any. Of five looks at the validation text, each at "
            f"{CONTEXT}, the best weights are kept. Bits per byte of that text, lower is better; "
            "mean and standard deviation over seeds.",
            f"Command: `python benchmarks/length_extrapolation.py {data.name} --work FOLDER "
            f"--steps {steps}`",
            "",
            machine(),
            "",
            f"## All {windows * LENGTHS[-1]:,} bytes, read in windows of",
            "",
            *table(runs, "all"),
            "",
            f"## The last {LAST} bytes of each of the {windows} windows of {LENGTHS[-1]}, read in "
            "windows of",
            "",
            *table(runs, "last"),
            "",
            "## Models",
            "",
            *made,
        ]
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("data", type=Path)
    options.add_argument("--work", type=Path, required=True, help="folder for finished runs")
    options.add_argument("--layers", nargs="+", default=list(LAYERS), choices=LAYERS)
    options.add_argument("--steps", type=int, default=1000)
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--threads", type=int)
    arguments = options.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    finished = Runs(arguments.work / "runs.jsonl", ("layer", "seed", "steps", "text"))
    corpus = open_corpus([arguments.data], ByteTokens(), arguments.work)
    shared = {"steps": arguments.steps, "text": corpus.digest}

    # All layers of one seed before the next seed, so that a stopped study can be compared.
    for seed in map(int, arguments.seeds.split(",")):
        for label in arguments.layers:
            if finished.has(layer=label, seed=seed, **shared):
                continue
            run = learn(label, seed, corpus, arguments.steps)
            finished.add(run)
            print(f"{label}, seed {seed}: {run['all']}, {run['seconds']:.0f} s", flush=True)
    runs = [run for run in finished.all() if {k: run[k] for k in shared} == shared]
    save(
        f"length_extrapolation_{arguments.data.stem}",
        report(runs, arguments.data, corpus, arguments.steps),
    )


if __name__ == "__main__":
    main()
