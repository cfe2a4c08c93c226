"""Selective layers against classical recurrent networks, at equal state and at equal parameters.

    python benchmarks/state_study.py --data FOLDER --work FOLDER [--tasks recall text] [--seeds 0,1]

FOLDER holds ETTh1.csv, vic_elec.csv, tinyshakespeare.txt and wikitext2_valid.txt; tasks whose file
is not there are left out, and named. All models are two blocks of 32 channels without a gated part
after the layers. Mamba with `d_state` 8 and `expand` 1 sets the scale: the other layers get the
`d_state` whose state, or whose number of parameters, comes closest. Equal steps, batches and
optimizer. Each layer gets, for each task and scale, the learning rate of three with which a quarter
of the steps of the first seed end at the lowest training loss; decays and steps get a third of it.

    recall      6 pairs among 16 keys and values, all keys asked for; share of right answers
    text, wiki  bytes, windows of 256; bits per byte of the last tenth
    etth1, elec one column, a window of 192 rows, 24 rows ahead, in units of the training part's
                deviation; mean squared error of the last fifth

Then, untrained: peak memory of a training step, and memory of the state and time of a step of
generation, after more and more samples. Finished runs are kept in `--work` and not repeated.

The claims are those of the abstract of Bhat, arXiv:2410.03158: better results than classical
recurrent networks with less memory, in forecasting and in language.
"""

import math
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from command import parser
from measure import machine, peak_mib, save
from runs import Run, Runs
from state_tasks import BLOCKS, FILES, WIDTH, Task, task
from torch import nn
from torch.utils._pytree import tree_leaves

from longstate.models import layer_class

STEPS = {"recall": 1500, "text": 600, "wiki": 600, "etth1": 500, "elec": 500}
RATES = (3e-3, 1e-3, 3e-4)
LAYERS = ("mamba", "mamba2", "longhorn", "gatedssm", "lstm", "gru", "linearrnn")
SCALES = ("state", "parameters")
FIXED: dict[str, dict[str, Any]] = {
    "mamba": {"d_state": 8, "expand": 1}, "mamba2": {"d_head": 16, "expand": 1},
    "longhorn": {"expand": 1},
}  # fmt: skip
LENGTHS = (256, 1024, 4096, 16384)


def state_bytes(layer: str, options: dict[str, Any]) -> int:
    leaves = tree_leaves(layer_class(layer)(WIDTH, **options).init_state(1))
    return sum(leaf.numel() * leaf.element_size() for leaf in leaves)


def parameters(layer: str, options: dict[str, Any]) -> int:
    return sum(p.numel() for p in layer_class(layer)(WIDTH, **options).parameters())


def options_for(layer: str, scale: str) -> dict[str, Any]:
    """Those of the layer whose state, or number of parameters, is closest to that of Mamba."""
    if layer == "mamba":
        return FIXED["mamba"]
    size = state_bytes if scale == "state" else parameters
    goal = size("mamba", FIXED["mamba"])

    def sizes() -> Iterator[tuple[int, int]]:
        for n in range(1, 1025):
            options = {**FIXED.get(layer, {}), "d_state": n}
            if scale == "parameters" and n > 256 and layer not in ("gatedssm", "linearrnn"):
                return
            with torch.device("meta"):
                yield abs(size(layer, options) - goal), n

    return {**FIXED.get(layer, {}), "d_state": min(sizes())[1]}


class Trained(NamedTuple):
    model: nn.Module
    loss: float  # training loss, mean of the last twentieth of the steps; inf if it diverged
    seconds: float  # of the processor


