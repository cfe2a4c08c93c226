"""Save and load the rows of a stream of forecasts."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from longstate import _tensorfile as tensorfile
from longstate._facts import read
from longstate.errors import InputError
from longstate.models import Calendar, ForecastModel
from longstate.models._time_text import check_calendar
from longstate.stream._identity import check_identity, describe, difference
from longstate.stream._saving import load_checked

_KIND, _PANEL = "forecast stream", "forecast panel"
_PARTS = ("past", "future", "doubtful")
_COLUMNS = ("target", "observed", "covariates", "known", "static", "codes")


class Kept(NamedTuple):
    """What is kept of one stream.

    Args:
        calendar: of the times.
        number: of rows so far.
        since: number of rows since the last value of each column.
        rows: the fields of `Row` by part.
        tensors: further ones by name.
    """

    calendar: Calendar
    number: int
    since: dict[str, int]
    rows: dict[str, list[Any]]
    tensors: dict[str, Tensor]


@dataclass(frozen=True)
class _Rows:
    """The header of the rows of one stream; see `Kept`."""

    calendar: Calendar
    count: int
    times: dict[str, list[str | None]]
    since: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class _Facts:
    """The header of a file of one stream."""

    module: dict[str, Any]
    calendar: Calendar
    count: int
    times: dict[str, list[str | None]]
    since: dict[str, int] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True)
class _PanelFacts:
    """The header of a file of the streams of a panel, in the order of their last rows."""

    module: dict[str, Any]
    series: list[str]
    rows: list[_Rows]


def save_rows(path: str | Path, module: dict[str, Any], kept: Kept) -> None:
    """Write one stream; module is the model's identity, from `describe`."""
    tensors, facts = _pack(kept)
    tensorfile.save(path, _KIND, tensors, {"module": module, **facts})


def save_panel(path: str | Path, module: dict[str, Any], streams: dict[str, Kept]) -> None:
    """Write the streams of all series into one file, atomically."""
    tensors: dict[str, Tensor] = {}
    rows = []
    for i, kept in enumerate(streams.values()):
        own, facts = _pack(kept)
        tensors |= {f"{i}/{name}": tensor for name, tensor in own.items()}
        rows.append(facts)
    tensorfile.save(path, _PANEL, tensors, {"module": module, "series": [*streams], "rows": rows})


def _pack(kept: Kept) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors = dict(kept.tensors)
    for part in _PARTS:
        rows = kept.rows[part]
        for i, column in enumerate(_COLUMNS, start=1):
            if rows and len(rows[0][i]):
                tensors[f"{part}/{column}"] = torch.from_numpy(np.stack([row[i] for row in rows]))
    calendar = kept.calendar
    return tensors, {
        "calendar": dataclasses.asdict(calendar),
        "count": kept.number,
        "since": kept.since,
        "times": {
            part: [None if row[0] is None else calendar.text(row[0]) for row in kept.rows[part]]
            for part in _PARTS
        },
    }


def load_rows(path: str | Path, model: ForecastModel) -> Kept:
    """Read a file of `save_rows`.

    Raises:
        InputError: the file is missing, damaged, or belongs to another model.
    """
    tensors, raw = load_checked(path, _KIND)
    facts = read(_Facts, raw, f"the description in {path}")
    _check_model(facts.module, model, path)
    rows = _Rows(facts.calendar, facts.count, facts.times, facts.since)
    return _unpack(rows, tensors, model, path)


def load_panel(path: str | Path, model: ForecastModel) -> dict[str, Kept]:
    """Read a file of `save_panel`.

    Raises:
        InputError: the file is missing, damaged, or belongs to another model.
    """
    tensors, raw = load_checked(path, _PANEL)
    facts = read(_PanelFacts, raw, f"the description in {path}")
    _check_model(facts.module, model, path)
    if len(facts.series) != len(facts.rows):
        raise _damaged(path)
    own: list[dict[str, Tensor]] = [{} for _ in facts.series]
    for name, tensor in tensors.items():
        at, _, rest = name.partition("/")
        if not at.isdecimal() or int(at) >= len(own):
            raise _damaged(path)
        own[int(at)][rest] = tensor
    triples = zip(facts.series, facts.rows, own, strict=True)
    return {name: _unpack(rows, held, model, path) for name, rows, held in triples}


def _check_model(module: dict[str, Any], model: ForecastModel, path: str | Path) -> None:
    check_identity(module, f"{path}: module")
    differs = difference(module, describe(model))
    if differs:
        raise InputError(f"{path} {differs}")


def _damaged(path: str | Path) -> InputError:
    return InputError(f"{path} is damaged: its rows are not those of this model")


def _unpack(
    facts: _Rows, tensors: dict[str, Tensor], model: ForecastModel, path: str | Path
) -> Kept:
    check_calendar(facts.calendar)
    if facts.times.keys() != set(_PARTS) or facts.count < 0:
        raise _damaged(path)
    rows: dict[str, list[Any]] = {}
    for part in _PARTS:
        written = facts.times[part]
        try:
            times = [None if t is None else _stamp(facts.calendar, t) for t in written]
        except (ValueError, TypeError, OverflowError):
            raise _damaged(path) from None
        if not times:
            rows[part] = []
            continue
        arrays = []
        for name in _COLUMNS:
            shape = _shape(model, name, len(times))
            column = tensors.get(f"{part}/{name}")
            if column is None and shape[1] == 0:
                column = torch.zeros(shape)
            if column is None or column.shape != shape:
                raise _damaged(path)
            arrays.append(column.numpy())
        rows[part] = list(zip(times, *arrays, strict=True))
    return Kept(facts.calendar, facts.count, facts.since, rows, tensors)


def _shape(model: ForecastModel, column: str, rows: int) -> tuple[int, int]:
    spec = model.spec
    widths = {"covariates": len(spec.covariates), "known": len(spec.known)}
    widths |= {"static": len(spec.static), "codes": len(spec.categories)}
    return rows, widths.get(column, len(spec.targets))


def _stamp(calendar: Calendar, text: str) -> Any:
    stamp = calendar.untext(text)
    return calendar.stamps(calendar.clock(pd.Index([stamp])))[0] if calendar.even else stamp
