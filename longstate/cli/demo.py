"""`longstate demo`: train, score and report on a series that is part of the package."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstate.cli._terminal import say

if TYPE_CHECKING:
    import pandas as pd

    from longstate.train import Forecaster

TARGET, KNOWN = "late", "scheduled"
COVARIATES = ("cancelled", "wind_speed", "visibility", "precipitation")


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write.")] = Path("longstate-demo"),
) -> None:
    """Train a small forecaster on a year of real data, score it, and write a report."""
    from longstate import datasets
    from longstate._files import write_whole
    from longstate.cli.forecast import write_evaluation
    from longstate.cli.show import progress_bar
    from longstate.train._forecast import MODEL

    frame = datasets.nyc_airports()
    forecaster = small_forecaster()
    say(
        f"{len(frame):,} hours of departures from New York's airports and their weather. Learning "
        f"how many flights will leave late in each of the next {forecaster.horizon} hours."
    )
    # Written before the training, so that a folder that cannot be written is noticed early.
    now, rows = tomorrow(frame, forecaster.horizon), out / "tomorrow.csv"
    write_whole(rows, now.to_csv(index=False))
    with progress_bar() as show:
        forecaster.fit(frame, TARGET, covariates=COVARIATES, known=KNOWN, show=show)
    say(f"Training took {forecaster.history.seconds:.0f} s.")
    forecaster.save(out / MODEL)
    title = "longstate demo: late departures from New York, 2013"
    page = write_evaluation(forecaster, frame, out, title, now=(str(rows), now))
    say(f"The report is {page}")
    say(f"Next: longstate predict {out} {rows}")


def small_forecaster() -> "Forecaster":
    """A forecaster whose training takes half a minute on two processors."""
    from longstate.train import Forecaster, Size, Training

    return Forecaster(
        12,
        window=72,
        size=Size(d_model=32, n_layers=1, d_state=32),
        training=Training(epochs=4, windows_per_epoch=2048, learning_rate=5e-3),
    )


def tomorrow(frame: "pd.DataFrame", horizon: int) -> "pd.DataFrame":
    """The last weeks of the series. In the last `horizon` rows only the timetable is filled."""
    recent = frame.tail(500).copy()
    recent.iloc[-horizon:, recent.columns.get_indexer([TARGET, *COVARIATES])] = float("nan")
    return recent
