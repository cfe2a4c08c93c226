"""Commands that train and use a forecaster. They import what they need when they run, so that
`longstate --help` answers at once."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstate.errors import InputError

if TYPE_CHECKING:
    from longstate.train.forecast import Forecaster

Data = Annotated[Path, typer.Argument(help="CSV file, a header first, oldest row first.")]
Run = Annotated[Path, typer.Argument(help="Folder written by `longstate train forecast`.")]


def train(
    data: Data,
    target: Annotated[list[str], typer.Option(help="Column to forecast; repeat for several.")],
    horizon: Annotated[int, typer.Option(help="Rows to forecast.")],
    time: Annotated[str | None, typer.Option(help="Column with the times.")] = None,
    step: Annotated[
        str | None,
        typer.Option(
            help="Time step such as h, D, B, MS; rows: one row is one step. Found if none."
        ),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Time zone of times that name none, as Europe/Berlin.")
    ] = None,
    holiday: Annotated[
        list[str], typer.Option(help="Working day that is none, as 2024-12-25; repeat for several.")
    ] = [],  # noqa: B006
    lower: Annotated[float | None, typer.Option(help="No forecast lies below.")] = None,
    upper: Annotated[float | None, typer.Option(help="No forecast lies above.")] = None,
    transform: Annotated[
        str, typer.Option(help="Of the targets: none, log1p, box-cox, or auto: best on validation.")
    ] = "none",
    covariate: Annotated[
        list[str], typer.Option(help="Column known up to now; repeat for several.")
    ] = [],  # noqa: B006
    known: Annotated[
        list[str], typer.Option(help="Column known for the future too; repeat for several.")
    ] = [],  # noqa: B006
    window: Annotated[int | None, typer.Option(help="Rows that a forecast sees.")] = None,
    season: Annotated[int | None, typer.Option(help="Rows per season.")] = None,
    layer: Annotated[str, typer.Option(help="State space layer.")] = "s4d",
    quantiles: Annotated[str, typer.Option(help="Levels, or an empty text for none.")] = (
        "0.1,0.5,0.9"
    ),
    split: Annotated[
        str, typer.Option(help="Shares of training, validation and test.")
    ] = "0.7,0.1,0.2",
    epochs: Annotated[int, typer.Option(help="Passes over the data at most.")] = 20,
    minutes: Annotated[float | None, typer.Option(help="Time for training at most.")] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; one that was stopped goes on.")
    ] = None,
) -> None:
    """Train a forecaster, and score it beside last value, seasonal naive and ridge regression."""
    levels, shares = _numbers("--quantiles", quantiles), _numbers("--split", split)
    if len(shares) != 3:
        raise InputError(f"--split must be three shares such as 0.7,0.1,0.2; got {split!r}")
    if epochs < 1:
        raise InputError(f"--epochs must be at least 1; got {epochs}")

    from longstate import reports
    from longstate._files import write_whole
    from longstate.cli.show import progress_bar, say, show_evaluation
    from longstate.train.csv import read_csv
    from longstate.train.forecast import Forecaster
    from longstate.train.settings import Training

    frame = read_csv(data)
    out = out or Path("runs") / f"{data.stem}-{'-'.join(target)}-{horizon}"
    forecaster = Forecaster(
        horizon,
        window=window,
        layer=layer,
        quantiles=levels,
        season=season,
        training=Training(epochs=epochs, minutes=minutes),
        seed=seed,
    )
    with progress_bar() as show:
        forecaster.fit(
            frame,
            target,
            covariates=covariate,
            known=known,
            time=time,
            step=step,
            zone=zone,
            holidays=holiday,
            lower=lower,
            upper=upper,
            transform=transform,
            shares=(shares[0], shares[1], shares[2]),
            out=out,
            show=show,
        )
    for note in forecaster.facts["notes"]:
        say(note)
    history = forecaster.history
    say(f"Training ended ({history.ended}); best at step {history.best_step}.")
    evaluation = forecaster.evaluate(frame)
    write_whole(out / "evaluation.json", evaluation.to_json())
    page = reports.write(reports.describe(forecaster, evaluation, str(out)), out / "report.html")
    show_evaluation(evaluation)
    say(f"The run is in {out}, the report is {page}")


def evaluate(run: Run, data: Data) -> None:
    """Score a run on the rows of DATA that it has not seen, beside the baselines."""
    from longstate.cli.show import show_evaluation
    from longstate.train.csv import read_csv

    show_evaluation(_load(run).evaluate(read_csv(data)))


def predict(
    run: Run,
    data: Data,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="CSV file to write; standard output if none.")
    ] = None,
) -> None:
    """Forecast the rows after the last one of DATA, with times written as in training."""
    import warnings

    from longstate._files import write_whole
    from longstate.cli.show import say
    from longstate.train.csv import read_csv
    from longstate.train.forecast_frame import forecast_csv

    forecaster = _load(run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they stand in the notes
        forecast = forecaster.predict(read_csv(data))
    for note in forecast.attrs["notes"]:
        print(note, file=sys.stderr)
    text = forecast_csv(forecast, forecaster.model.spec)
    if out is None:
        sys.stdout.write(text)
        return
    write_whole(out, text)
    say(f"{len(forecast)} rows are in {out}")


def info(run: Run) -> None:
    """What a run is, of what it was made, and how it was trained."""
    from longstate._tensorfile import kind_of
    from longstate.train.forecast import MODEL

    if kind_of(run / MODEL if run.is_dir() else run) == "language":
        from longstate.cli.show_text import show_text_facts

        show_text_facts(run)
        return
    from longstate.cli.show import show_facts

    show_facts(run, _load(run))


def _load(run: Path) -> "Forecaster":
    from longstate.train.forecast import MODEL, Forecaster

    if not run.exists():
        raise InputError(f"there is no run {run}")
    if run.is_dir() and not (run / MODEL).exists():
        raise InputError(f"{run} holds no finished run ({MODEL} is missing)")
    return Forecaster.load(run)


def _numbers(option: str, text: str) -> list[float]:
    try:
        return [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{option} must be numbers with commas between; got {text!r}") from None
