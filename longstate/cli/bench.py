"""`longstate bench`: the speed of ops and layers on this machine, compared with its limits.

The table goes to standard error, and one JSON line to standard output, so that
`longstate bench > bench.json` shows the table and stores the JSON. If standard output is a
terminal, the JSON line is printed only with `--json`.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from longstate._numbers import number
from longstate.cli._terminal import show_table, visible, write

if TYPE_CHECKING:
    from longstate.bench import Result, Row
    from longstate.bench._measure import Progress

_BUSY = 0.2  # a larger difference of the limits means that the machine was busy
_WIDTH = 100  # of the table if the output is not a terminal


def bench(
    ops: Annotated[
        list[str], typer.Option(help="Ops to measure, separated by commas; can be repeated.")
    ] = [],  # noqa: B006
    layers: Annotated[
        list[str], typer.Option(help="Layers to measure, separated by commas; can be repeated.")
    ] = [],  # noqa: B006
    batch: Annotated[int, typer.Option(help="Number of sequences.")] = 1,
    length: Annotated[int, typer.Option(help="Samples of each sequence.")] = 1024,
    d_model: Annotated[int, typer.Option(help="Channels of a layer.")] = 512,
    dtype: Annotated[
        str, typer.Option(help="Type of the numbers: float32, float64, bfloat16 or float16.")
    ] = "float32",
    device: Annotated[str, typer.Option(help="Device of PyTorch: cpu, cuda or mps.")] = "cpu",
    threads: Annotated[
        int | None, typer.Option(help="Number of threads; the default of PyTorch if not given.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Minimum duration of each timing.")] = 0.2,
    json: Annotated[
        bool, typer.Option("--json", help="Also print the JSON line on a terminal.")
    ] = False,
) -> None:
    """Measure the speed of ops and layers, and compare it with the limits of this machine.

    Without --ops and --layers everything is measured, in about a minute on two cores. The table is
    printed on standard error, one JSON line on standard output unless that is a terminal. Ctrl-C
    ends the measurement and shows the results so far. If a result differs from its reference, no
    speed is shown, and the exit code is 1.
    """
    from longstate.bench import Settings, run

    where = {} if threads is None else {"threads": threads}
    settings = Settings(batch, length, d_model, dtype, device, seconds=seconds, **where)
    with _progress_bar() as show:
        found = run(settings, ops=_names(ops), layers=_names(layers), show=show)
    _show(found)
    if json or not sys.stdout.isatty():
        write(found.to_json() + "\n")
    if any(row.wrong for row in found.rows):
        raise typer.Exit(1)


def warm(
    layers: Annotated[
        list[str], typer.Option(help="Layers, separated by commas; all if not given.")
    ] = [],  # noqa: B006
    dtype: Annotated[
        list[str],
        typer.Option(help="Types of the numbers, separated by commas: float32, float64, bfloat16."),
    ] = ["float32"],  # noqa: B006
) -> None:
    """Compile the CPU kernels now, and not at their first use.

    They are kept on the disk: in the package's folder, or in NUMBA_CACHE_DIR if that is set. To
    ship them with a container image, set NUMBA_CACHE_DIR in it and run this command while it is
    built, on a processor of the kind that will run it. Elsewhere kernels are compiled again.
    """
    import time

    from longstate.bench import warm as compile_all

    began = time.monotonic()
    with _progress_bar() as show:
        compile_all(_names(layers), _names(dtype), show)
    write(f"All kernels are compiled; it took {time.monotonic() - began:.0f} s.\n")


def _names(options: list[str]) -> list[str]:
    return [name.strip() for option in options for name in option.split(",")]


@contextmanager
def _progress_bar() -> "Iterator[Callable[[Progress], None]]":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (
        BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"),
    )  # fmt: skip
    # drawn only between timings, because a drawing thread would change them
    bar = Bar(
        *columns, console=console, auto_refresh=False, transient=True,
        disable=not console.is_terminal,
    )  # fmt: skip
    with bar:
        task = bar.add_task("")

        def show(progress: "Progress") -> None:
            done, total = progress.done, progress.total
            bar.update(task, completed=done, total=total, description=progress.doing, refresh=True)

        yield show


def _show(found: "Result") -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console

    console = Console(stderr=True, soft_wrap=False, highlight=False)
    if not console.is_terminal:
        console = Console(stderr=True, width=_WIDTH, highlight=False)

    def say(sentence: str) -> None:
        console.print(visible(sentence), markup=False)

    s, limits = found.settings, found.limits
    threads = "1 thread" if s.threads == 1 else f"{s.threads} threads"
    products = ", ".join(f"{v / 1e9:,.0f} ({k})" for k, v in limits.products.items())
    say(
        f"{found.device_name}: {s.device}, {threads}, {s.dtype}, batch {s.batch}, "
        f"length {s.length}, d_model {s.d_model}"
    )
    versions = ("longstate", "PyTorch", "numba", "triton")
    say(", ".join(f"{name} {found.environment[name]}" for name in versions))
    say(f"limits: matrix products {products} GFLOP/s; bandwidth {limits.bandwidth / 1e9:,.1f} GB/s")
    say("bandwidth, products: shares of these limits; `pydoc longstate.bench` defines them")
    head = ("", "ms", "middle half", "tokens/s", "bandwidth", "products")
    show_table("", head, _rows(found), console=console, box=SIMPLE_HEAD)
    if any((row.bandwidth_fraction(limits) or 0) > 1 for row in found.rows):
        say("Above 100 % of bandwidth: the operands fit into the cache, which is faster.")
    for note in dict.fromkeys(f"{row.name}: {row.note}" for row in found.rows if row.note):
        say(note)
    if not found.complete:
        say("Interrupted: these are the results so far.")
    if found.limits_moved is not None and found.limits_moved > _BUSY:
        say(
            f"The limits before and after differ by {found.limits_moved:.0%}: the machine was "
            "busy, so speeds may be too low."
        )


def _rows(found: "Result") -> list[list[str]]:
    rows: list[list[str]] = []
    name = ""
    for row in found.rows:
        if row.name != name:
            rows.append([row.name])
            name = row.name
        rows.append([f"  {row.mode}", *_cells(row, found)])
    return rows


def _cells(row: "Row", found: "Result") -> list[str]:
    if row.timing is None:
        return ["wrong" if row.wrong else "-", "", "", "", ""]
    t, figure = row.timing, partial(number, digits=3, exponent=False)
    fractions = row.bandwidth_fraction(found.limits), row.product_fraction(found.limits)
    return [
        figure(1e3 * t.median),
        f"{figure(1e3 * t.low)} to {figure(1e3 * t.high)}" if t.repeats > 1 else "once",
        figure(row.tokens / t.median),
        *("-" if x is None else f"{x:.1%}" for x in fractions),
    ]
