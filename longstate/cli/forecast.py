"""Commands that train and use a forecaster. They import what they need when they run, so that
`longstate --help` answers at once."""

from pathlib import Path
from typing import Annotated

import typer

from longstate.cli._options import numbers, with_settings
from longstate.cli._runs import INTERRUPTED, Run
from longstate.cli._terminal import note, say, write
from longstate.train import Size, Training

Data = Annotated[
    Path, typer.Argument(metavar="DATA", help="CSV file: a header first, oldest row first.")
]


@with_settings(size=Size, training=Training)
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
    holidays: Annotated[
        list[str], typer.Option(help="Working day that is none, as 2024-12-25; repeat for several.")
    ] = [],  # noqa: B006
    lower: Annotated[float | None, typer.Option(help="No forecast lies below.")] = None,
    upper: Annotated[float | None, typer.Option(help="No forecast lies above.")] = None,
    transform: Annotated[
        str, typer.Option(help="Of the targets: none, log1p, box-cox, or auto: best on validation.")
    ] = "none",
    covariates: Annotated[
        list[str], typer.Option(help="Column known up to now; repeat for several.")
    ] = [],  # noqa: B006
    known: Annotated[
        list[str], typer.Option(help="Column known for the future too; repeat for several.")
    ] = [],  # noqa: B006
    window: Annotated[int | None, typer.Option(help="Rows that a forecast sees.")] = None,
    season: Annotated[
        int | None, typer.Option(help="Rows per season, for the seasonal naive method.")
    ] = None,
    layers: Annotated[
        str, typer.Option(help="Layer of every block, or a pattern: s4d,mamba.")
    ] = "s4d",
    quantiles: Annotated[str, typer.Option(help="Levels, or an empty text for none.")] = (
        "0.1,0.5,0.9"
    ),
    split: Annotated[
        str, typer.Option(help="Shares of the rows for training, validation and test.")
    ] = "0.7,0.1,0.2",
    seed: Annotated[int, typer.Option(help="Seed of weights, order and dropout.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; a run that was stopped goes on.")
    ] = None,
    *,
    size: Size,
    training: Training,
) -> None:
    """Train a forecaster, and score it beside last value, seasonal naive and ridge regression."""
    levels, shares = numbers("--quantiles", quantiles), numbers("--split", split)
    from longstate import reports
    from longstate._files import write_whole
    from longstate.cli.show import progress_bar, show_evaluation
    from longstate.train import Forecaster, read_csv

    frame = read_csv(data)
    out = out or Path("runs") / f"{data.stem}-{'-'.join(target)}-{horizon}"
    forecaster = Forecaster(
        horizon,
        window=window,
        layers=layers,
        quantiles=levels,
        season=season,
        size=size,
        training=training,
        seed=seed,
    )
    with progress_bar() as show:
        forecaster.fit(
            frame,
            target,
            covariates=covariates,
            known=known,
            time=time,
            step=step,
            zone=zone,
            holidays=holidays,
            lower=lower,
            upper=upper,
            transform=transform,
            split=shares,
            out=out,
            show=show,
        )
    for remark in forecaster.facts["notes"]:
        say(remark)
    history = forecaster.history
    say(f"Training ended ({history.ended}); best at step {history.best_step}.")
    evaluation = forecaster.evaluate(frame)
    write_whole(out / "evaluation.json", evaluation.to_json())
    page = reports.write(reports.describe(forecaster, evaluation, str(out)), out / "report.html")
    show_evaluation(evaluation)
    say(f"The run is in {out}, the report is {page}")
    if history.ended == "interrupted":
        raise typer.Exit(INTERRUPTED)


def predict(
    run: Run,
    data: Data,
    out: Annotated[
        Path | None, typer.Option("-o", "--out", help="CSV file to write; standard output if none.")
    ] = None,
) -> None:
    """Forecast the rows that come after the last one of DATA, with times written as in training.
    Needs a forecaster."""
    import warnings

    from longstate._files import is_stream, write_whole
    from longstate.cli._runs import open_forecaster
    from longstate.train import forecast_csv, read_csv

    forecaster = open_forecaster(run, "predict")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they stand in the notes
        forecast = forecaster.predict(read_csv(data))
    for remark in forecast.attrs["notes"]:
        note(remark)
    text = forecast_csv(forecast, forecaster.model.spec)
    if out is None:
        write(text)
        return
    write_whole(out, text)
    if not is_stream(out):
        say(f"{len(forecast)} rows are in {out}")
