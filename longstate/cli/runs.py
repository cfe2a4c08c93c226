"""Commands for runs of any kind. They import what they need when they run."""

from pathlib import Path
from typing import Annotated

import typer

from longstate.cli import classify
from longstate.cli._runs import Run
from longstate.errors import InputError

Data = Annotated[
    Path,
    typer.Argument(
        metavar="DATA",
        help="CSV, Parquet or Arrow file for a forecaster, text file for a language model, file or "
        "folder of series for a classifier.",
    ),
]


def evaluate(
    run: Run,
    data: Data,
    labels: classify.Labels = None,
    rate: classify.Rate = None,
    column: Annotated[
        str | None,
        typer.Option(help="For a language model: column of a table with the text."),
    ] = None,
) -> None:
    """Score a model on DATA.

    A forecaster is compared with simple methods, on rows that were not used for training. A
    language model is scored in bits per byte, a classifier by its accuracy along the series.
    """
    from longstate import load
    from longstate.cli._runs import as_text_model, kind_of
    from longstate.cli.show import show_evaluation
    from longstate.cli.show_text import show_score
    from longstate.train import Classifier, Forecaster, read_table

    found = load(run)
    if column is not None and as_text_model(run, found) is None:
        raise InputError(f"--column is for a language model; {run} holds {kind_of(found)}")
    if isinstance(found, Classifier):
        classify.evaluate(found, data, labels, rate)
        return
    classify.check_no_rate(rate)
    if isinstance(found, Forecaster):
        show_evaluation(found.evaluate(read_table(data)))
        return
    text = as_text_model(run, found)
    if text is None:
        raise InputError(
            f"{run} holds {kind_of(found)}; `longstate evaluate` needs a forecaster, a language "
            "model or a classifier"
        )
    show_score(str(data), text.score(data, column=column))


def info(run: Run) -> None:
    """Show the kind, the layers and the training of a run."""
    from longstate import load
    from longstate.cli.show import show_forecaster, show_model
    from longstate.cli.show_series import show_series
    from longstate.cli.show_text import show_text
    from longstate.train import Classifier, Forecaster, Regressor, TextModel

    found = load(run)
    if isinstance(found, Forecaster):
        show_forecaster(run, found)
    elif isinstance(found, TextModel):
        show_text(run, found)
    elif isinstance(found, Classifier | Regressor):
        show_series(run, found)
    else:
        show_model(run, found)
