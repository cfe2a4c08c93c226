"""Screens of layers on the tasks of `longstate.tasks`, each for a few claims of `claims.py`.

    python benchmarks/screens.py parity [--folder FOLDER] [--collect] [--workers 1]

Trains what is missing and writes the table of the study. Outcomes are kept in the folder, by
default `benchmarks/trained/STUDY`, so that a study that was stopped goes on. `--collect` trains
nothing and writes the table of the runs that are there. `all` goes through all studies. The line
about the machine is of the one that wrote the table; `notes.md` of the folder, which comes after
it, says where the runs of a study that went on elsewhere were trained.

A model has blocks of one layer with 64 channels. All learning rates of the study are tried with
seed 0; the best one on rows for validation is used for all seeds. A run ends after the steps of its
task or 30 seconds of processor time, if its study says nothing else. A cell of the table has the
mean over seeds and, in brackets, the lowest and the highest seed; "seconds" are those of a clock
for one run, tests included; the row "chance" is the best guess without memory.
"""

import statistics
from pathlib import Path
from typing import NamedTuple

from command import parser
from measure import machine, save

from longstate import tasks
from longstate.tasks import Cell, Plan, Progress, Screen, Settings, chance, collected, task

TRAINED = Path(__file__).parent / "trained"


class Study(NamedTuple):
    """Which layers are trained on which tasks.

    Attributes:
        title: of the result.
        layers: as for `longstate tasks run`.
        tasks: names.
        settings: of the runs.
    """

    title: str
    layers: tuple[str, ...]
    tasks: tuple[str, ...]
    settings: Settings = Settings()

    def plan(self) -> Plan:
        return Plan(self.layers, self.tasks, settings=self.settings)


STUDIES = {
    "screen": Study("A screen of all layers on twelve tasks", tasks.LAYERS, tasks.DEFAULT),
    "parity": Study(
        "Parity with one layer: decays in [0, 1], signed ones and nonlinear states",
        ("signed_layers:Signed", "signed_layers:NonNegative", "mamba", "s4d",
         "screen_layers:s4d_signed", "lstm", "linearcde", "linearrnn"),
        ("parity",),
        Settings(blocks=1),
    ),
    "selection": Study(
        "Layers that select and layers that cannot",
        ("s4d", "s5", "linoss", "mamba", "longhorn"),
        ("selective_copy", "induction"),
    ),
    "selective_copy": Study(
        "Selective copying, trained five times as long",
        ("s4d", "s5", "linoss", "mamba", "longhorn"),
        ("selective_copy",),
        Settings(scale=5.0, seconds=150.0),
    ),
    "extrapolation": Study(
        "Associative recall beyond the training length",
        ("s4d", "mamba", "longhorn", "screen_layers:longhorn_exact"),
        ("recall",),
    ),
    "padded_noise": Study(
        "Numbers kept through noise",
        ("hope", "s4d", "linoss", "mamba"),
        ("noise_padded",),
    ),
    "initialisation": Study(
        "First values of A of S4D",
        ("s4d", "screen_layers:s4d_legs", "screen_layers:s4d_inv", "screen_layers:s4d_random",
         "screen_layers:s4d_real"),
        ("delay",),
    ),
    "rotation": Study(
        "Parity with a state that rotates, and with one that decays",
        ("mamba2", "mamba3"),
        ("parity",),
    ),
    "flip_flop": Study(
        "One bit kept over any number of distractions",
        ("mamba", "attention"),
        ("flip_flop",),
    ),
    "copy": Study(
        "Copying of words longer than in training",
        ("mamba", "attention"),
        ("copy",),
    ),
    "in_context": Study(
        "Learning in context",
        ("mamba", "attention"),
        ("icl_linear", "icl_retrieval"),
    ),
}  # fmt: skip


def table(found: Screen, name: str) -> list[str]:
    """The lines of one task."""
    chosen = task(name)
    lengths = (chosen.budget.length, *chosen.budget.longer)
    guess = f"{chance(chosen, lengths[0]):.3f}"
    head = [
        "layer", *(f"at {n}" for n in lengths), "whole rows", "rate", "seeds", "stopped by time",
        "parameters", "seconds",
    ]  # fmt: skip
    return [
        f"## {name}", "",
        "| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1),
        *("| " + " | ".join(_row(c, lengths)) + " |" for c in found.cells if c.task == name),
        "| chance | " + " | ".join([guess] * len(lengths) + [""] * 6) + " |", "",
    ]  # fmt: skip


def row_name(layer: str) -> str:
    """The name of a layer in a table: without a module, and with a wrapper."""
    return layer if layer in tasks.LAYERS else layer.rpartition(":")[2]


def _row(c: Cell, lengths: tuple[int, ...]) -> list[str]:
    rows = "-" if c.rows is None else f"{c.rows:.3f}"
    return [
        row_name(c.layer), *(_spread(c.each[n]) for n in lengths), rows, f"{c.rate:g}",
        str(c.runs), str(c.cut), f"{c.parameters:,}", f"{c.seconds:.0f}",
    ]  # fmt: skip


def _spread(values: list[float]) -> str:
    return f"{statistics.fmean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def text(study: Study, command: str, found: Screen, notes: str = "") -> str:
    """The result of a study."""
    plan = found.plan
    rates = ", ".join(f"{rate:g}" for rate in plan.rates)
    lines = [
        f"# {study.title}", "", machine(), "", *([notes, ""] if notes else []),
        f"{plan.settings.blocks} blocks of {plan.settings.width} channels; {plan.settings.scale:g} "
        f"times the steps of the task, at most {plan.settings.seconds:g} s; the best of the "
        f"learning rates {rates}. Accuracy, or of numbers the share of explained variance: mean "
        "(lowest to highest seed).", "",
        f"Command: `{command}`", "",
    ]  # fmt: skip
    if not found.complete:
        lines += ["Not all runs have ended.", ""]
    for name in dict.fromkeys(c.task for c in found.cells):
        lines += table(found, name)
    return "\n".join(lines + [f"Failed: {error}" for error in found.errors]).rstrip()


def show(progress: Progress) -> None:
    run = progress.run
    if run is not None:
        said = f"{run.task}, {run.layer}, {run.rate:g}, seed {run.seed}: {progress.accuracy}"
        print(f"{progress.done}/{progress.total} {said}", flush=True)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("study", choices=[*STUDIES, "all"])
    options.add_argument("--folder", type=Path, help="of the finished runs")
    options.add_argument("--collect", action="store_true", help="train nothing")
    options.add_argument("--workers", type=int, default=1)
    given = options.parse_args()
    for name in STUDIES if given.study == "all" else (given.study,):
        study, folder = STUDIES[name], given.folder or TRAINED / name
        plan = study.plan()
        if given.collect:
            found = collected(plan, folder)
        else:
            folder.mkdir(parents=True, exist_ok=True)
            found = tasks.screen(plan, folder, workers=given.workers, show=show)
        notes = folder / "notes.md"
        said = notes.read_text(encoding="utf-8").strip() if notes.exists() else ""
        save(name, text(study, f"python benchmarks/screens.py {name}", found, said))


if __name__ == "__main__":
    main()
