"""`longstate reduce`: make the states of a trained model smaller."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstate.cli._runs import Reading, Run
from longstate.cli._terminal import say, write
from longstate.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from longstate.reports import _subject as subjects
    from longstate.reports.reduction import ReductionReport

MODEL, KEPT = "model.safetensors", ("validation.npy", "tokenizer.json")
PAGE = "report.html"
MOST_ROWS = 4096  # pieces of a text that healing reads


def reduce(
    model: Run,
    out: Annotated[Path, typer.Option(help="The folder to write. It must be new or empty.")],
    data: Reading = None,
    keep: Annotated[
        float | None, typer.Option(help="Share of the state to keep; 0.25 without tol and budget.")
    ] = None,
    tol: Annotated[
        float | None,
        typer.Option(help="Largest error of a layer, as a share of its gain or output."),
    ] = None,
    budget: Annotated[
        int | None,
        typer.Option(help="Bytes of the states of all layers together, for one sequence."),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Choice of states: auto, balanced, energy, ghost, last, aire, magnitude or random."
        ),
    ] = "auto",
    allocation: Annotated[
        str,
        typer.Option(help="measured: more for layers with more effect on the output; or uniform."),
    ] = "measured",
    rows: Annotated[int, typer.Option(help="Number of pieces of a text to read.", min=1)] = 16,
    length: Annotated[int, typer.Option(help="Tokens of each piece.", min=2)] = 512,
    heal_minutes: Annotated[
        float | None,
        typer.Option(
            help="Then train the small model towards the outputs of the whole one, this long at "
            "most. Give a large --data file, best the data that the model was trained on."
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON instead of a table.")
    ] = False,
) -> None:
    """Make the states of a trained model smaller, and report the errors.

    Selective layers need data; for a run of `longstate train text` it is a part of the validation
    text if --data is not given. The folder gets a page, report.html.
    """
    from longstate._files import empty_folder
    from longstate.cli.show import show_reduction
    from longstate.reports import reduction
    from longstate.reports._subject import open_subject

    if keep is None and tol is None and budget is None:
        keep = 0.25
    subject = open_subject(model)
    asked = {"keep": keep, "tol": tol, "budget": budget, "method": method, "allocation": allocation}
    length = min(subject.length or length, length)
    with empty_folder(out):
        found = _reduced(subject, subject.read(data), out, asked, rows, length, heal_minutes)
        page = reduction.write(found, out / PAGE)
    if json:
        write(found.found.to_json() + "\n")
        return
    show_reduction(found.found)
    for said in (found.found.sentence, *subject.remarks):
        say(said)
    say(f"The smaller model is {out}, the report {page}")
    say(reduction.headline(found))


def _reduced(
    subject: "subjects.Subject",
    read: "subjects.Reading",
    out: Path,
    asked: dict[str, Any],
    rows: int,
    length: int,
    heal_minutes: float | None,
) -> "ReductionReport":
    """Reduce, heal and save the model, and measure it."""
    from longstate import reduce as make_smaller
    from longstate import save
    from longstate.cli.show import progress_bar, working
    from longstate.compress import heal
    from longstate.compress._heal import check_minutes
    from longstate.memory import layers_of
    from longstate.reports import reduction

    learn = judge = read
    healing: Any = None
    if heal_minutes is not None:
        learn, judge = read.split()
        check_minutes(heal_minutes)
        healing = _heal_data(subject, learn, length)
    with working("reducing", sum(1 for _ in layers_of(subject.model))) as show:
        small, report = make_smaller(
            subject.found, learn.whole(rows, length), **asked, progress=show
        )
    if heal_minutes is not None:
        with progress_bar("healing") as show_step:
            small, healed = heal(
                small, subject.found, healing, minutes=heal_minutes, show=show_step
            )
        report = report.healed(healed)
    save(small, out / MODEL)
    _bring_along(subject.folder, out)
    with working("measuring", 4) as show:
        return reduction.examine(subject, small, report, judge, str(out), show)


def _heal_data(
    subject: "subjects.Subject", read: "subjects.Reading", length: int
) -> "Tensor | list[np.ndarray] | Callable[[], object]":
    """All of the data, for healing.

    Raises:
        InputError: there is too little.
    """
    from longstate.reports._subject import read_windows

    if subject.forecaster is not None and read.frame is not None:
        return partial(read_windows, subject.forecaster, read.frame)
    data: Any = read.whole(MOST_ROWS, length)
    if data is None:
        raise InputError("--heal-minutes needs --data, what the model usually reads")
    if read.tokens is not None and len(data) < 2:
        raise InputError(
            f"--heal-minutes needs at least 2 pieces of --length {length} in three quarters of the "
            f"text, which are {len(read.tokens):,} tokens; give more text or a smaller --length"
        )
    made: Tensor | list[np.ndarray] = data
    return made


def _bring_along(source: Path, out: Path) -> None:
    """Copy the files that belong to the model."""
    from longstate._files import write_whole

    for name in KEPT:
        if (source / name).is_file() and not (out / name).exists():
            write_whole(out / name, (source / name).read_bytes())
