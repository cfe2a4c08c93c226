"""Commands that train and use a classifier of whole series. They import what they need when they
run, so that `longstate --help` is fast."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstate.cli._options import with_settings
from longstate.cli._runs import INTERRUPTED
from longstate.cli._terminal import note, say, write_rows
from longstate.errors import InputError
from longstate.train import Execution

if TYPE_CHECKING:
    from longstate.train import ClassEvaluation, Classifier, SeriesData

Data = Annotated[
    list[Path],
    typer.Argument(
        metavar="DATA...",
        help="Files .ts, .wav, CSV, Parquet or Arrow (a row per sample); or folders with .wav "
        "files, with one folder in them for each class, or with --labels.",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="Table with the columns file and label, for .wav files."),
]

Rate = Annotated[
    float | None,
    typer.Option(
        help="For a classifier: the sampling interval of DATA as a multiple of that of the "
        "training, 2 for 4 kHz after 8 kHz. WAV files tell it themselves."
    ),
]


@with_settings(execution=Execution)
def train(
    data: Data,
    test: Annotated[
        Path | None, typer.Option(help="File or folder with the test cases, of the same kind.")
    ] = None,
    test_share: Annotated[
        float, typer.Option(help="Share of the cases of each class to test on, without --test.")
    ] = 0.2,
    labels: Labels = None,
    case: Annotated[
        str, typer.Option(help="Column of a CSV, Parquet or Arrow file that tells the cases apart.")
    ] = "case",
    time: Annotated[str, typer.Option(help="Column that orders the samples of a case.")] = "time",
    times: Annotated[
        bool | None,
        typer.Option(
            "--times/--no-times",
            help="Read how much time is between the samples from the column of --time, or count "
            "samples. If not given, times are read where they are irregular.",
        ),
    ] = None,
    label: Annotated[str, typer.Option(help="Column with the class of a case.")] = "label",
    layers: Annotated[
        str, typer.Option(help="Layer of every block, or a repeated pattern such as s5,mamba.")
    ] = "s5",
    d_model: Annotated[int, typer.Option(help="Channels between the blocks.")] = 64,
    n_layers: Annotated[int, typer.Option(help="Number of blocks.")] = 2,
    epochs: Annotated[int, typer.Option(help="Passes over the training cases, at most.")] = 60,
    minutes: Annotated[float, typer.Option(help="Time for training the network, at most.")] = 10.0,
    convolutions: Annotated[
        bool, typer.Option(help="Fit random convolutions with ridge too, the baseline.")
    ] = True,
    warp: Annotated[
        float,
        typer.Option(
            help="Shift and stretch the network's training series in time at random, by up to this "
            "share of their length; 0.02 where classes do not depend on exact times."
        ),
    ] = 0.0,
    balanced: Annotated[
        bool, typer.Option("--balanced", help="Give every class the same weight.")
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the run. A run that was stopped there is continued."),
    ] = None,
    *,
    execution: Execution,
) -> None:
    """Train a classifier of whole series, and compare it with random convolutions and ridge.

    Several processes train together under torchrun: `torchrun --nproc-per-node 2 -m longstate train
    classify ...`.
    """
    from longstate.cli.show import progress_bar
    from longstate.train import Classifier, Columns, process_group, read_series
    from longstate.train._series_evaluation import hold_out
    from longstate.train._series_source import STAMPS

    columns = Columns(case, time, label)
    learnt = read_series(data, columns, labels)
    if test is not None:
        tested = read_series(test, columns, labels)
    else:
        learnt, tested = hold_out(learnt, test_share, seed)
    out = out or Path("runs") / f"{data[0].stem}-classes"
    classifier = Classifier(
        layers, d_model=d_model, n_layers=n_layers, epochs=epochs, minutes=minutes,
        convolutions=convolutions, class_weight="balanced" if balanced else None, seed=seed,
    )  # fmt: skip
    classifier.source = learnt.source(columns)
    channel = None
    with process_group() as rank, progress_bar() as show:
        tell = note if rank == 0 else (lambda _: None)
        if times or (times is None and _reads_times(learnt, layers, n_layers, tell)):
            learnt, tested = (part.with_stamps(columns) for part in (learnt, tested))
            classifier.source = replace(classifier.source, dated=learnt.dated)
            channel = STAMPS
        classifier.fit(
            learnt.X, learnt.y, time_channel=channel, warp=warp, execution=execution, out=out,
            show=show,
        )  # fmt: skip
    if rank > 0:
        return
    history = classifier.history_
    say(f"Training ended ({history.ended}); best at step {history.best_step}.")
    for sentence in classifier.fusion_.verdict("accuracy"):
        say(sentence)
    page = write_evaluation(classifier, tested, out, str(out))
    say(f"The run is in {out}, the report is {page}")
    if history.ended == "interrupted":
        raise typer.Exit(INTERRUPTED)


def _reads_times(
    data: "SeriesData", layers: str, n_layers: int, tell: Callable[[str], None]
) -> bool:
    """Whether to read the times, if nobody said so; tells it if they are irregular."""
    from longstate.train._patterns import layer_names
    from longstate.train._time_layers import layers_without_time

    if not data.irregular:
        return False
    begin = "The times of the samples are irregular"
    without = layers_without_time(layer_names(layers, n_layers))
    if without:
        tell(
            f"{begin}, but {without[0]} takes no time between samples: samples are counted. With "
            "--layers s5 the times are read."
        )
        return False
    tell(f"{begin}: the layers step over the time between them. --no-times counts samples instead.")
    return True


def write_evaluation(classifier: "Classifier", tested: "SeriesData", out: Path, title: str) -> Path:
    """Evaluate a classifier, write `evaluation.json` and the report, and print the scores.

    Returns:
        The path of the report.
    """
    from longstate import reports
    from longstate._files import write_whole
    from longstate.cli.show_series import show_classes

    found = _evaluate(classifier, tested)
    write_whole(out / "evaluation.json", found.to_json())
    page = reports.classes.write(
        reports.classes.describe(classifier, found, title), out / "report.html"
    )
    show_classes(found)
    return page


def _evaluate(
    classifier: "Classifier", tested: "SeriesData", rate: float | None = None
) -> "ClassEvaluation":
    from longstate.train._series_evaluation import evaluate_classifier

    interval = _interval(classifier, tested, rate)
    return evaluate_classifier(classifier, tested.X, tested.y, tested.names, rate=interval)


def _interval(classifier: "Classifier", data: "SeriesData", rate: float | None) -> float:
    """The rate to predict at; prints a note if the files alone tell that it is not 1."""
    found = classifier.source.interval(data.rate, rate)
    if rate is None and found != 1:
        note(
            f"The files have {data.rate} samples per second, and the model was trained on "
            f"{classifier.source.rate}: they are read with --rate {found:g}."
        )
    return found


def predict(
    classifier: "Classifier", data: list[Path], rate: float | None, out: Path | None
) -> None:
    """Write a table with the class of each case and the probability of every class."""
    from longstate.train._series_evaluation import classes_csv
    from longstate.train._series_files import read_as_trained

    found = read_as_trained(classifier.source, data, labelled=False)
    interval = _interval(classifier, found, rate)
    remark = classifier.remark(interval)
    if remark is not None:
        note(remark[0].upper() + remark[1:] + ".")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the remark is printed
        table = classes_csv(classifier, found, interval)
    write_rows(table, len(found.X), out)


def evaluate(classifier: "Classifier", data: Path, labels: Path | None, rate: float | None) -> None:
    """Score a classifier on labelled cases."""
    from longstate.cli.show_series import show_classes
    from longstate.train._series_files import read_as_trained

    tested = read_as_trained(classifier.source, data, labels)
    show_classes(_evaluate(classifier, tested, rate))


def check_no_rate(rate: float | None) -> None:
    """Raise `InputError` if `--rate` was given for a model of another kind."""
    if rate is not None:
        raise InputError(f"--rate is for a classifier; got {rate:g} for a model of another kind")
