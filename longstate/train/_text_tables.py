"""The text in a column of tables: Parquet, Arrow and CSV files of any size.

Windows of a training begin anywhere, and compressed columns can only be read from their beginning.
So the text is written once into a file beside the run, a few rows at a time, and is memory-mapped
like any other text. A row that does not end in a newline gets one; missing and empty rows are left
out.
"""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from longstate._files import missing, remove_parts, write_whole, writing
from longstate._formats import TABLE, table_format
from longstate.errors import InputError
from longstate.train._arrow import arrow_parts
from longstate.train._corpus import digest_of

_ROWS = 256  # at one time: a row may be a whole book
_LISTED = 8  # columns in a message


def are_tables(paths: Sequence[Path], column: str | None) -> bool:
    """Whether files are read as tables: if a column is given, or one is a folder, a Parquet or an
    Arrow file. A CSV file alone is a text like any other."""
    return column is not None or any(path.is_dir() or table_format(path) for path in paths)


def text_of_tables(
    paths: Sequence[Path],
    column: str | None,
    folder: Path,
    show: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the text of tables into one file, if it is not there yet.

    Args:
        paths: the tables, or folders of some: their files are taken in the order of their names.
        column: with the text; None is "text", or the only column of text.
        folder: for the file.
        show: called with the number of bytes of the tables that are done, and of all.

    Returns:
        The file with the text.

    Raises:
        InputError: a table is missing, damaged or of another format, or has no such column; or
            pyarrow is not installed.
    """
    paths = [file for path in paths for file in _files(path)]
    sizes = [path.stat().st_size for path in paths]
    text, facts = folder / "text.txt", folder / "text.json"
    known = {"tables": digest_of(paths, sizes, f"column {column}".encode())}
    if text.exists() and _read(facts) == known:
        return text
    with contextlib.suppress(OSError):  # the text of other tables
        facts.unlink()
    remove_parts(text)
    done, empty = 0, True
    with writing(text) as file:
        for path, size in zip(paths, sizes, strict=True):
            for rows in _rows(path, column):
                found = "".join(row if row.endswith("\n") else row + "\n" for row in rows if row)
                file.write(found.encode("utf-8", "surrogateescape"))
                empty = empty and not found
            done += size
            if show is not None:
                show(done, sum(sizes))
        if empty:
            raise InputError(f"{paths[0]} holds no text; its rows are empty")
    write_whole(facts, json.dumps(known) + "\n")
    return text


def _files(path: Path) -> list[Path]:
    """A file, or the tables in a folder."""
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise missing(path, "file")
    found = sorted(p for p in path.iterdir() if TABLE.search(p.name) and p.is_file())
    if not found:
        raise InputError(
            f"{path} is a folder without tables (CSV, Parquet or Arrow); give the text files in it"
        )
    return found


def _read(facts: Path) -> Any:
    try:
        return json.loads(facts.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _rows(path: Path, column: str | None) -> Iterator[list[str | None]]:
    """The text in the rows of a table, a few at a time."""
    if table_format(path) is None:
        from longstate.train._csv import read_column  # with pandas

        yield from read_column(path, lambda names: _chosen(path, column, names, names), _ROWS)
        return
    yield from arrow_parts(
        path,
        lambda schema: [_text_column(path, column, schema)],
        lambda columns: _ROWS,
        lambda batch: batch.column(0).to_pylist(),
    )


def _text_column(path: Path, column: str | None, schema: Any) -> str:
    from pyarrow import types

    def is_text(kind: Any) -> bool:
        if types.is_dictionary(kind):
            kind = kind.value_type
        return any(is_a(kind) for is_a in (types.is_string, types.is_large_string, is_view))

    is_view = getattr(types, "is_string_view", types.is_string)
    texts = [field.name for field in schema if is_text(field.type)]
    name = _chosen(path, column, schema.names, texts)
    if name not in texts:
        raise InputError(
            f"{path} holds {schema.field(name).type} in the column {name!r}; text was expected"
        )
    return name


def _chosen(path: Path, column: str | None, names: list[str], texts: list[str]) -> str:
    """The column with the text."""
    wanted = "text" if column is None else column
    if wanted in names:
        return wanted
    if column is None and len(texts) == 1:
        return texts[0]
    listed = ", ".join(map(repr, names[:_LISTED])) + (", ..." if len(names) > _LISTED else "")
    lacks = f"has no column {column!r}" if column is not None else "has no column 'text'"
    raise InputError(f"{path} {lacks}; its columns are {listed}: name one with column (--column)")
