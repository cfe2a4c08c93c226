"""HTML elements as values. Text is always escaped when it is put into an element."""

from collections.abc import Sequence
from html import escape


class Markup(str):
    """Text that is HTML already, and is not escaped."""

    __slots__ = ()


def join(parts: Sequence[str]) -> Markup:
    return Markup("".join(part if isinstance(part, Markup) else escape(part) for part in parts))


def element(tag: str, *children: str, **attributes: str) -> Markup:
    """`<tag attributes>children</tag>`.

    Args:
        tag: name of the element; a constant in the code, never data.
        *children: text, which is escaped, or `Markup`, which is not.
        **attributes: names with a `_` at the end lose it (`class_`), others turn it into `-`.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
    )
    return Markup(f"<{tag}{written}>{join(children)}</{tag}>")


def table(
    head: tuple[str, ...], rows: Sequence[tuple[str, ...]], best: int | None = None
) -> Markup:
    """A table that scrolls horizontally on a narrow screen.

    Args:
        head: names of the columns. The first column names the row, the others are numbers.
        rows: cells.
        best: index of the row to mark.
    """
    top = element("tr", *(element("th", name, scope="col") for name in head))
    body = [
        element(
            "tr",
            element("th", first, scope="row"),
            *(element("td", cell) for cell in cells),
            **({"class_": "best"} if i == best else {}),
        )
        for i, (first, *cells) in enumerate(rows)
    ]
    whole = element("table", element("thead", top), element("tbody", *body))
    return element("div", whole, class_="scroll", tabindex="0")


def page(title: str, css: str, *body: str) -> str:
    """A whole document. Its security policy forbids scripts and all requests."""
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="color-scheme" content="light dark">\n'
        # An empty icon, so that browsers do not request one.
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{css}</style>\n</head>\n"
        f"<body>\n{join(list(body))}\n</body>\n</html>\n"
    )
