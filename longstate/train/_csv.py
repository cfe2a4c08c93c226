"""Read a CSV file."""

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import IO, Any

import pandas as pd

from longstate._formats import is_text, refuse_format
from longstate.errors import InputError

SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}
# The first bytes of compressed files.
COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
LONGEST_LINE = 1 << 24  # characters in the first line
_LAST = 1 << 25  # bytes at the end of a file


def read_csv(path: str | Path) -> pd.DataFrame:
    """The table in a comma-separated, UTF-8 file whose first line names the columns.

    Args:
        path: a file, also one that gzip, bzip2 or xz has compressed; or a pipe, which is read once.

    Raises:
        InputError: the file is missing, empty, not text, not UTF-8, separated otherwise, ragged,
            or holds no rows.
    """
    path = Path(path)
    with _opened(path) as file:
        return _read(path, file)


def read_column(
    path: Path, choose: Callable[[list[str]], str], rows: int
) -> Iterator[list[str | None]]:
    """The texts in one column of a CSV file of any size, `rows` at a time.

    Args:
        path: as for `read_csv`.
        choose: from the names of the columns that of one of them.
        rows: held in memory.

    Raises:
        InputError: as `read_csv`.
    """
    with _opened(path) as file:
        names = _begun(path, file)
        place = names.index(choose(names))
        with _parsing(path):
            parts = pd.read_csv(  # all columns: else a comma too many would go unseen
                file, dtype=str, na_filter=False, encoding="utf-8-sig", index_col=False,
                chunksize=rows,
            )  # fmt: skip
            yield from (part.iloc[:, place].tolist() for part in parts)


def csv_lines(path: Path) -> Iterator[bytes]:
    """The lines of a CSV file, also a compressed one, as they are read.

    Raises:
        InputError: as `read_csv`, but for what is in the lines.
    """
    with _opened(path) as file:
        refuse_format(path, file.read(512), "a CSV file")
        file.seek(0)
        yield from file


def read_parts(path: Path, rows: Callable[[int], int]) -> Generator[pd.DataFrame, None, None]:
    """The rows of a CSV file of any size, a part at a time.

    Args:
        path: as for `read_csv`.
        rows: from the number of columns that of the rows of a part.

    Raises:
        InputError: as `read_csv`.
    """
    with _opened(path) as file:
        names = _begun(path, file)
        with (
            _parsing(path),
            pd.read_csv(
                file,
                low_memory=False,
                encoding="utf-8-sig",
                index_col=False,
                chunksize=rows(len(names)),
            ) as parts,
        ):
            for part in parts:
                if len(part.columns) == len(names):
                    part.columns = pd.Index(names)
                yield part


def read_last(path: Path, rows: int) -> pd.DataFrame:
    """The last rows of a CSV file that is not compressed, without reading those before."""
    with _opened(path) as file:
        names = _begun(path, file)
        size = path.stat().st_size
        file.seek(max(0, size - min(_LAST, size // 2)))
        file.readline()  # a part of a row
        with _parsing(path):
            found = pd.read_csv(
                file, low_memory=False, encoding="utf-8", index_col=False, names=names, header=None
            )
    return found.tail(rows).reset_index(drop=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Context manager: the bytes of a file, unpacked; says what is wrong with them."""
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_dir():
        raise InputError(f"{path} is a folder; a CSV file was expected")
    try:
        with path.open("rb") as raw, _unpacked(raw) as file:
            yield file
    except UnicodeDecodeError as e:
        raise _not_utf8(path, e) from None
    except (EOFError, gzip.BadGzipFile, lzma.LZMAError) as e:
        raise InputError(f"{path} cannot be unpacked: {e}") from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror or e}") from None


def _unpacked(raw: IO[bytes]) -> IO[bytes]:
    """What can be read twice: a pipe is held in memory."""
    file = raw if raw.seekable() else io.BytesIO(raw.read())
    start = file.read(512)
    file.seek(0)
    if is_text(start):
        return file
    for first, unpack in COMPRESSED.items():
        if start.startswith(first):
            unpacked: IO[bytes] = unpack(file, "rb")
            return unpacked
    return file


def _read(path: Path, file: IO[bytes]) -> pd.DataFrame:
    names = _begun(path, file)
    with _parsing(path):
        frame = pd.read_csv(file, low_memory=False, encoding="utf-8-sig", index_col=False)
    if frame.empty:
        raise InputError(f"{path} has a first line and no rows of data")
    if len(frame.columns) == len(names):
        frame.columns = pd.Index(names)  # pandas renames those that are empty
    return frame


def _begun(path: Path, file: IO[bytes]) -> list[str]:
    """The names of the columns; afterwards the file is at its start."""
    refuse_format(path, file.read(512), "a CSV file")
    file.seek(0)
    names = _names(path, file)
    file.seek(0)
    return names


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            yield
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as e:
        why = " ".join(str(e).split()).removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{path} is not a readable CSV file: {why}") from None


def _names(path: Path, file: IO[bytes]) -> list[str]:
    """The names in the first line; one that is empty is called "column 3"."""
    header = file.readline(LONGEST_LINE).decode("utf-8-sig").rstrip("\r\n")
    while not header.strip() and (more := file.readline(LONGEST_LINE)):
        header = more.decode("utf-8").rstrip("\r\n")
    if "\0" in header:
        raise InputError(f"{path} is not a text file; a CSV file was expected")
    if not header.strip():
        raise InputError(f"{path} is empty; a first line with column names was expected")
    _check_separator(path, header)
    try:
        names = next(csv.reader(io.StringIO(header)))
    except csv.Error as e:
        raise InputError(f"{path} has a first line that cannot be read: {e}") from None
    names = [name or f"column {i}" for i, name in enumerate(names, start=1)]
    name, count = Counter(names).most_common(1)[0]
    if count > 1:
        raise InputError(f"{path} names the column {name[:60]!r} twice in its first line")
    return names


def _check_separator(path: Path, header: str) -> None:
    best = max(SEPARATORS, key=header.count)
    if header.count(best) > header.count(","):
        raise InputError(
            f"{path} looks separated by {SEPARATORS[best]}; commas between columns (and points in "
            "numbers) were expected"
        )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    if b"\0" in error.object and not error.object.startswith((b"\xff\xfe", b"\xfe\xff")):
        return InputError(f"{path} is not a text file; a CSV file was expected")
    return InputError(
        f"{path} is not UTF-8 text (byte 0x{error.object[error.start]:02x} at position "
        f"{error.start}); save it as UTF-8"
    )
