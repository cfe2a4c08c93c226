"""One self-contained HTML page about a reduction: opens offline, without scripts."""

from pathlib import Path

from longstate._numbers import number
from longstate.reports import _reduction_figures as figures
from longstate.reports._markup import Markup, element, table
from longstate.reports._memory_advice import _size
from longstate.reports._page import document, facts, kinds, notes, write_page
from longstate.reports._reduction_advice import ALLOWED, advice
from longstate.reports._reduction_examine import ReductionReport as ReductionReport
from longstate.reports._reduction_examine import examine as examine


def headline(report: ReductionReport) -> str:
    """The result in one line: metric, bytes of the state, time. Every figure was measured here."""
    parts = []
    if report.before is not None and report.after is not None:
        parts.append(f"{report.metric} {number(report.before)} to {number(report.after)}")
    found = report.found
    parts.append(f"state {_size(found.bytes_before)} to {_size(found.bytes_after)}")
    if report.paces is not None:
        parts.append(report.paces.sentence(report.pace_of))
    return ", ".join(parts)


def render(report: ReductionReport) -> str:
    """The page as HTML."""
    sections = [
        _header(report),
        _advice(report),
        _layers(report),
        _task(report),
        _spectra(report),
        notes(report.notes),
        facts("Environment", report.environment),
        _footer(report),
    ]
    return document(f"{report.name}: reduction report", sections)


def write(report: ReductionReport, path: str | Path) -> Path:
    """Write the page, atomically; returns its absolute path.

    Raises:
        InputError: it cannot be written.
    """
    return write_page(render(report), path)


def _header(report: ReductionReport) -> Markup:
    known = report.before is not None and report.after is not None
    fine = known and report.after <= report.before * (1 + ALLOWED)  # type: ignore[operator]
    return element(
        "header",
        element("p", report.name, class_="name"),
        element(
            "h1", report.found.sentence, **({"class_": "good" if fine else "bad"} if known else {})
        ),
        element("p", f"Measured on {report.what}.", class_="lead"),
    )


def _advice(report: ReductionReport) -> Markup:
    lines = []
    for found in advice(report):
        command = [" ", element("code", found.command)] if found.command else []
        lines.append(element("li", found.text, *command))
    heading = element("h2", "What to do about it")
    return element("section", heading, element("ul", *lines), class_="advice")


def _layers(report: ReductionReport) -> Markup:
    head, body = report.found.rows()
    shown = [r for r in report.found.layers if r.predicted or r.measured]
    drawn = [element("div", figures.errors_figure(shown), class_="figures")] if shown else []
    healed = (
        [element("p", "The errors are those before the healing.", class_="note")]
        if report.found.healing is not None
        else []
    )
    return element(
        "section",
        element("h2", "The layers"),
        table((*head[:-1], "remark"), [tuple(row) for row in body]),
        element(
            "p",
            "Errors are shares of a layer's gain, or of its output on the data.",
            class_="note",
        ),
        *healed,
        *drawn,
    )


def _task(report: ReductionReport) -> Markup | None:
    drawn = []
    if report.sizes is not None and report.after is not None:
        size = report.found.bytes_after
        drawn.append(figures.sizes_figure(report.sizes, report.metric, size, report.after))
    if report.bits is not None:
        drawn.append(figures.bits_figure(report.bits, report.metric))
    if not drawn:
        return None
    heading = element("h2", "Memory against the task")
    return element("section", heading, element("div", *drawn, class_="figures"))


def _spectra(report: ReductionReport) -> Markup | None:
    rows = [r for r in report.found.layers if r.spectrum and max(r.spectrum) > 0]
    if not rows:
        return None
    drawn = [figures.spectrum_figure(row) for row in rows[: figures.MOST_LAYERS]]
    more = len(rows) - len(drawn)
    note = [element("p", f"{more} more layers are not drawn.", class_="note")] if more else []
    heading = element("h2", "What was cut")
    return element("section", heading, element("div", *drawn, class_="figures"), *note)


def _footer(report: ReductionReport) -> Markup:
    return element(
        "footer",
        element("p", kinds()),
        element("p", element("strong", headline(report))),
    )
