"""Parquet and Arrow files: as a whole, and files of any size a few rows at a time."""

import contextlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from longstate._formats import ARROW, PARQUET, table_format
from longstate.errors import InputError, needs

if TYPE_CHECKING:
    import pandas as pd

_BUFFER = 1 << 20  # bytes of a Parquet file at one time
_T = TypeVar("_T")


def read_arrow(path: Path) -> "pd.DataFrame":
    """The table of a file, with its index.

    Args:
        path: as for `arrow_parts`.

    Raises:
        InputError: the file is damaged or has no rows, or pyarrow is not installed.
    """
    kind = str(table_format(path))
    with _reading(path, kind):
        from pyarrow import ipc, memory_map, parquet

        if kind == PARQUET:
            with parquet.ParquetFile(path) as file:
                _chosen(path, file.schema_arrow, list)
                table = file.read()
        else:
            with memory_map(str(path)) as file:
                opened = (ipc.open_file if kind == ARROW else ipc.open_stream)(file)
                _chosen(path, opened.schema, list)
                table = opened.read_all()
        frame: pd.DataFrame = table.to_pandas()
    if frame.empty:
        raise InputError(f"{path} holds no rows of data")
    return frame


def arrow_parts(
    path: Path,
    choose: Callable[[Any], list[str]],
    rows: Callable[[int], int],
    convert: Callable[[Any], _T],
) -> Generator[_T, None, None]:
    """The rows of a file, a part at a time.

    Args:
        path: a Parquet file, an Arrow file (also called Feather) or a stream of Arrow.
        choose: from the schema the names of the columns to read.
        rows: from the number of these columns that of the rows of a part, at most.
        convert: from a record batch what is yielded.

    Raises:
        InputError: the file is damaged, or pyarrow is not installed.
    """
    kind = str(table_format(path))
    with _reading(path, kind):
        found = _parquet if kind == PARQUET else _arrow
        for batch in found(path, choose, rows):
            yield convert(batch)


@contextlib.contextmanager
def _reading(path: Path, kind: str) -> Iterator[None]:
    try:
        from pyarrow import ArrowException
    except ImportError:
        raise needs(str(path), "pyarrow", "parquet") from None
    try:
        yield
    except (ArrowException, OSError, UnicodeDecodeError) as e:
        why = " ".join(str(e).split())[:200]
        raise InputError(f"{path} is not a readable {kind.split(' ', 1)[1]}: {why}") from None


def _chosen(path: Path, schema: Any, choose: Callable[[Any], list[str]]) -> list[str]:
    name, times = Counter(schema.names).most_common(1)[0] if schema.names else ("", 0)
    if times > 1:
        raise InputError(f"{path} has the column {name!r} twice; one name for each is needed")
    return choose(schema)


def _parquet(
    path: Path, choose: Callable[[Any], list[str]], rows: Callable[[int], int]
) -> Iterator[Any]:
    from pyarrow.parquet import ParquetFile

    with ParquetFile(path, buffer_size=_BUFFER, pre_buffer=False) as file:
        names = _chosen(path, file.schema_arrow, choose)
        for group in range(file.num_row_groups):
            yield from file.iter_batches(rows(len(names)), row_groups=[group], columns=names)


def _arrow(
    path: Path, choose: Callable[[Any], list[str]], rows: Callable[[int], int]
) -> Iterator[Any]:
    from pyarrow import OSFile, ipc

    is_file = table_format(path) == ARROW
    opened = ipc.open_file if is_file else ipc.open_stream
    with OSFile(str(path)) as file:
        schema = opened(file).schema
        names = _chosen(path, schema, choose)
        places = [schema.get_field_index(name) for name in names]
        file.seek(0)
        reader = opened(file, options=ipc.IpcReadOptions(included_fields=places))
        batches = map(reader.get_batch, range(reader.num_record_batches)) if is_file else reader
        for batch in batches:
            for first in range(0, batch.num_rows, rows(len(names))):
                yield batch.slice(first, rows(len(names)))
