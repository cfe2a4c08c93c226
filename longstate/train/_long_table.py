"""The table of a file that is past memory, as memory-mapped columns.

A CSV, Parquet or Arrow file is read a few rows at a time. Its numbers are written once into files
beside the run, float64 as in memory, so that the results do not depend on how the file was read.
The first rows decide on roles and calendar. What they cannot decide for all rows is left to memory:
panels, columns of text, irregular times.
"""

import contextlib
import json
from collections.abc import Generator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd

from longstate._files import remove_parts, write_whole, writing
from longstate._formats import is_text, start_of, table_format
from longstate.errors import InputError
from longstate.models import Calendar, ForecastSpec
from longstate.train._arrow import arrow_parts
from longstate.train._columns import Columns
from longstate.train._corpus import digest_of
from longstate.train._csv import read_last, read_parts
from longstate.train._data_file import read_table
from longstate.train._filled import Filled
from longstate.train._frame import Data, as_frame
from longstate.train._long_grid import Grid
from longstate.train._long_series import PIECE, SOME, one_of_each
from longstate.train._ranks import first_rank_first
from longstate.train._read_table import Roles, training_table
from longstate.train._table import Table, gap_note
from longstate.train._time_step import Timing

LARGE = 1 << 26
"""Bytes of a file from which it is not read into memory."""
CELLS = 1 << 20
"""Numbers or texts of such a file that are in memory at once."""
TAIL = 1 << 16
"""Rows at the end of such a file that are kept as a frame."""


WHOLE = (
    "{} is in memory as a whole: only one series of numbers at even times is read in parts, and "
    "this is a panel, or has columns of text or other times."
)


class Found(NamedTuple):
    """A table, notes on its columns, its last rows as a frame, and the number of rows before."""

    table: Table
    notes: tuple[str, ...]
    tail: Data
    before: int


def is_long(path: Path) -> bool:
    """Whether a file is too large for memory, and of a kind that can be read in parts."""
    if not path.is_file() or path.stat().st_size < LARGE:
        return False
    return table_format(path) is not None or is_text(start_of(path))


def read_recent(path: str | Path, spec: ForecastSpec) -> pd.DataFrame:
    """The rows of a file from which to forecast: of a file past memory the last ones, otherwise
    all. A panel, and rows that are known by their numbers, are read as a whole.

    Args:
        path: as for `read_table`.
        spec: of the forecast.
    """
    path = Path(path)
    last = spec.id is None and spec.time is not None and spec.window < TAIL // 2
    return _last_rows(path) if last and is_long(path) else read_table(path)


def table_of_file(
    data: Data | str | Path, roles: Roles, timing: Timing, out: str | Path | None
) -> Found:
    """The table of a training, from a frame or a file.

    Args:
        data: a frame, or the path of a file.
        roles, timing: as for `training_table`.
        out: folder of the run, for the numbers of a file that is past memory.

    Raises:
        InputError: the data cannot be used, or is past memory and there is no folder.
    """
    if isinstance(data, str | Path):
        path = Path(data)
        long = is_long(path)
        if long:
            if out is None:
                raise InputError(f"{path} is past memory; out= gives a folder for its numbers")
            found = _long_table(path, roles, timing, Path(out) / "data")
            if found is not None:
                return found
        data = read_table(path)
        table, notes = training_table(data, roles, timing)
        return Found(table, (*notes, WHOLE.format(path)) if long else notes, data, 0)
    return Found(*training_table(data, roles, timing), data, 0)


def _long_table(path: Path, roles: Roles, timing: Timing, folder: Path) -> Found | None:
    with contextlib.closing(_frames(path)) as parts:
        head = next(parts, None)
    if head is None:
        raise InputError(f"{path} holds no rows of data")
    empty = {name: 0.0 for name in head.columns if head[name].isna().all()}  # there, so far
    try:
        first, notes = training_table(head.assign(**empty), roles, timing)
    except InputError:  # all rows may tell more
        return None
    columns, calendar = first.columns, first.calendar
    uneven = calendar is not None and (not calendar.even or calendar.inferred)
    if uneven or columns.id is not None or columns.categories:
        return None
    source = digest_of([path], [path.stat().st_size], f"{columns} {calendar}".encode())
    with first_rank_first():
        facts = _known(folder, source) or _written(path, columns, calendar, timing, folder, source)
    if facts is None:
        return None
    tail = _last_rows(path)
    return Found(_opened(folder, facts, columns, calendar), notes, tail, facts["lines"] - len(tail))


