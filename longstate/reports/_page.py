"""The parts that every page shares: its frame and its file, notes, facts and kinds of numbers."""

from collections.abc import Iterable, Mapping
from importlib.resources import files
from pathlib import Path

from longstate._files import write_whole
from longstate.memory import KINDS
from longstate.reports._markup import Markup, element, page


def document(title: str, sections: Iterable[str | None]) -> str:
    """A whole page in the style of all; sections that are None or empty are left out."""
    css = files(__package__ or "longstate.reports").joinpath("page.css").read_text("utf-8")
    return page(title, css, *filter(None, sections))


def write_page(html: str, path: str | Path) -> Path:
    """Write a page, atomically.

    Returns:
        The absolute path of the page.

    Raises:
        InputError: it cannot be written.
    """
    path = Path(path).absolute()
    write_whole(path, html)
    return path


def notes(lines: Iterable[str]) -> Markup | None:
    """What was not measured, each reason once; None if there is nothing to say."""
    items = [element("li", line) for line in dict.fromkeys(lines)]
    if not items:
        return None
    return element("section", element("h2", "What was not measured"), element("ul", *items))


def facts(title: str, values: Mapping[str, object], tag: str = "section") -> Markup | None:
    """Names and values under a heading; None if there are none."""
    if not values:
        return None
    rows = [
        element("tr", element("th", name, scope="row"), element("td", _show(value)))
        for name, value in values.items()
    ]
    listing = element("table", element("tbody", *rows), class_="facts")
    return element(
        tag, element("h2", title), element("div", listing, class_="scroll", tabindex="0")
    )


def run_facts(
    title: str,
    lines: Iterable[str],
    configuration: Mapping[str, object],
    environment: Mapping[str, object],
) -> Markup:
    """Sentences under a heading, if there are any, and the facts of a run side by side."""
    items = [element("li", line) for line in lines]
    said = [element("h2", title), element("ul", *items)] if items else []
    parts = facts("Configuration", configuration, "div"), facts("Environment", environment, "div")
    return element("section", *said, element("div", *filter(None, parts), class_="facts-grid"))


def kinds() -> str:
    """What the kinds of numbers mean, in one line."""
    said = "; ".join(f"{kind.replace('_', ' ')}: {text}" for kind, text in KINDS.items())
    return f"Each picture shows the kind of its numbers. {said}."


def _show(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(str(v) for v in value) or "none"
    return "none" if value is None else str(value)
