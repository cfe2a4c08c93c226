"""Tables of classifiers and regressors on the console."""

from pathlib import Path

from longstate._numbers import duration, number
from longstate.cli._terminal import say, show_facts, show_table
from longstate.train import Classifier, Regressor
from longstate.train._series_evaluation import ClassEvaluation

_MOST = 12  # classes whose confusion fits a console


def show_classes(found: ClassEvaluation) -> None:
    """Accuracy along the series, the confusion of classes, and sentences."""
    rows = [("whole, outcome", f"{100 * found.accuracy:.1f} %", "")]
    if found.convolutions is not None:
        rows.append(("whole, random convolutions", f"{100 * found.convolutions:.1f} %", ""))
    rows += [
        (f"first {100 * s.share:.0f} %, network", f"{100 * s.accuracy:.1f} %",
         f"{100 * s.confidence:.1f} %")
        for s in found.seen
    ]  # fmt: skip
    title = f"{found.cases} {found.where}, {len(found.classes)} classes"
    show_table(title, ("read", "accuracy", "mean confidence"), rows)
    if len(found.classes) <= _MOST:
        confusion = [
            (name, *map(str, row)) for name, row in zip(found.classes, found.confusion, strict=True)
        ]
        show_table("Cases by true class (row) and predicted class", ("", *found.classes), confusion)
    say(f"Confidence and accuracy differ by {100 * found.calibration_error:.1f} points on average.")
    for sentence in (found.verdict(), *found.notes):
        say(sentence)


def show_series(run: Path, found: Classifier | Regressor) -> None:
    """What a run holds."""
    history, fusion = found.history_, found.fusion_
    parameters = sum(p.numel() for p in found.network_.parameters())
    rows = {
        "what": "a classifier" if isinstance(found, Classifier) else "a regressor",
        "channels": str(found.n_channels_),
    }
    if isinstance(found, Classifier):
        rows["classes"] = ", ".join(map(str, found.classes_.tolist()))
    if found.source.rate is not None:
        rows["samples per second"] = str(found.source.rate)
    if found.time_ is not None:
        usual = found.time_.interval
        rows["channel of the stamps"] = str(found.time_.channel)
        rows["usual interval"] = duration(usual) if found.source.dated else number(usual)
    if found.network_.stride > 1:
        rows["samples per frame"] = str(found.network_.stride)
    rows |= {name: str(value) for name, value in found.get_params().items() if value is not None}
    rows |= {
        "parameters": f"{parameters:,} trained",
        "ended": f"{history.ended}, best at step {history.best_step}, {history.seconds:.0f} s",
        "share of the network": f"{fusion.share:g}",
        **{f"made with {name}": value for name, value in found.environment_.items()},
    }
    show_facts(str(run), rows)
    for sentence in fusion.verdict("accuracy" if isinstance(found, Classifier) else "R²"):
        say(sentence)
