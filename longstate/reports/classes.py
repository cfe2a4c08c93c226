"""One self-contained HTML page about a classifier of whole series: opens offline, without scripts.

Its first sentence says whether the network beats random convolutions with ridge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longstate.reports import _classes_figures as figures
from longstate.reports._forecast_figures import loss_curve
from longstate.reports._forecast_memory import (
    System,
    impulse_figure,
    memories,
    memory_table,
    time_scale_figure,
)
from longstate.reports._markup import Markup, element, table
from longstate.reports._page import document, facts, write_page
from longstate.train import ClassEvaluation, Classifier, TrainingHistory


@dataclass(frozen=True)
class ClassReport:
    """The contents of the page.

    Args:
        evaluation: on labelled cases that were not used for training.
        name: title of the report, for example the folder of the run.
        length: samples of the longest series read in training.
        history: of the training.
        systems: name of a layer -> its discrete linear system.
        interval: seconds between samples; None when unknown.
        configuration, environment: name -> value.
        notes: sentences.
    """

    evaluation: ClassEvaluation
    name: str
    length: int
    history: TrainingHistory | None = None
    systems: Mapping[str, System] = field(default_factory=dict)
    interval: float | None = None
    configuration: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def describe(model: Classifier, evaluation: ClassEvaluation, name: str) -> ClassReport:
    """The report of a fitted classifier."""
    mixers: list[Any] = [block.mixer for block in model.network_.backbone.each_block()]
    systems = {
        f"layer {i} ({type(mixer).__name__})": mixer.system()
        for i, mixer in enumerate(mixers, start=1)
        if hasattr(mixer, "system")
    }
    rate = model.source.rate
    return ClassReport(
        evaluation,
        name,
        model.length_,
        model.history_,
        systems,
        None if rate is None else 1 / rate,
        {k.replace("_", " "): v for k, v in model.get_params().items()},
        model.environment_,
        model.fusion_.verdict("accuracy"),
    )


def render(report: ClassReport) -> str:
    """The page as HTML."""
    sections = [_header(report), _scores(report), _confused(report), _training(report)]
    sections += [_memory(report), _facts(report)]
    return document(f"{report.name}: classification report", sections)


def write(report: ClassReport, path: str | Path) -> Path:
    """Write the page, atomically; returns its absolute path.

    Raises:
        InputError: it cannot be written.
    """
    return write_page(render(report), path)


def _header(report: ClassReport) -> Markup:
    e = report.evaluation
    good = e.convolutions is None or e.network > e.convolutions
    return element(
        "header",
        element("p", report.name, class_="name"),
        element("h1", e.verdict(), class_="good" if good else "bad"),
        element(
            "p",
            f"The outcome for whole series has accuracy {100 * e.accuracy:.1f} % on {e.cases} "
            f"{e.where} of {len(e.classes)} classes.",
            class_="lead",
        ),
    )


def _scores(report: ClassReport) -> Markup:
    e = report.evaluation
    rows = [("outcome", f"{100 * e.accuracy:.1f} %", f"{e.share:g}")]
    rows.append(("network alone", f"{100 * e.network:.1f} %", "1"))
    if e.convolutions is not None:
        rows.append(("random convolutions with ridge", f"{100 * e.convolutions:.1f} %", "0"))
    pictures = [figures.confusion(e), figures.along(e), figures.calibration(e)]
    return element(
        "section",
        element("h2", "How often is it right?"),
        table(("decided by", "accuracy", "share of the network"), rows, 0),
        element(
            "p",
            "The share was chosen on validation cases, which are part of the training cases.",
            class_="note",
        ),
        element("div", *pictures, class_="figures"),
    )


def _confused(report: ClassReport) -> Markup | None:
    if not report.evaluation.confused:
        return None
    pictures = [figures.confused(case) for case in report.evaluation.confused]
    return element(
        "section",
        element("h2", "Most confused examples"),
        element("p", "The wrong cases with the highest probability.", class_="note"),
        element("div", *pictures, class_="figures"),
    )


def _training(report: ClassReport) -> Markup | None:
    if report.history is None:
        return None
    picture = element("div", loss_curve(report.history), class_="figures")
    return element("section", element("h2", "Training"), picture)


def _memory(report: ClassReport) -> Markup | None:
    if not report.systems:
        return None
    layers = memories(report.systems, report.length)
    return element(
        "section",
        element("h2", "What the layers remember"),
        element(
            "p",
            "Each layer is a linear system, so its memory is known exactly. If the time constants "
            f"are much shorter than the series (at most {report.length} samples in training), the "
            "layer does not connect its ends.",
            class_="note",
        ),
        memory_table(layers, report.interval),
        element(
            "div",
            impulse_figure(layers, report.length, report.interval),
            time_scale_figure(layers, report.length, report.interval),
            class_="figures",
        ),
    )


def _facts(report: ClassReport) -> Markup:
    parts = [facts("Configuration", report.configuration, "div")]
    parts.append(facts("Environment", report.environment, "div"))
    said = [element("li", note) for note in report.notes]
    data = [element("h2", "On validation cases"), element("ul", *said)] if said else []
    return element("section", *data, element("div", *filter(None, parts), class_="facts-grid"))
