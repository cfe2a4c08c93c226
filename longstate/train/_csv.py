"""Read a CSV file, or say in one sentence why not."""

import csv
import io
from pathlib import Path

import pandas as pd

from longstate.errors import InputError

SEPARATORS = {";": "';'", "\t": "tabs", "|": "'|'"}


def read_csv(path: str | Path) -> pd.DataFrame:
    """The table in a comma-separated, UTF-8 file whose first line names the columns.

    Raises:
        InputError: the file is missing, empty, not text, not UTF-8, separated otherwise, ragged,
            or holds no rows.
    """
    path = Path(path)
    header = _first_line(path)
    _check_separator(path, header)
    names = next(csv.reader(io.StringIO(header)))
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{path} names the column {name!r} twice in its first line")
    try:
        frame = pd.read_csv(path, low_memory=False, encoding="utf-8-sig", index_col=False)
    except UnicodeDecodeError as e:
        raise _not_utf8(path, e) from None
    except (pd.errors.ParserError, pd.errors.EmptyDataError, pd.errors.ParserWarning) as e:
        why = " ".join(str(e).split()).removeprefix("Error tokenizing data. C error: ")
        raise InputError(f"{path} is not a readable CSV file: {why}") from None
    if frame.empty:
        raise InputError(f"{path} has a first line and no rows of data")
    return frame


def _first_line(path: Path) -> str:
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if path.is_dir():
        raise InputError(f"{path} is a folder; a CSV file was expected")
    try:
        with path.open(encoding="utf-8-sig", newline=None) as file:
            header = file.readline()
    except UnicodeDecodeError as e:
        raise _not_utf8(path, e) from None
    except OSError as e:
        raise InputError(f"{path} cannot be read: {e.strerror}") from None
    if "\0" in header:
        raise InputError(f"{path} is not a text file; a CSV file was expected")
    if not header.strip():
        raise InputError(f"{path} is empty; a first line with column names was expected")
    return header


def _check_separator(path: Path, header: str) -> None:
    best = max(SEPARATORS, key=header.count)
    if header.count(best) > header.count(","):
        raise InputError(
            f"{path} looks separated by {SEPARATORS[best]}; commas between columns (and points in "
            "numbers) were expected"
        )


def _not_utf8(path: Path, error: UnicodeDecodeError) -> InputError:
    return InputError(
        f"{path} is not UTF-8 text (byte 0x{error.object[error.start]:02x} at position "
        f"{error.start}); save it as UTF-8"
    )
