"""`longstate reduce`: a smaller state for a trained model, and what that costs."""

from pathlib import Path
from typing import Annotated

import typer

from longstate.cli._terminal import say, write
from longstate.errors import InputError

MODEL, KEPT = "model.safetensors", ("validation.npy", "tokenizer.json")
Model = Annotated[
    Path,
    typer.Argument(
        metavar="RUN|CHECKPOINT",
        help="Folder of `longstate train`, or of a checkpoint of transformers or mamba-ssm.",
    ),
]


def reduce(
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder to write; new or empty.")],
    data: Annotated[
        Path | None,
        typer.Option(
            help="Text, CSV of a forecaster, or token numbers (.npy) to read. A text run has a "
            "piece of its validation text."
        ),
    ] = None,
    keep: Annotated[
        float | None, typer.Option(help="Share of the state that stays; 0.25 is the default.")
    ] = None,
    tol: Annotated[
        float | None, typer.Option(help="Largest error of a layer, as a share of its own size.")
    ] = None,
    budget: Annotated[
        int | None, typer.Option(help="Bytes of the states of all layers, for one sequence.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="auto, balanced, energy, ghost, last, aire, magnitude or random."),
    ] = "auto",
    allocation: Annotated[
        str, typer.Option(help="measured, by what the output needs; or uniform.")
    ] = "measured",
    rows: Annotated[int, typer.Option(help="Stretches of a text to read.", min=1)] = 16,
    length: Annotated[int, typer.Option(help="Tokens of each.", min=2)] = 512,
    json: Annotated[bool, typer.Option("--json", help="One line of JSON instead.")] = False,
) -> None:
    """Make the states of a trained model smaller, and say what that costs."""
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
    """What lies beside a model and is needed with it."""
    from longstate._files import write_whole

    for name in KEPT:
        if (source / name).is_file() and not (out / name).exists():
            write_whole(out / name, (source / name).read_bytes())
