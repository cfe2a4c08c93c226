"""`longstate demo`: train, score and report on a series that ships with the package."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from longstate.train.forecast import Forecaster

TARGET, COVARIATES = "temperature", ("humidity", "wind_speed", "pressure")


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("longstate-demo"),
) -> None:
    """Train a small forecaster on a year of real weather, score it, and write a report."""
    from longstate import datasets, reports
    from longstate.cli.show import progress_bar, say, show_evaluation
    from longstate.files import write_whole
    from longstate.train.forecast import MODEL

    frame = datasets.nyc_weather()
    forecaster = small_forecaster()
    say(
        f"A year of hourly weather at New York's JFK airport: {len(frame):,} rows. Learning to "
        f"forecast the {TARGET} of the next {forecaster.horizon} hours."
    )
    # Written first: a folder that cannot be written should not cost a training.
    write_whole(out / "nyc_weather.csv", frame.to_csv(index=False))
    with progress_bar() as show:
        forecaster.fit(frame, TARGET, covariates=COVARIATES, show=show)
    say(f"Learnt for {forecaster.history.seconds:.0f} s.")
    evaluation = forecaster.evaluate(frame)
    forecaster.save(out / MODEL)
    write_whole(out / "evaluation.json", evaluation.to_json())
    report = reports.describe(
        forecaster, evaluation, "longstate demo: weather at JFK airport, 2013"
    )
    page = reports.write(report, out / "report.html")
    show_evaluation(evaluation)
    say(f"The report is {page}")
    say(f"Next: longstate predict {out} {out / 'nyc_weather.csv'}")


def small_forecaster() -> "Forecaster":
    """One that learns in half a minute on two processors."""
    from longstate.train.forecast import Forecaster
    from longstate.train.settings import Size, Training

    return Forecaster(
        24,
        window=96,
        size=Size(d_model=16, n_layers=1, d_state=32),
        training=Training(epochs=3, windows_per_epoch=2048),
    )
