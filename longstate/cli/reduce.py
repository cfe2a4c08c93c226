"""`longstate reduce`: make the states of a trained model smaller."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from longstate.cli._runs import Reading, Run
from longstate.cli._terminal import say, write
from longstate.errors import InputError

if TYPE_CHECKING:
    from longstate.compress import Reduction
    from longstate.reports import _subject as subjects

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
    from longstate import reduce as make_smaller
    from longstate import save
    from longstate.cli.show import show_reduction, working
    from longstate.memory import layers_of
    from longstate.reports import reduction
    from longstate.reports._subject import open_subject

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; choose a new folder")
    if keep is None and tol is None and budget is None:
        keep = 0.25
    subject = open_subject(model)
    learn = judge = subject.read(data)
    length = min(subject.length or length, length)
    if heal_minutes is not None:
        learn, judge = learn.split()
    with working("reducing", sum(1 for _ in layers_of(subject.model))) as show:
        small, report = make_smaller(
            subject.found, learn.data(rows, length), keep=keep, tol=tol, budget=budget,
            method=method, allocation=allocation, progress=show,  # type: ignore[arg-type]
        )  # fmt: skip
    if heal_minutes is not None:
        small, report = _healed(small, report, subject, learn, heal_minutes, length)
    out.mkdir(parents=True, exist_ok=True)
    save(small, out / MODEL)
    _bring_along(subject.folder, out)
    with working("measuring", 4) as show:
        found = reduction.examine(subject, small, report, judge, str(out), show)
    page = reduction.write(found, out / PAGE)
    if json:
        write(report.to_json() + "\n")
        return
    show_reduction(report)
    say(report.sentence)
    say(f"The smaller model is {out}, the report {page}")
    say(reduction.headline(found))


def _healed(
    small: Any,
    report: "Reduction",
    subject: "subjects.Subject",
    read: "subjects.Reading",
    minutes: float,
    length: int,
) -> "tuple[Any, Reduction]":
    """The model after the healing, and its report. All of the data is used."""
    from longstate.cli.show import progress_bar
    from longstate.compress import heal
    from longstate.reports._subject import read_windows

    data: Any = read.data(MOST_ROWS, length)
    if subject.forecaster is not None and read.frame is not None:
        data = partial(read_windows, subject.forecaster, read.frame)
    if data is None:
        raise InputError("--heal-minutes needs --data, what the model usually reads")
    with progress_bar("healing") as show:
        better, healing = heal(small, subject.found, data, minutes=minutes, show=show)
    return better, report.healed(healing)


def _bring_along(source: Path, out: Path) -> None:
    """Copy the files that belong to the model."""
    from longstate._files import write_whole

    for name in KEPT:
        if (source / name).is_file() and not (out / name).exists():
            write_whole(out / name, (source / name).read_bytes())
