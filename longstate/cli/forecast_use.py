"""Commands that use a trained forecaster; `predict` takes a classifier too."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstate.cli import classify
from longstate.cli._runs import Run
from longstate.cli._terminal import note, write_rows
from longstate.cli.forecast import Data
from longstate.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from longstate.train import Forecaster


def predict(
    run: Run,
    data: Annotated[
        list[Path],
        typer.Argument(
            metavar="DATA...",
            help="A CSV, Parquet or Arrow file for a forecaster; files or folders of series for a "
            "classifier.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="CSV file to write; standard output if not given."),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            help="One method of a forecaster alone: network, line, ridge, smoothing, seasonal "
            "naive or last value; their weighted mean if not given."
        ),
    ] = None,
    horizon: Annotated[
        int | None,
        typer.Option(
            help="Number of rows to forecast; that of the training if not given. Later rows are "
            "forecast from the forecast, and their bands are not calibrated."
        ),
    ] = None,
    origin: Annotated[
        str | None,
        typer.Option(
            help="Last row that the forecast reads, of every series: its time, or its number from "
            "0 if the data has no times. The last row with a target if not given."
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="File to draw history, forecast and bands of every target to: .png, .svg or .pdf."
        ),
    ] = None,
    series: Annotated[
        str | None,
        typer.Option(help="Series of a panel on that picture; the first if not given."),
    ] = None,
    rate: classify.Rate = None,
) -> None:
    """Forecast the rows that come after the last one of DATA, with times written as in training; or
    classify every series in DATA. Needs a forecaster or a classifier."""
    import warnings

    from longstate import load
    from longstate.cli._runs import as_forecaster
    from longstate.train import Classifier, forecast_csv, read_recent

    found = load(run)
    if isinstance(found, Classifier):
        given = {"method": method, "horizon": horizon, "origin": origin}
        for option, value in {**given, "plot": plot, "series": series}.items():
            if value is not None:
                raise InputError(f"--{option} is for a forecaster; this run holds a classifier")
        classify.predict(found, data, rate, out)
        return
    forecaster = as_forecaster(run, "predict", found)
    classify.check_no_rate(rate)
    if len(data) > 1:
        raise InputError(f"a forecaster reads one file; got {len(data)}")
    if series is not None and plot is None:
        raise InputError("--series is the series of the picture that --plot writes")
    frame = read_recent(data[0], forecaster.model.spec)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are printed as notes
        forecast = forecaster.predict(frame, method=method, horizon=horizon, origin=origin)
    for remark in forecast.attrs["notes"]:
        note(remark)
    if plot is not None:
        _write_plot(forecaster, frame, forecast, series, plot)
    write_rows(forecast_csv(forecast, forecaster.model.spec), len(forecast), out)


def _write_plot(
    forecaster: "Forecaster",
    frame: "pd.DataFrame",
    forecast: "pd.DataFrame",
    series: str | None,
    path: Path,
) -> None:
    import io

    from matplotlib.figure import Figure

    from longstate._files import write_whole

    kinds = Figure().canvas.get_supported_filetypes()
    kind = path.suffix.lower().removeprefix(".")
    if kind not in kinds:
        raise InputError(f"--plot {path} must end in .png, .svg or .pdf")
    targets, picture = forecaster.model.spec.targets, io.BytesIO()
    figure = Figure(figsize=(8, 3.6 * len(targets)), layout="constrained")
    for target, ax in zip(targets, figure.subplots(len(targets), squeeze=False).flat, strict=True):
        forecaster.plot(frame, forecast=forecast, target=target, series=series, ax=ax)
    figure.savefig(picture, format=kind)
    write_whole(path, picture.getvalue())
    note(f"The picture is in {path}")


def backtest(
    run: Run,
    data: Data,
    origins: Annotated[
        int, typer.Option(help="Number of origins, evenly spaced over the unseen rows.")
    ] = 10,
    refit: Annotated[
        int,
        typer.Option(
            help="Fit ridge and line again to all rows before an origin: at each (1), at every "
            "n-th (n), or never (0)."
        ),
    ] = 0,
    network: Annotated[
        bool, typer.Option(help="Train the network again too, where ridge and line are. Slow.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="CSV file for the forecasts; only scores if not given."),
    ] = None,
) -> None:
    """Forecast from several origins in the rows of DATA that were not used for training or
    validation, each from the rows before it alone, and compare with the truth. Needs a forecaster.
    """
    from longstate.cli._runs import open_forecaster
    from longstate.cli.show import show_backtest, working
    from longstate.train import forecast_csv, read_table

    forecaster = open_forecaster(run, "backtest")
    with working("backtest", origins) as show:
        found = forecaster.backtest(
            read_table(data), origins=origins, refit=refit, network=network, show=show
        )
    show_backtest(found, forecaster.model.spec)
    if out is not None:
        text = forecast_csv(found.forecasts, forecaster.model.spec)
        write_rows(text, len(found.forecasts), out)