def _frames(path: Path, columns: Columns | None = None) -> Generator[pd.DataFrame, None, None]:
    """A few rows at a time; of a Parquet or Arrow file only what `columns` names, if given."""

    def chosen(schema: Any) -> list[str]:
        there = list(schema.names)
        wanted = there if columns is None else list(columns.names)
        return wanted if set(wanted) <= set(there) else there

    if table_format(path) is None:
        found = read_parts(path, _rows_at_once)
    else:
        found = arrow_parts(path, chosen, _rows_at_once, lambda batch: batch.to_pandas())
    with contextlib.closing(found) as parts:
        for part in parts:
            yield as_frame(part)


def _rows_at_once(columns: int) -> int:
    return min(PIECE, max(256, CELLS // max(1, columns)))


def _last_rows(path: Path) -> pd.DataFrame:
    if table_format(path) is None:
        return as_frame(read_last(path, TAIL))
    kept: list[pd.DataFrame] = []
    for part in _frames(path):
        kept.append(part)
        while sum(map(len, kept[1:])) >= TAIL:
            kept.pop(0)
    return pd.concat(kept).tail(TAIL)


def _known(folder: Path, source: str) -> dict[str, Any] | None:
    """What is known of the files in a folder, if they hold this source."""
    try:
        facts = json.loads((folder / "table.json").read_text(encoding="utf-8"))
        return dict(facts) if facts["source"] == source else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _written(
    path: Path,
    columns: Columns,
    calendar: Calendar | None,
    timing: Timing,
    folder: Path,
    source: str,
) -> dict[str, Any] | None:
    """Write the files; None if the times of later rows do not fit."""
    with contextlib.suppress(OSError):  # they hold other numbers
        (folder / "table.json").unlink()
    names = ("target", "observed", "covariates", "known", "times")
    for name in names:
        remove_parts(folder / name)
    grid = Grid(columns, calendar, timing)
    with contextlib.ExitStack() as stack:
        files = {name: stack.enter_context(writing(folder / name)) for name in names}
        frames = stack.enter_context(contextlib.closing(_frames(path, columns)))
        filled = Filled(columns, files)
        for frame in frames:
            values = grid.placed(frame)
            if values is None:
                return None
            filled.add(values)
        ended = filled.end()
        if not ended or grid.sparse:
            return None
        _write_times(files["times"], grid, filled.before, filled.rows + filled.later)
    filled.fill_beginnings(folder)
    notes = [*grid.notes, *([gap_note(filled.gaps)] if filled.gaps else [])]
    facts = {"source": source, "lines": grid.lines, "notes": notes, **filled.facts(), **grid.facts}
    write_whole(folder / "table.json", json.dumps(facts) + "\n")
    return facts


def _write_times(file: IO[bytes], grid: Grid, before: int, rows: int) -> None:
    """The stamps of all rows, as int64 or float64."""
    if grid.calendar is None or grid.first is None:
        return
    first = grid.first + before
    for at in range(first, first + rows, PIECE):
        stamps: Any = grid.calendar.at(np.arange(at, min(at + PIECE, first + rows)))
        file.write((stamps.asi8 if grid.calendar.dated else np.asarray(stamps)).tobytes())


def _opened(
    folder: Path, facts: dict[str, Any], columns: Columns, calendar: Calendar | None
) -> Table:
    rows, later, before = facts["rows"], facts["later"], facts["before"]

    def mapped(name: str, rows: int, channels: int, kind: Any = np.float64) -> np.ndarray:
        if not channels:
            return np.zeros((rows, 0))
        return np.memmap(folder / name, dtype=kind, mode="r", shape=(rows, channels))

    times = None
    if calendar is not None:
        like: Any = calendar.at(np.array([facts["first"]]))
        kind = np.int64 if calendar.dated else like.dtype
        stamps = mapped("times", rows + later, 1, kind)[:, 0]
        times = pd.Index(stamps, copy=False)
        if calendar.dated:
            clock = stamps.view(f"M8[{calendar.unit}]")
            dates = pd.DatetimeIndex(clock, copy=False)
            times = dates if like.tz is None else dates.tz_localize("UTC").tz_convert(like.tz)
    known = len(columns.known)
    some = one_of_each(0, rows, SOME, np.random.default_rng(0))
    return Table(
        columns=columns,
        target=mapped("target", rows, len(columns.targets)),
        observed=mapped("observed", rows, len(columns.targets), np.bool_),
        covariates=mapped("covariates", rows, len(columns.covariates)),
        known=mapped("known", rows + (facts["known_later"] if known else later), known),
        times=times,
        calendar=calendar,
        notes=tuple(facts["notes"]),
        before=before,
        since=facts["since"],
        codes=np.zeros((rows + later, 0), np.int64),
        some=np.unique(np.concatenate([some, np.array(facts["extremes"], np.int64)])),
    )
