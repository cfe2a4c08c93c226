"""`longstate stream`: read rows one by one, and write a forecast after each."""

import csv
import io
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from longstate._formats import refuse_format, table_format
from longstate.cli._runs import Run
from longstate.cli._terminal import input_lines, note, write
from longstate.errors import InputError, near

if TYPE_CHECKING:
    from longstate.models import ForecastSpec
    from longstate.stream import ForecastStream, PanelStream, Streamed

SAVE_EVERY = 1.0  # seconds, for the state of a panel
SHOWN = 10  # skipped lines that get a message of their own


def stream(
    run: Run,
    data: Annotated[
        Path,
        typer.Argument(
            metavar="[DATA]",
            help="CSV, Parquet or Arrow file with the rows; - or nothing for CSV rows from "
            "standard input.",
            show_default=False,
        ),
    ] = Path("-"),
    state: Annotated[
        Path | None,
        typer.Option(
            help="File with the current rows, to continue after a restart: read if it exists, and "
            "written after each row."
        ),
    ] = None,
    adapt: Annotated[
        float,
        typer.Option(
            help="Rate at which the quantiles follow the truth as it arrives (adaptive conformal "
            "prediction), such as 0.01; 0 gives the quantiles of `predict`."
        ),
    ] = 0.0,
) -> None:
    """Read rows, from standard input or a file, and write one forecast per row. Needs a forecaster.

    Forecasts begin when a window is full. The first line may name the columns; otherwise they are
    those of the training, in this order: time, targets, covariates, columns known in advance. A
    line that cannot be read is skipped, with a message on standard error; after ten of them only
    their number is given, at 100, 1,000 and so on, and at the end.

    A forecaster of a panel reads the rows of all series, whose names are in its id column, and
    keeps a window for each; --state is written once a second then, and at the end.
    """
    from longstate.cli._runs import open_forecast_model
    from longstate.stream import ForecastStream, PanelStream

    model = open_forecast_model(run, "stream")
    lines = input_lines() if str(data) == "-" else _lines(data, model.spec)
    kind = ForecastStream if model.spec.id is None else PanelStream
    forecasts = kind(model, adapt=adapt)
    if state is not None and state.exists():
        forecasts.load(state)
    write(_csv(_header(model.spec)) + "\n")
    try:
        for line in forecast_lines(forecasts, lines, state):
            write(line + "\n")
    finally:
        if state is not None and model.spec.id is not None:
            forecasts.save(state)


def _lines(path: Path, spec: "ForecastSpec") -> Iterator[bytes]:
    """The lines of a CSV file; the rows of another table, or of a folder of files, as such lines.

    Raises:
        InputError: they cannot be read.
    """
    from longstate.models._time_text import read, texts
    from longstate.train._csv import csv_lines
    from longstate.train._data_file import read_table
    from longstate.train._read_table import named

    if not path.is_dir() and table_format(path) is None:
        return csv_lines(path)
    frame = named(read_table(path), spec)
    frame = frame[[name for name in spec.columns if name in frame]].reset_index(drop=True)
    if spec.calendar is not None and spec.time in frame:
        stamps = read(spec.calendar, frame[spec.time])
        written = frame[spec.time].astype("object")
        written[stamps.notna()] = texts(spec.calendar, stamps[stamps.notna()])
        frame[spec.time] = written
    rows = frame.astype("object").where(frame.notna(), "").itertuples(index=False)
    return (_csv([str(cell) for cell in row]).encode() for row in (frame.columns, *rows))


def forecast_lines(
    stream: "ForecastStream | PanelStream", lines: Iterable[bytes], state: Path | None = None
) -> Iterator[str]:
    """Lines of output for lines of input, one at a time.

    Args:
        stream: processes the rows.
        lines: of a CSV file.
        state: file that is written after each row; of a panel once a second, and at the end.

    Raises:
        InputError: the first line names columns, but not all that are needed.
    """
    spec = stream.spec
    names, first = list(spec.columns), True
    pause, saved = 0.0 if spec.id is None else SAVE_EVERY, time.monotonic()
    skipped = 0
    for number, raw in enumerate(lines, start=1):
        if number == 1:
            refuse_format(Path("the input"), raw[:512], "CSV text")
        try:
            cells = _cells(raw)
            if not cells:
                continue
            header, first = _names_columns(cells, spec, first), False
            if header is not None:
                names = header
                continue
            if len(cells) != len(names):
                raise InputError(f"{len(cells)} values; {len(names)} were expected")
            streamed = stream.push(dict(zip(names, cells, strict=True)))
        except _Header:
            raise
        except InputError as error:
            skipped += 1
            _note_skipped(number, error, skipped)
            continue
        finally:
            if state is not None and time.monotonic() - saved >= pause:
                stream.save(state)
                saved = time.monotonic()
        if streamed is not None:
            if streamed.note is not None:
                of = "" if streamed.series is None else f"{streamed.series}: "
                note(f"line {number}: {of}{streamed.note}")
            yield _csv(_values(streamed))
    if skipped > SHOWN:
        note(f"{skipped:,} lines were skipped")


def _note_skipped(number: int, error: InputError, count: int) -> None:
    """Some messages are read, and thousands are not."""
    if count <= SHOWN:
        note(f"line {number}: {error}; skipped")
        if count == SHOWN:
            note("further lines that cannot be read are only counted")
    elif f"{count}".strip("0") == "1":
        note(f"line {number}: {count:,} lines skipped by now; this one: {error}")


class _Header(InputError):
    """A column is missing in the first line, so no line can be read."""


def _names_columns(cells: list[str], spec: "ForecastSpec", first: bool) -> list[str] | None:
    """The names of the columns if the line is a header; a header may be repeated."""
    wanted = set(spec.columns)
    found = wanted & set(cells)
    if found == wanted:
        return cells
    if not first or not found:
        return None
    missing = [name for name in spec.columns if name not in found]
    if missing == [spec.time]:
        from longstate.train._frame import is_time_name

        others = [i for i, cell in enumerate(cells) if is_time_name(cell)]
        if len(others) == 1:
            return [str(spec.time) if i == others[0] else c for i, c in enumerate(cells)]
    raise _Header(f"the first line has no column {missing[0]!r}; {near(missing[0], cells)}")


def _cells(raw: bytes) -> list[str]:
    try:
        rows = list(csv.reader([raw.decode("utf-8-sig").strip("\r\n")]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a line of UTF-8 text with commas ({error})") from None
    return [cell.strip() for cell in rows[0]] if rows else []


def _header(spec: "ForecastSpec") -> list[str]:
    names = [*(() if spec.id is None else (spec.id,)), spec.time or "row"]
    for target in spec.targets:
        for suffix in ("", *(f"_q{level:g}" for level in spec.quantiles)):
            names += [f"{target}{suffix}_{step}" for step in range(1, spec.horizon + 1)]
    return names


def _values(streamed: "Streamed") -> list[str]:
    point, quantiles = streamed.forecast
    values = [*(() if streamed.series is None else (streamed.series,)), streamed.origin]
    for j in range(point.shape[2]):
        values += [f"{x:.9g}" for x in point[0, :, j].tolist()]
        for k in range(quantiles.shape[3]):
            values += [f"{x:.9g}" for x in quantiles[0, :, j, k].tolist()]
    return values


def _csv(values: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
