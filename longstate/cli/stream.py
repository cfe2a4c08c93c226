"""`longstate stream`: rows in on standard input, forecasts out, until the input ends."""

import csv
import io
import sys
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from longstate.cli._runs import Run
from longstate.errors import InputError

if TYPE_CHECKING:
    from longstate.models import ForecastSpec
    from longstate.stream import ForecastStream, Streamed


def stream(run: Run) -> None:
    """Read one CSV row per line, write one forecast per line once a window is full. Needs a
    forecaster.

    The first line may name the columns; without it they are the run's, in its order: the time,
    targets, covariates, columns known in advance. A line that cannot be read is skipped with one
    sentence on standard error.
    """
    from longstate.cli._runs import open_forecast_model
    from longstate.stream import ForecastStream

    model = open_forecast_model(run, "stream")
    print(_csv(_header(model.spec)), flush=True)
    for line in forecast_lines(ForecastStream(model), sys.stdin.buffer):
        print(line, flush=True)


def forecast_lines(stream: "ForecastStream", lines: Iterable[bytes]) -> Iterator[str]:
    """The lines of output for the lines of input, one at a time."""
    spec = stream.spec
    names = list(spec.columns)
    for number, raw in enumerate(lines, start=1):
        try:
            cells = _cells(raw)
            if not cells:
                continue
            if number == 1 and set(spec.columns) <= set(cells):
                names = cells
                continue
            if len(cells) != len(names):
                raise InputError(f"{len(cells)} values; {len(names)} were expected")
            streamed = stream.push(dict(zip(names, cells, strict=True)))
        except InputError as error:
            print(f"line {number}: {error}; skipped", file=sys.stderr, flush=True)
            continue
        if streamed is not None:
            yield _csv(_values(streamed))


def _cells(raw: bytes) -> list[str]:
    try:
        rows = list(csv.reader([raw.decode("utf-8-sig").strip("\r\n")]))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"not a line of UTF-8 text with commas ({error})") from None
    return [cell.strip() for cell in rows[0]] if rows else []


def _header(spec: "ForecastSpec") -> list[str]:
    names = [spec.time or "row"]
    for target in spec.targets:
        for suffix in ("", *(f"_q{level:g}" for level in spec.quantiles)):
            names += [f"{target}{suffix}_{step}" for step in range(1, spec.horizon + 1)]
    return names


def _values(streamed: "Streamed") -> list[str]:
    point, quantiles = streamed.forecast
    values = [streamed.origin]
    for j in range(point.shape[2]):
        values += [f"{x:.9g}" for x in point[0, :, j].tolist()]
        for k in range(quantiles.shape[3]):
            values += [f"{x:.9g}" for x in quantiles[0, :, j, k].tolist()]
    return values


def _csv(values: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(values)
    return text.getvalue()
