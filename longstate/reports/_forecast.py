"""One self-contained HTML page about a trained forecaster: opens offline, without scripts.

Its first sentence says whether the model beats the best simple method. Every string of the data is
escaped when it is put into the page; see `_markup`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from longstate._numbers import score
from longstate.reports import _forecast_figures as figures
from longstate.reports import _forecast_sections as parts
from longstate.reports._forecast_advice import Setting, advice
from longstate.reports._forecast_ahead import future
from longstate.reports._forecast_memory import System, memory_section
from longstate.reports._forecast_panel import panel
from longstate.reports._markup import Markup, element, join
from longstate.reports._page import document, run_facts, write_page
from longstate.reports._units import short_time, steps
from longstate.train._ahead import Ahead
from longstate.train._chosen import Chosen
from longstate.train._evaluation import Example, ForecastEvaluation
from longstate.train._history import TrainingHistory


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
        ahead: the forecast of the rows after the data; None if it was not asked for.
        setting: what the run was given, for the advice.
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
    ahead: Ahead | None = None
    setting: Setting = field(default_factory=Setting)


def headline(evaluation: ForecastEvaluation, interval: float | None = None) -> str:
    """One sentence: the model against the best of the simple methods."""
    what = ", ".join(f"“{name}”" for name in evaluation.targets[:3])
    what += ", ..." if len(evaluation.targets) > 3 else ""
    what += f" of {len(evaluation.series):,} series" if evaluation.series else ""
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
    if not evaluation.score(best).differs(evaluation.score("model")) and abs(change) > 0.05:
        more = "smaller" if change < 0 else "larger"
        return (
            f"{task}, the model has a {abs(change):.1f} % {more} squared error than {best}, the "
            "best of the simple methods, which may be chance."
        )
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
    e, interval = report.evaluation, report.interval
    sections = [_header(report), _advice(report), future(report.ahead, e.bands, interval)]
    sections += [parts.scores(e), parts.choice(report.choice), parts.by_horizon(e, interval)]
    sections += [parts.bands(e), parts.columns(e), panel(e, report.ahead)]
    sections += [_examples(report), parts.residuals(e)]
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
    first, last = (short_time(time) for time in (e.first, e.last))
    of = ""
    if e.series:
        of = f" of {len(e.series):,} series"
        if report.setting.series > len(e.series):
            of = f" of {len(e.series):,} of {report.setting.series:,} series"
    return element(
        "header",
        element("p", report.name, class_="name"),
        element("h1", headline(e, report.interval), class_=_colour(e)),
        element(
            "p",
            f"Tested on {e.windows:,} windows{of} that were not used for training, from {first} to "
            f"{last}. Each forecast reads the last {rows}.",
            class_="lead",
        ),
    )


def _colour(e: ForecastEvaluation) -> str:
    """Of the headline: whether the model beats the best simple method by more than chance, or is
    beaten."""
    best, model = figures.best_baseline(e), e.score("model")
    if best is None or not e.score(best).differs(model) or e.score(best).mse == model.mse:
        return "even"
    return "good" if model.mse < e.score(best).mse else "bad"


def _advice(report: ForecastReport) -> Markup:
    found = advice(
        report.evaluation, report.setting, report.choice, report.history, report.ahead
    )  # fmt: skip
    lines = [
        element("li", one.text, *([" ", element("code", one.command)] if one.command else []))
        for one in found
    ]
    dots = any(" ..." in one.command for one in found)
    under = [element("p", "“...” stands for the options of this run.", class_="note")]
    return element(
        "section", element("h2", "Next"), element("ul", *lines), *under * dots, class_="advice"
    )


def _examples(report: ForecastReport) -> Markup | None:
    """Windows at equal distances, and the worst. The small drawings of a panel have the first."""
    e, against = report.evaluation, figures.best_baseline(report.evaluation)
    spread = () if e.series else e.examples
    if not spread and not e.worst:
        return None

    def drawn(windows: tuple[Example, ...]) -> Markup:
        pictures = (figures.example(one, against) for one in windows)
        return element("div", *pictures, class_="figures")

    parts = [element("h2", "Forecasts and true values")]
    if spread:
        said = "Windows at equal distances in the test part, not selected."
        parts += [element("p", said, class_="note"), drawn(spread)]
    if e.worst:
        parts += [
            element("h3", "The worst windows"),
            element(
                "p",
                "Those with the largest squared error in the test part, in other rows each, the "
                "worst first.",
                class_="note",
            ),
            drawn(e.worst),
        ]
    return element("section", *parts)


def _memory(report: ForecastReport) -> Markup | None:
    e = report.evaluation
    said = (
        "If the time constants are much shorter than the window, the layer does not use the older "
        "part of the window."
    )
    if report.choice is not None and not any(p.name == "network" for p in report.choice.used):
        said += " The network has no weight in this forecast, which does not depend on its layers."
    known = memory_section(report.systems, e.window, report.interval, said, horizon=e.horizon)
    names = report.setting.selective
    if not names:
        return known
    measure = element(
        "p",
        f"Depends on its input, so that only data tell what it remembers: {', '.join(names)}. ",
        element("code", report.setting.measure),
    )
    if known is not None:
        return join([known, measure])
    return element("section", element("h2", "What the layers remember"), measure)


def _footer() -> Markup:
    return element(
        "footer",
        "Each picture shows the kind of its numbers. Exact: computed from the model's parameters, "
        "for all inputs. Estimate: measured on the given windows, and different for other windows.",
    )
