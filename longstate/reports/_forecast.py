"""One self-contained HTML page about a trained forecaster: opens offline, without scripts.

Its first sentence says whether the model beats the best simple method. Every string of the data is
escaped when it is put into the page; see `_markup`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longstate._numbers import score
from longstate.reports import _forecast_figures as figures
from longstate.reports._forecast_memory import System, memory_section
from longstate.reports._markup import Markup, element, table
from longstate.reports._page import document, run_facts, write_page
from longstate.reports._units import short_time, steps
from longstate.train._chosen import Chosen
from longstate.train._evaluation import ForecastEvaluation
from longstate.train._history import TrainingHistory

WORST = 10  # series in the table


@dataclass(frozen=True)
class ForecastReport:
    """The contents of the page. Only the evaluation is required.

    Args:
        evaluation: scores, coverage and examples on unseen windows.
        name: title of the report, for example the folder of the run.
        history: of the training.
        systems: name of a layer -> its discrete linear system.
        interval: seconds between samples, None when unknown.
        configuration, environment: name -> value.
        notes: sentences about the data.
        choice: methods and weights, None when unknown.
    """

    evaluation: ForecastEvaluation
    name: str = "forecaster"
    history: TrainingHistory | None = None
    systems: Mapping[str, System] = field(default_factory=dict)
    interval: float | None = None
    configuration: Mapping[str, object] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    choice: Chosen | None = None


def headline(evaluation: ForecastEvaluation, interval: float | None = None) -> str:
    """One sentence: the model against the best of the simple methods."""
    what = ", ".join(f"“{name}”" for name in evaluation.targets[:3])
    what += ", ..." if len(evaluation.targets) > 3 else ""
    task = f"Forecasting {what} up to {steps(evaluation.horizon, interval)} ahead"
    task += f" by {evaluation.chosen}" if evaluation.chosen else ""
    best = figures.best_baseline(evaluation)
    model = evaluation.score("model").mse
    if best is None:
        return f"{task}, the model's mean squared error is {score(model)}."
    other = evaluation.score(best).mse
    if other == 0:
        return f"{task}, the model does not beat {best}, which has no error."
    change = 100 * (model / other - 1)
    if change < -0.05:
        return (
            f"{task}, the model has a {-change:.1f} % smaller squared error than {best}, the "
            "best of the simple methods."
        )
    if change <= 0.05:
        return f"{task}, the model is equal to {best}, the best of the simple methods."
    return (
        f"{task}, the model does not beat {best}: its squared error is {change:.1f} % larger. "
        f"Use {best}."
    )


def render(report: ForecastReport) -> str:
    """The page as HTML."""
    sections = [_header(report), _scores(report), _choice(report.choice), _series(report)]
    sections += [_examples(report)]
    sections += [figures.training_section(report.history), _memory(report)]
    said, set_ = report.notes, report.configuration
    sections += [run_facts("About the data", said, set_, report.environment), _footer()]
    return document(f"{report.name}: forecast report", sections)


def write(report: ForecastReport, path: str | Path) -> Path:
    """Write the page, atomically; returns its absolute path.

    Raises:
        InputError: it cannot be written.
    """
    return write_page(render(report), path)


def _header(report: ForecastReport) -> Markup:
    e = report.evaluation
    rows = steps(e.window, report.interval)
    return element(
        "header",
        element("p", report.name, class_="name"),
        element("h1", headline(e, report.interval), class_="good" if e.beats_all() else "bad"),
        element(
            "p",
            f"Tested on {e.windows:,} windows that were not used for training, from "
            f"{short_time(e.first)} to {short_time(e.last)}. Each forecast reads the last {rows}.",
            class_="lead",
        ),
    )


def _scores(report: ForecastReport) -> Markup:
    e = report.evaluation
    model = e.score("model").mse
    best = min(range(len(e.scores)), key=lambda i: e.scores[i].mse)
    rows = [
        (s.method, score(s.mse), "" if i == 0 else _change(model, s.mse), score(s.mae))
        for i, s in enumerate(e.scores)
    ]
    pictures = [figures.error_by_step(e, report.interval)]
    if e.quantiles:
        pictures.append(figures.calibration(e))
    return element(
        "section",
        element("h2", "Is it better than simple methods?"),
        table(("method", "squared error", "model has", "absolute error"), rows, best),
        element(
            "p",
            "Errors are in units of the target's standard deviation over the training part; "
            "the model has so much more or less of the squared error than the method. Last "
            f"value repeats the newest sample; seasonal naive repeats the last {e.season} samples; "
            "ridge is a linear regression on the same inputs, fitted in closed form; so is line, "
            "whose penalty may grow with the lag; smoothing is damped seasonal exponential "
            "smoothing.",
            class_="note",
        ),
        *(element("p", said, class_="note") for said in _bands(e)),
        element("div", *pictures, class_="figures"),
    )


def _bands(e: ForecastEvaluation) -> list[str]:
    """Coverage of each band, before and after calibration."""
    return [
        *(band.words() for band in e.bands),
        *(sentence for band in e.bands if (sentence := band.sentence()) is not None),
    ]


def _choice(choice: Chosen | None) -> Markup | None:
    if choice is None:
        return None
    parts = sorted(choice.parts, key=lambda p: (-p.weight, p.error))
    head = ("method", "weight", "squared error, validation", "squared error, all folds")
    return element(
        "section",
        element("h2", "What the forecast is made of"),
        table(head, [p.cells() for p in parts], 0),
        *(element("p", sentence, class_="note") for sentence in choice.sentences()),
    )


def _series(report: ForecastReport) -> Markup | None:
    e = report.evaluation
    if not e.series:
        return None
    head = ("series", "true values", "squared error", e.series[0].best)
    return element(
        "section",
        element("h2", "Errors by series"),
        element("p", e.by_series() or ""),
        table(head, [one.cells() for one in e.series[:WORST]]),
        element(
            "p",
            f"The series with the largest errors of the model{_most(len(e.series))}, each in units "
            "of its own standard deviation.",
            class_="note",
        ),
    )


def _most(series: int) -> str:
    return f", {WORST} of {series:,}" if series > WORST else ""


def _change(model: float, other: float) -> str:
    return f"{100 * (model / other - 1):+.1f} %".replace("-", "−") if other else ""


def _examples(report: ForecastReport) -> Markup | None:
    e = report.evaluation
    if not e.examples:
        return None
    against = figures.best_baseline(e)
    pictures = [figures.example(one, against) for one in e.examples]
    return element(
        "section",
        element("h2", "Forecasts and true values"),
        element("p", "Windows at equal distances in the test part, not selected.", class_="note"),
        element("div", *pictures, class_="figures"),
    )


def _memory(report: ForecastReport) -> Markup | None:
    return memory_section(
        report.systems, report.evaluation.window, report.interval,
        "If the time constants are much shorter than the window, the layer does not use the older "
        "part of the window.",
    )  # fmt: skip


def _footer() -> Markup:
    return element(
        "footer",
        "Each picture shows the kind of its numbers. Exact: computed from the model's parameters, "
        "for all inputs. Estimate: measured on the given windows, and different for other windows.",
    )
