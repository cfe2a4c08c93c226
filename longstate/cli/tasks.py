"""`longstate tasks`: small tasks that need memory, and a screen of layers on them."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstate._numbers import cell
from longstate.cli._options import numbers, with_settings
from longstate.cli._terminal import note, say, show_table, write
from longstate.tasks._settings import Settings

if TYPE_CHECKING:
    from longstate.tasks import Progress, Screen

_WIDTH = 140  # of the table if the output is not a terminal


def show_list(
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the tasks: how many bits they need, chance, lengths, and why they matter."""
    import json as format_json

    from longstate.tasks import chance, tasks

    found: list[dict[str, Any]] = []
    for name, task in tasks().items():
        demand, length = task.demand(task.budget.length), task.budget.length
        known = task.chance is not None
        found.append(
            {
                "name": name, "bits": demand.bits, "bits_kind": demand.kind,
                "chance": chance(task, length, 128),
                "chance_kind": "exact" if known else "estimate",
                "length": length, "longer": list(task.budget.longer), "steps": task.budget.steps,
                "why": task.why,
            }
        )  # fmt: skip
    if json:
        write(format_json.dumps(found) + "\n")
        return
    rows = [
        [
            f["name"], cell(round(f["bits"], 2), f["bits_kind"]), f"{f['chance']:.2f}",
            str(f["length"]), ", ".join(map(str, f["longer"])),
        ]
        for f in found
    ]  # fmt: skip
    show_table("", ("task", "bits needed", "chance", "length", "tested at"), rows)
    for f in found:
        say(f"{f['name']}: {f['why']}")


@with_settings(settings=Settings)
def run(
    layers: Annotated[
        list[str],
        typer.Option(
            help="Layers, separated by commas: names of this package, `module:Name` for one of "
            "your own, or all."
        ),
    ],
    tasks: Annotated[
        list[str],
        typer.Option(help="Tasks, separated by commas; a screen of twelve if not given; or all."),
    ] = [],  # noqa: B006
    seeds: Annotated[int, typer.Option(help="Trainings with the best learning rate.")] = 3,
    rates: Annotated[
        str, typer.Option(help="Learning rates to try, separated by commas.")
    ] = "0.001,0.003,0.01",
    workers: Annotated[
        int | None, typer.Option(help="Processes with one thread each; one per core if not given.")
    ] = None,
    *,
    settings: Settings,
    out: Annotated[
        Path, typer.Option(help="Folder for outcomes and the report; an earlier screen goes on.")
    ] = Path("screen"),
) -> None:
    """Train small models with each layer on each task, and compare them.

    All learning rates are tried with one seed; the best one gets the other seeds. The default
    screen of one layer takes less than 20 minutes on two cores: twelve tasks, five runs of at most
    30 seconds each. Ctrl-C keeps the runs that have ended, and the same command goes on.

    Under torchrun each process does a part of the runs, with its share of the cores if --workers is
    not given: `torchrun --nproc-per-node 2 -m longstate tasks run ...`.
    """
    from longstate.reports import tasks as report
    from longstate.tasks import DEFAULT, LAYERS, Plan, collected, screen
    from longstate.tasks import tasks as every
    from longstate.train import process_group
    from longstate.train._ranks import on_this_machine

    chosen = _names(layers, LAYERS)
    plan = Plan(chosen, _names(tasks, tuple(every())) or DEFAULT, seeds,
                numbers("--rates", rates), settings)  # fmt: skip
    with process_group() as rank:
        cores = max(1, (os.cpu_count() or 1) // on_this_machine())
        count = cores if workers is None else workers
        try:
            with _progress() as show:
                found = screen(plan, out, workers=count, show=show)
        except KeyboardInterrupt:
            if rank == 0:
                _show_interrupted(collected(plan, out))
            raise
    if rank == 0:
        _show(found)
        say(f"The report is {report.write(found, out / 'report.html')}")
    if found.errors:
        raise typer.Exit(1)


def _show_interrupted(found: "Screen") -> None:
    if found.cells:
        _show(found)
    note("Interrupted: the runs that have ended are kept, and the same command goes on.")


def _names(options: list[str], every: tuple[str, ...]) -> tuple[str, ...]:
    names = [part.strip() for option in options for part in option.split(",") if part.strip()]
    return every if "all" in names else tuple(dict.fromkeys(names))


@contextmanager
def _progress() -> "Iterator[Callable[[Progress], None]]":
    """A bar on a terminal; a line for each run elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}")
    bar = Bar(*columns, console=console, transient=True, disable=not console.is_terminal)
    with bar:
        shown = bar.add_task("")

        def show(progress: "Progress") -> None:
            run, left = progress.run, f"{_time(progress.left)} left"
            said = left
            if run is not None:
                result = "failed" if progress.accuracy is None else f"{progress.accuracy:.3f}"
                said = f"{run.task}, {run.layer}, rate {run.rate:g}, seed {run.seed}: {result}"
                said = f"{said}; {left}"
            bar.update(shown, completed=progress.done, total=progress.total, description=said)
            if not console.is_terminal:
                note(f"{progress.done}/{progress.total} {said}")

        yield show


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _show(found: "Screen") -> None:
    from rich.console import Console

    from longstate.reports.tasks import HEAD, headline, rows

    console = Console()
    if not sys.stdout.isatty():
        console = Console(width=_WIDTH)
    show_table("", HEAD, rows(found), console=console)
    for line in found.errors:
        say(f"failed: {line}")
    say(headline(found))
