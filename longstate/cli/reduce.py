"""`longstate reduce`: make the states of a trained model smaller."""

from pathlib import Path
from typing import Annotated

import typer

from longstate.cli._runs import Reading, Run
from longstate.cli._terminal import say, write
from longstate.errors import InputError

MODEL, KEPT = "model.safetensors", ("validation.npy", "tokenizer.json")


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
    json: Annotated[
        bool, typer.Option("--json", help="Print one line of JSON instead of a table.")
    ] = False,
) -> None:
    """Make the states of a trained model smaller, and report the errors.

    Selective layers need data; for a run of `longstate train text` it is a part of the validation
    text if --data is not given.
    """
    from longstate import reduce as make_smaller
    from longstate import save
    from longstate.cli.show import show_reduction, working
    from longstate.memory import layers_of
    from longstate.reports._subject import open_subject

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is not empty; choose a new folder")
    if keep is None and tol is None and budget is None:
        keep = 0.25
    subject = open_subject(model)
    read = subject.read(data).data(rows, min(subject.length or length, length))
    with working("reducing", sum(1 for _ in layers_of(subject.model))) as show:
        small, report = make_smaller(
            subject.found, read, keep=keep, tol=tol, budget=budget,
            method=method, allocation=allocation, progress=show,  # type: ignore[arg-type]
        )  # fmt: skip
    out.mkdir(parents=True, exist_ok=True)
    save(small, out / MODEL)
    _bring_along(subject.folder, out)
    if json:
        write(report.to_json() + "\n")
        return
    show_reduction(report)
    say(report.sentence)
    say(f"The smaller model is {out}")


def _bring_along(source: Path, out: Path) -> None:
    """Copy the files that belong to the model."""
    from longstate._files import write_whole

    for name in KEPT:
        if (source / name).is_file() and not (out / name).exists():
            write_whole(out / name, (source / name).read_bytes())
