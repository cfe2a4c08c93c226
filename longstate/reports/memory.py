"""One self-contained HTML page about a model's memory: opens offline, without scripts."""

from pathlib import Path

from longstate.reports import _memory_figures as figures
from longstate.reports._forecast_memory import chosen
from longstate.reports._markup import Markup, element, table
from longstate.reports._memory_advice import advice
from longstate.reports._memory_examine import MemoryReport as MemoryReport
from longstate.reports._memory_examine import examine as examine
from longstate.reports._page import document, facts, kinds, notes, write_page


def headline(report: MemoryReport) -> str:
    """The result of the certificate, and how far back the states reach."""
    parts = []
    if report.certificate is not None:
        count = len({c.layer for c in report.certificate.claims})
        layers = "layer" if count == 1 else f"{count} layers"
        parts.append(
            f"No input can make a state of this model's {layers} expand."
            if report.certificate.sentence.startswith("No layer")
            else report.certificate.sentence
        )
    found = [m.scales for m in report.layers if m.scales is not None]
    if found:
        farthest = max(float(s.steps.max()) for s in found)
        back = f"reaches {farthest:,.0f} {report.unit} back"
        text = f"The slowest state {back if farthest < float('inf') else 'does not fade'}"
        if report.length is not None:
            text += f"; training saw {report.length:,} at a time"
        parts.append(text + ".")
    return " ".join(parts)


def render(report: MemoryReport) -> str:
    """The page as HTML."""
    sections = [
        _header(report),
        _advice(report),
        _layers(report),
        _pictures(report),
        _attention(report),
    ]
    sections += [_certificate(report), notes(report.notes)]
    sections += [facts("Environment", report.environment), element("footer", kinds())]
    return document(f"{report.name}: memory report", sections)


def write(report: MemoryReport, path: str | Path) -> Path:
    """Write the page, atomically; returns its absolute path.

    Raises:
        InputError: it cannot be written.
    """
    return write_page(render(report), path)


def _header(report: MemoryReport) -> Markup:
    passed = report.certificate is not None and report.certificate.passed
    return element(
        "header",
        element("p", report.name, class_="name"),
        element("h1", headline(report), class_="good" if passed else "bad"),
        element(
            "p",
            f"Selective layers were measured while the model read {report.what}.",
            class_="lead",
        )
        if report.what != "no data"
        else element("p", "No data was needed or given.", class_="lead"),
    )


def _advice(report: MemoryReport) -> Markup:
    lines = []
    for found in advice(report):
        command = [" ", element("code", found.command)] if found.command else []
        lines.append(element("li", found.text, *command))
    return element("section", element("h2", "Advice"), element("ul", *lines), class_="advice")


def _layers(report: MemoryReport) -> Markup:
    head, body = report.rows()
    return element(
        "section",
        element("h2", "The layers"),
        table(tuple(head), [tuple(row) for row in body]),
        element(
            "p",
            "In use: the effective share of the state's directions, by the entropy of their "
            "(Hankel) singular values.",
            class_="note",
        ),
    )


def _pictures(report: MemoryReport) -> Markup | None:
    unit, length, layers = report.unit, report.length, report.layers
    drawn = []
    if some := figures.has(layers, "scales"):
        drawn.append(figures.strips_figure(some, unit, length))
    if some := figures.has(layers, "known"):
        drawn.append(figures.probe_figure(some, unit))
    if some := figures.has(layers, "curve"):
        drawn.append(figures.curve_figure(some, unit, length))
    if some := figures.has(layers, "spectrum"):
        drawn.append(figures.hankel_figure(some))
    if some := figures.has(layers, "effective"):
        drawn.append(figures.effective_figure(some, unit))
    if not drawn:
        return None
    return element(
        "section",
        element("h2", "What they remember"),
        element("div", *drawn, class_="figures"),
    )


def _attention(report: MemoryReport) -> Markup | None:
    some = figures.has(report.layers, "attention")
    if not some:
        return None
    drawn = [figures.attention_figure(m, report.unit, report.words) for _, m in chosen(some)]
    return element(
        "section",
        element("h2", "Hidden attention"),
        element("div", *drawn, class_="figures"),
    )


def _certificate(report: MemoryReport) -> Markup | None:
    if report.certificate is None:
        return None
    head, body = report.certificate.rows()
    return element(
        "section",
        element("h2", "Bounds for all inputs"),
        element("p", report.certificate.sentence),
        element(
            "p",
            "All inputs: proved for all possible outputs of the layer's norm. Attack: the worst "
            "value of a search. Data: the worst value on the data. They must be in this order. A "
            "model that has learned to hold a value has inputs that freeze its state, so a "
            "certified retention without a practical limit is not an error.",
            class_="note",
        ),
        table(tuple(head), [tuple(row) for row in body]),
    )
