"""One self-contained HTML page about a classifier of whole series: opens offline, without scripts.

Its first sentence says whether the network beats random convolutions with ridge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longstate.reports import _classes_figures as figures
from longstate.reports._forecast_figures import training_section
from longstate.reports._forecast_memory import System, linear_systems, memory_section
from longstate.reports._markup import Markup, element, table
from longstate.reports._page import document, run_facts, write_page
from longstate.train import ClassEvaluation, Classifier, TrainingHistory


@dataclass(frozen=True)
class ClassReport:
    """The contents of the page.

    Args:
        evaluation: on labelled cases that were not used for training.
        name: title of the report, for example the folder of the run.
        length: steps of the longest series read in training: samples, or frames of the network.
        history: of the training.
        systems: name of a layer -> its discrete linear system.
        interval: seconds between steps; None when unknown.
        configuration, environment: name -> value.
        notes: sentences.
        stride: samples of a step.
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
    stride: int = 1


def describe(model: Classifier, evaluation: ClassEvaluation, name: str) -> ClassReport:
    """The report of a fitted classifier."""
    rate, stride = model.source.rate, model.network_.stride
    return ClassReport(
        evaluation,
        name,
        model.length_ // stride,
        model.history_,
        linear_systems(model.network_.backbone),
        None if rate is None else stride / rate,
        {k.replace("_", " "): v for k, v in model.get_params().items()},
        model.environment_,
        model.fusion_.verdict("accuracy"),
        stride,
    )


def render(report: ClassReport) -> str:
    """The page as HTML."""
    sections = [_header(report), _scores(report), _confused(report)]
    sections += [training_section(report.history), _memory(report)]
    said, set_ = report.notes, report.configuration
    sections.append(run_facts("On validation cases", said, set_, report.environment))
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
        *[element("p", note, class_="note") for note in e.notes],
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


def _memory(report: ClassReport) -> Markup | None:
    steps = "samples" if report.stride == 1 else f"frames of {report.stride} samples"
    return memory_section(
        report.systems, report.length, report.interval,
        "If the time constants are much shorter than the series (at most "
        f"{report.length} {steps} in training), the layer does not connect its ends.",
    )  # fmt: skip
