"""One page about a screen: accuracy at and beyond the training length, and bits of memory."""

from pathlib import Path

from longstate._numbers import cell, number
from longstate.reports import _task_figures as figures
from longstate.reports._markup import Markup, element, table
from longstate.reports._page import document, facts, kinds, write_page
from longstate.tasks import Cell, Screen, task

HEAD = (
    "", "trained length", "seeds differ by", "whole rows", "longer", "chance", "bits needed",
    "bits held", "state", "time",
)  # fmt: skip
"""Columns of the table."""


def headline(found: Screen) -> str:
    """Which layers come first, in one sentence."""
    ranked = found.ranking()
    if not ranked:
        return "No run has ended yet."
    said = ", ".join(f"{layer} {score:.2f}" for layer, score, _ in ranked[:6])
    count = len({c.task for c in found.cells})
    what = "one task" if count == 1 else f"{count} tasks"
    end = "" if found.complete else " Not all runs have ended."
    return f"Mean score over {what}, from 0 at chance to 1: {said}.{end}"


def rows(found: Screen) -> list[list[str]]:
    """The table: a section for each task, a row for each layer, the best first."""
    out: list[list[str]] = []
    for name in dict.fromkeys(c.task for c in found.cells):
        out.append([name])
        cells = sorted((c for c in found.cells if c.task == name), key=lambda c: -c.accuracy)
        out += [_row(c) for c in cells]
    return out


def _row(c: Cell) -> list[str]:
    longer = ", ".join(f"{value:.3f} at {n}" for n, value in c.longer.items())
    held = "-" if c.held is None else cell(round(c.held.bits, 2), c.held.kind)
    needed = cell(round(c.demand.bits, 2), c.demand.kind)
    whole = "-" if c.rows is None else f"{c.rows:.3f}"
    return [
        f"  {c.layer}", f"{c.accuracy:.3f}", f"{c.spread:.3f}", whole, longer or "-",
        f"{c.chance:.2f}", needed, held, f"{number(c.state_bytes)} B", f"{c.seconds:.0f} s",
    ]  # fmt: skip


def render(found: Screen) -> str:
    """The page as HTML."""
    sections = [_header(found), _ranking(found), _pictures(found)]
    sections += [_task(found, name) for name in dict.fromkeys(c.task for c in found.cells)]
    sections += [_limits(found), _facts(found), element("footer", kinds())]
    return document("Tasks: a screen of layers", sections)


def write(found: Screen, path: str | Path) -> Path:
    """Write the page, atomically; returns its absolute path.

    Raises:
        InputError: it cannot be written.
    """
    return write_page(render(found), path)


def _header(found: Screen) -> Markup:
    s = found.plan.settings
    return element(
        "header",
        element("p", "longstate tasks run", class_="name"),
        element("h1", headline(found)),
        element(
            "p",
            f"Models of {s.blocks} blocks with {s.width} channels, trained from nothing on each "
            f"task for at most {s.seconds:g} s of processor time; the best of "
            f"{len(found.plan.rates)} learning rates on rows for validation.",
            class_="lead",
        ),
    )


def _ranking(found: Screen) -> Markup:
    names = list(dict.fromkeys(c.task for c in found.cells))
    by = {(c.layer, c.task): c.score for c in found.cells}
    body = [
        (layer, f"{mean:.2f}", *("-" if (layer, n) not in by else f"{by[layer, n]:.2f}"
                                 for n in names))
        for layer, mean, _ in found.ranking()
    ]  # fmt: skip
    return element(
        "section",
        element("h2", "Scores"),
        table(("", "mean", *names), body, best=0 if len(body) > 1 else None),
        element(
            "p",
            "0 is chance, the best guess without memory; 1 is perfect. At the training length, the "
            "mean over the seeds.",
            class_="note",
        ),
    )


def _pictures(found: Screen) -> Markup | None:
    drawn = [figures.score_map(found)] if found.cells else []
    if any(c.held is not None for c in found.cells):
        drawn.append(figures.bits_figure(found))
    if not drawn:
        return None
    return element("section", element("div", *drawn, class_="figures"))


def _task(found: Screen, name: str) -> Markup:
    cells = sorted((c for c in found.cells if c.task == name), key=lambda c: -c.accuracy)
    body = [tuple(x.strip() for x in _row(c)) for c in cells]
    parts = [element("h2", name), element("p", task(name).why), table(HEAD, body)]
    if any(c.longer for c in cells):
        parts.append(element("div", figures.length_figure(cells), class_="figures"))
    return element("section", *parts)


def _limits(found: Screen) -> Markup:
    lines = []
    cut = [c for c in found.cells if c.cut]
    if cut:
        some = ", ".join(f"{c.layer} on {c.task}" for c in cut[:8]) + (" ..." if cut[8:] else "")
        lines.append(f"The time limit ended these before their last step: {some}.")
    lines.append(
        "Small models and short training: a low score says that the layer did not learn the task "
        "on this budget, not that it cannot."
    )
    lines.append(
        "Bits held: what the state held at least, by Fano's inequality from the best seed's "
        "accuracy on some rows, so an estimate; '-' where the answers have no such bound."
    )
    if not found.complete:
        lines.append("Not all runs have ended; the same command goes on.")
    lines += [f"Failed: {error}" for error in found.errors]
    items = [element("li", line) for line in lines]
    return element("section", element("h2", "How to read this"), element("ul", *items))


def _facts(found: Screen) -> Markup | None:
    plan = found.plan
    values = {
        "layers": list(plan.layers), "learning rates": [f"{r:g}" for r in plan.rates],
        "seeds": plan.seeds, **found.facts,
    }  # fmt: skip
    return facts("Settings and environment", values)