def trained(
    work: Task, layer: str, options: dict[str, Any], seed: int, steps: int, rate: float
) -> Trained:
    torch.manual_seed(seed)
    model = work.make(layer, options)
    slow = {
        id(p)
        for module in model.modules()
        for key in getattr(module, "dynamics", ())
        if (p := getattr(module, key, None)) is not None
    }
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in slow], "lr": rate},
        {"params": [p for p in model.parameters() if id(p) in slow], "lr": rate / 3},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [rate, rate / 3], total_steps=steps, pct_start=0.1
    )
    began, losses = time.process_time(), []
    for step in range(steps):
        optimizer.zero_grad()
        loss = work.loss(model, step)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            return Trained(model.eval(), math.inf, time.process_time() - began)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    last = losses[-max(1, steps // 20) :]
    return Trained(model.eval(), statistics.mean(last), time.process_time() - began)


def learn(name: str, layer: str, scale: str, seed: int, folder: Path, runs: Runs) -> Run:
    options, steps = options_for(layer, scale), STEPS[name]
    named = {"task": name, "layer": layer, "scale": scale}
    before = [r for r in runs.all() if {k: r[k] for k in named} == named]
    if before:
        rate = before[0]["rate"]
    else:
        short = {
            r: trained(task(name, folder, seed), layer, options, seed, steps // 4, r).loss
            for r in RATES
        }
        rate = min(short, key=short.__getitem__)
    work = task(name, folder, seed)
    model, loss, seconds = trained(work, layer, options, seed, steps, rate)
    with torch.no_grad():
        metric = work.metric(model) if math.isfinite(loss) else math.nan
    return {
        **named, "seed": seed, "metric": metric, "rate": rate, "d_state": options["d_state"],
        "state": BLOCKS * state_bytes(layer, options),
        "parameters": sum(p.numel() for p in model.parameters()), "seconds": seconds,
    }  # fmt: skip


def quality(runs: list[Run], name: str) -> list[str]:
    lines = [
        "| layer | equal | d_state | state, bytes | parameters | rate | metric (standard error) | "
        "CPU s |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for scale in SCALES:
        for layer in LAYERS:
            mine = [r for r in runs if (r["task"], r["layer"], r["scale"]) == (name, layer, scale)]
            if not mine:
                continue
            r = mine[0]
            lines.append(
                f"| {layer} | {scale} | {r['d_state']} | {r['state']:,} | {r['parameters']:,} | "
                f"{r['rate']:g} | {_mean([r['metric'] for r in mine])} | "
                f"{statistics.median(r['seconds'] for r in mine):.0f} |"
            )
    return lines


def _mean(values: list[float]) -> str:
    """With the standard error; runs that diverged are counted."""
    ended = [v for v in values if math.isfinite(v)]
    lost = f"{len(values) - len(ended)} of {len(values)} diverged"
    if not ended:
        return lost
    error = statistics.stdev(ended) / len(ended) ** 0.5 if len(ended) > 1 else math.nan
    found = f"{statistics.mean(ended):.4f} ({error:.4f})"
    return found if len(ended) == len(values) else f"{found}, {lost}"


_TRAINING = """
import torch
from longstate.models import layer_class
torch.set_num_threads(1)
def prepare(small):
    torch.manual_seed(0)
    layer = layer_class({layer!r})({width}, **{options!r})
    return layer, torch.randn(4, 64 if small else {length}, {width})
def work(given):
    layer, u = given
    layer(u)[0].sum().backward()
"""


def costs() -> list[str]:
    lines = [
        "| layer | equal | " + " | ".join(f"training at {n}, MiB" for n in LENGTHS[:3]) + " | "
        "state after 256 and 16,384 samples, bytes | step then, µs |",
        "|---|---|" + "--:|" * 5,
    ]
    for scale in SCALES:
        for layer in LAYERS:
            options = options_for(layer, scale)
            peaks = [
                peak_mib(_TRAINING.format(layer=layer, width=WIDTH, options=options, length=n))
                for n in LENGTHS[:3]
            ]
            kept, steps = in_use(layer, options)
            lines.append(
                f"| {layer} | {scale} | "
                + " | ".join(f"{p:.1f}" for p in peaks)
                + f" | {kept[0]:,}, {kept[1]:,} | {steps[0]:.0f}, {steps[1]:.0f} |"
            )
            print(lines[-1], flush=True)
    return lines


@torch.no_grad()
def in_use(layer: str, options: dict[str, Any]) -> tuple[list[int], list[float]]:
    """Bytes of the state, and microseconds of a step, after the shortest and the longest input."""
    torch.manual_seed(0)
    made = layer_class(layer)(WIDTH, **options).eval()
    kept, steps = [], []
    for length in (LENGTHS[0], LENGTHS[-1]):
        _, state = made(torch.randn(1, length, WIDTH))
        leaves = tree_leaves(state)
        kept.append(sum(x.untyped_storage().nbytes() for x in leaves))
        u, times = torch.randn(1, WIDTH), []
        for _ in range(300):
            began = time.perf_counter()
            _, state = made.step(u, state)
            times.append(time.perf_counter() - began)
        steps.append(1e6 * statistics.median(times))
    return kept, steps


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", type=Path, required=True)
    options.add_argument("--work", type=Path, required=True, help="folder for finished runs")
    options.add_argument("--tasks", nargs="+", default=list(FILES), choices=FILES)
    options.add_argument("--layers", nargs="+", default=list(LAYERS), choices=LAYERS)
    options.add_argument("--seeds", default="0,1,2")
    given = options.parse_args()
    torch.set_num_threads(1)
    there = [n for n in given.tasks if FILES[n] is None or (given.data / str(FILES[n])).exists()]
    missing = [n for n in given.tasks if n not in there]
    runs = Runs(given.work / "state_study.jsonl", ("task", "layer", "scale", "seed"))
    # All of one seed before the next, so that a study that was stopped can be compared.
    for seed in map(int, given.seeds.split(",")):
        for name in there:
            for layer in given.layers:
                for scale in SCALES:
                    if scale == "parameters" and layer == "mamba":
                        continue  # the same model
                    if not runs.has(task=name, layer=layer, scale=scale, seed=seed):
                        run = learn(name, layer, scale, seed, given.data, runs)
                        runs.add(run)
                        print(
                            f"{name}, {layer}, equal {scale}, seed {seed}: {run['metric']:.4f}, "
                            f"{run['seconds']:.0f} s",
                            flush=True,
                        )
    lines = ["# Selective layers against classical recurrent networks", "", machine(), ""]
    lines += [f"Command: `python benchmarks/state_study.py --data FOLDER --seeds {given.seeds}`."]
    if missing:
        lines += [f"Not run, because their files were not there: {', '.join(missing)}."]
    for name in there:
        lines += ["", f"## {name}", "", *quality(runs.all(), name)]
    lines += ["", "## Memory and time of one layer", "", *costs()]
    save("state_study", "\n".join(lines))


if __name__ == "__main__":
    main()
