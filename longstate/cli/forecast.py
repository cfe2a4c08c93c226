"""Commands that train and use a forecaster. They import what they need when they run, so that
`longstate --help` is fast."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstate.cli._options import numbers, with_settings
from longstate.cli._runs import INTERRUPTED
from longstate.cli._terminal import note, say
from longstate.train import Size, Training

if TYPE_CHECKING:
    import pandas as pd

    from longstate.train import Forecaster, Trial, Tuning

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="CSV file with a header line, Parquet or Arrow file; the oldest row is first.",
    ),
]


@with_settings(size=Size, training=Training)
def train(
    data: Data,
    horizon: Annotated[int, typer.Option(help="Number of rows to forecast.")],
    target: Annotated[
        list[str],
        typer.Option(
            help="Column to forecast; can be repeated. The only column of numbers, or y beside "
            "unique_id and ds, if not given."
        ),
    ] = [],  # noqa: B006
    id: Annotated[
        str | None,
        typer.Option(
            help="Column that names the series of a panel: one row per series and time, one model "
            "for all."
        ),
    ] = None,
    static: Annotated[
        list[str],
        typer.Option(
            help="Column that a series of a panel has once, of numbers or text; can be repeated."
        ),
    ] = [],  # noqa: B006
    wide: Annotated[
        bool,
        typer.Option("--wide", help="Take the target columns as the series of one panel."),
    ] = False,
    time: Annotated[str | None, typer.Option(help="Column with the times.")] = None,
    step: Annotated[
        str | None,
        typer.Option(
            help="Time step such as h, D, B or MS; `rows` if one row is one step; `stamps` if "
            "times are irregular and are read. Found in the data if not given."
        ),
    ] = None,
    zone: Annotated[
        str | None, typer.Option(help="Time zone of times without one, such as Europe/Berlin.")
    ] = None,
    holidays: Annotated[
        list[str], typer.Option(help="Weekday without work, such as 2024-12-25; can be repeated.")
    ] = [],  # noqa: B006
    lower: Annotated[float | None, typer.Option(help="Lower bound of every forecast.")] = None,
    upper: Annotated[float | None, typer.Option(help="Upper bound of every forecast.")] = None,
    transform: Annotated[
        str,
        typer.Option(
            help="Transform of the targets: none, log1p, box-cox; or auto, the best on validation."
        ),
    ] = "none",
    covariates: Annotated[
        list[str], typer.Option(help="Further column, known up to now; can be repeated.")
    ] = [],  # noqa: B006
    known: Annotated[
        list[str], typer.Option(help="Further column, known for the future too; can be repeated.")
    ] = [],  # noqa: B006
    window: Annotated[
        int | None,
        typer.Option(
            help="Number of rows that a forecast reads; 336, or less for short data, if not given."
        ),
    ] = None,
    season: Annotated[
        int | None,
        typer.Option(help="Rows per season, for the seasonal naive method; found if not given."),
    ] = None,
    layers: Annotated[
        str, typer.Option(help="Layer of every block, or a repeated pattern such as s4d,mamba.")
    ] = "s4d",
    quantiles: Annotated[
        str, typer.Option(help="Quantiles to forecast; an empty text for none.")
    ] = ("0.1,0.5,0.9"),
    split: Annotated[
        str | None,
        typer.Option(
            help="Shares of the rows for training, validation and test; 0.7,0.1,0.2 if not given, "
            "or what fits short data."
        ),
    ] = None,
    refit: Annotated[
        bool,
        typer.Option(
            help="Fit ridge regression and line to all rows at the end, for `predict`; --no-refit "
            "forecasts by what was fitted without the test part."
        ),
    ] = True,
    tune: Annotated[
        float | None,
        typer.Option(
            help="Minutes for a search for window, layers, sizes, dropout and learning rate by the "
            "error on validation. It is continued in the same folder; Ctrl-C keeps the best so far."
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(help="Seed of the weights, the order of the windows, and dropout.")
    ] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. A run that was stopped there is continued."),
    ] = None,
    *,
    size: Size,
    training: Training,
) -> None:
    """Train a forecaster, and compare it with simple methods.

    The forecast is a weighted mean of last value, seasonal naive, exponential smoothing, ridge
    regression and a state space network, with weights from validation.

    Several processes train together under torchrun: `torchrun --nproc-per-node 2 -m longstate train
    forecast ...`.
    """
    levels = numbers("--quantiles", quantiles)
    shares = None if split is None else numbers("--split", split)
    from longstate.cli.show import progress_bar
    from longstate.train import Forecaster, is_long, process_group, read_table

    search, trials = _search(tune)

    frame = None if is_long(data) else read_table(data)
    out = out or Path("runs") / _name(data, target, horizon)
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
    with process_group() as rank, progress_bar() as show:
        forecaster.fit(
            data if frame is None else frame,
            target or None,
            id=id,
            static=static,
            wide=wide,
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
            refit=refit,
            tune=search,
            out=out,
            show=show,  # of rank 0
        )
    if rank > 0:
        return
    _show_training(forecaster)
    rows = forecaster.tail if frame is None else frame
    assert rows is not None
    page = write_evaluation(forecaster, rows, out, str(out), data=str(data))
    say(f"The run is in {out}, the report is {page}")
    if forecaster.history.ended == "interrupted" or any(t.waits for t in trials):
        raise typer.Exit(INTERRUPTED)


def _show_training(forecaster: "Forecaster") -> None:
    """Print the remarks of a training, its end, and the choice."""
    from longstate.cli.show import show_choice

    for remark in forecaster.facts["notes"]:
        say(remark)
    history = forecaster.history
    say(f"Training ended ({history.ended}); best at step {history.best_step}.")
    show_choice(forecaster.choice)


def _search(minutes: float | None) -> "tuple[Tuning | None, list[Trial]]":
    """The search that was asked for, and a list of its ended trials, which are printed."""
    from longstate.train import Trial, Tuning

    trials: list[Trial] = []

    def told(trial: Trial) -> None:
        note(trial.words())
        trials.append(trial)

    return None if minutes is None else Tuning(minutes, told), trials


def _name(data: Path, target: list[str], horizon: int) -> str:
    """Of the folder of a run."""
    named = target if len(target) <= 3 else [f"{len(target)}-columns"]
    return "-".join([data.stem, *named, str(horizon)])


def write_evaluation(
    forecaster: "Forecaster",
    frame: "pd.DataFrame",
    out: Path,
    title: str,
    data: str = "DATA",
    now: "tuple[str, pd.DataFrame] | None" = None,
) -> Path:
    """Evaluate a forecaster, write `evaluation.json` and the report, and print the scores.

    Args:
        forecaster: to evaluate. frame: its rows.
        out: folder. title: of the report. data: file of the rows, for the report.
        now: file and rows to forecast from; the same as for the evaluation if None.

    Returns:
        The path of the report.
    """
    from longstate import reports
    from longstate._files import write_whole
    from longstate.cli.show import show_evaluation

    evaluation = forecaster.evaluate(frame)
    write_whole(out / "evaluation.json", evaluation.to_json())
    file, rows = now or (data, frame)
    files = (str(out), data, file)
    report = reports.describe(forecaster, evaluation, title, now=rows, files=files)
    page = reports.write(report, out / "report.html")
    show_evaluation(evaluation)
    return page
