"""Input and output of commands, for terminals of any width and encoding, and for outputs that are
full or closed.

Names may come from untrusted files, so characters that control a terminal are printed as escapes.
Characters that the output cannot encode are escaped too. Output into a pipe or a file is UTF-8,
unless PYTHONIOENCODING names another encoding.
"""

import contextlib
import os
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from longstate.errors import InputError

if TYPE_CHECKING:
    from rich.box import Box
    from rich.console import Console


def prepare() -> None:
    """Set up the standard streams. A closed one is replaced by the null device, so that a file that
    is opened later does not get its number."""
    with contextlib.suppress(OSError):
        for number in (0, 1, 2):
            try:
                os.fstat(number)
            except OSError:
                os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        set_up = getattr(stream, "reconfigure", None)
        if set_up is not None:
            set_up(errors="backslashreplace")
            if not stream.isatty() and "PYTHONIOENCODING" not in os.environ:
                set_up(encoding="utf-8")


def visible(text: str, keep: str = "") -> str:
    """The text with escapes for control characters and invisible characters.

    Args:
        text: any text.
        keep: characters that are not escaped, such as a line break.
    """
    return "".join(
        c
        if c.isprintable() or c in keep or unicodedata.category(c) == "Zs"
        else c.encode("unicode_escape").decode()
        for c in text
    )


def say(sentence: str) -> None:
    """Print a line on standard output."""
    from rich.console import Console
    from rich.markup import escape

    Console(soft_wrap=True).print(escape(visible(sentence)), highlight=False)


def note(sentence: str) -> None:
    """Print a line on standard error, unbuffered."""
    print(visible(sentence), file=sys.stderr, flush=True)


def write(text: str) -> None:
    """Write data to standard output, unbuffered; on a terminal control characters are escaped."""
    sys.stdout.write(visible(text, "\n\t") if sys.stdout.isatty() else text)
    sys.stdout.flush()


def write_rows(text: str, count: int, out: Path | None) -> None:
    """Write a table of `count` rows to a file, and say so; to standard output if there is none."""
    from longstate._files import is_stream, write_whole

    if out is None:
        write(text)
        return
    write_whole(out, text)
    if not is_stream(out):
        say(f"{count} rows are in {out}")


def input_lines() -> Iterator[bytes]:
    """The lines of standard input.

    Raises:
        InputError: it is closed or cannot be read.
    """
    if sys.stdin is None:
        raise InputError("standard input is closed; connect a file or a pipe to it")
    try:
        yield from sys.stdin.buffer
    except OSError as e:
        raise InputError(f"standard input cannot be read: {e.strerror or e}") from None


def show_table(
    title: str,
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    caption: str = "",
    right: int = 1,
    console: "Console | None" = None,
    box: "Box | None" = None,
) -> None:
    """Print a table; if it is too wide for the console, a list. No number is cut off.

    Args:
        title: printed above; none if empty.
        head: names of the columns; the first column names the rows.
        rows: cells. A row of one cell begins a section.
        caption: printed below.
        right: columns from this one on hold numbers and are aligned to the right.
        console: to print on; standard output if None.
        box: lines of the table.
    """
    from rich import box as boxes
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console() if console is None else console
    cells = [[visible(cell) for cell in row] for row in rows]
    widths = _widths(head, cells, console.width - 3 * len(head) - 1)
    if widths is None:
        _show_list(console, visible(title), head, cells, caption)
        return
    table = Table(
        title=escape(visible(title)) or None,
        caption=escape(caption) or None,
        box=boxes.HEAVY_HEAD if box is None else box,
    )
    for i, (name, width) in enumerate(zip(head, widths, strict=True)):
        table.add_column(name, justify="right" if i >= right else "left", width=width)
    for row in cells:
        if len(row) == 1:
            table.add_section()
            table.add_row(f"[bold]{escape(row[0])}[/bold]")
        else:
            table.add_row(*map(escape, row))
    console.print(table)


def _widths(head: Sequence[str], rows: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Width of each column; names are broken into lines as far as `room` asks for. None if cells
    and single words of names do not fit."""
    cells = [[_width(row[i]) for row in rows if i < len(row)] for i in range(len(head))]
    words = [[_width(word) for word in name.split()] for name in head]
    least = [max([1, *one, *other]) for one, other in zip(cells, words, strict=True)]
    widths = [max(n, _width(name)) for n, name in zip(least, head, strict=True)]
    while sum(widths) > room:
        spare = [n - low for n, low in zip(widths, least, strict=True)]
        if not any(spare):
            return None
        widths[spare.index(max(spare))] -= 1
    return widths


def _show_list(
    console: "Console", title: str, head: Sequence[str], rows: list[list[str]], caption: str
) -> None:
    lines = [title] if title else []
    for row in rows:
        lines.append(row[0])
        named = zip(head[1:], row[1:], strict=False)
        lines += [f"  {name}: {cell}" if name else f"  {cell}" for name, cell in named if cell]
    for line in [*lines, *([caption] if caption else [])]:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def show_facts(title: str, rows: dict[str, str]) -> None:
    """Print names and values: a table, or a list on a narrow console."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    shown = {visible(name): visible(value) for name, value in rows.items()}
    names = max(map(_width, shown), default=0)
    if console.width < 2 * names or console.width < 60:
        _show_list(console, visible(title), ["", ""], [[f"{n}: {v}"] for n, v in shown.items()], "")
        return
    table = Table(title=escape(visible(title)), show_header=False)
    table.add_column(min_width=names)
    table.add_column(overflow="fold")
    for name, value in shown.items():
        table.add_row(escape(name), escape(value))
    console.print(table)


def _width(text: str) -> int:
    from rich.cells import cell_len

    return cell_len(text)
