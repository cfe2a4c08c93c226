"""Save and load the rows of a stream of forecasts."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

_KIND = "forecast stream"
_PARTS = ("past", "future", "doubtful")
_COLUMNS = ("target", "observed", "covariates", "known")


@dataclass(frozen=True)
class _Facts:
    """The header of a file of rows; see `save_rows`."""

    module: dict[str, Any]
    calendar: Calendar
    count: int
    times: dict[str, list[str | None]]
    since: dict[str, int] = dataclasses.field(default_factory=dict)


def save_rows(
    path: str | Path,
    module: dict[str, Any],
    calendar: Calendar,
    count: int,
    since: dict[str, int],
    rows: dict[str, list[Any]],
    more: dict[str, Tensor],
) -> None:
    """Write the rows of each part.

    Args:
        path: the file.
        module: the model's identity, from `describe`.
        calendar: of the times.
        count: number of rows so far.
        since: number of rows since the last value of each column.
        rows: (time, target, observed, covariates, known) by part.
        more: further tensors by name.
    """
    tensors = dict(more)
    for part in _PARTS:
        kept = rows[part]
        for i, column in enumerate(_COLUMNS, start=1):
            if kept:
                tensors[f"{part}/{column}"] = torch.from_numpy(np.stack([row[i] for row in kept]))
    facts = {
        "module": module,
        "calendar": dataclasses.asdict(calendar),
        "count": count,
        "since": since,
        "times": {
            part: [None if row[0] is None else calendar.text(row[0]) for row in rows[part]]
            for part in _PARTS
        },
    }
    tensorfile.save(path, _KIND, tensors, facts)


def load_rows(
    path: str | Path, model: ForecastModel
) -> tuple[Calendar, int, dict[str, int], dict[str, list[tuple[Any, ...]]], dict[str, Tensor]]:
    """The calendar, the number of rows so far and since the last value of each column, the rows of
    each part, and all tensors.

    Raises:
        InputError: the file is missing, damaged, or belongs to another model.
    """
    tensors, raw = load_checked(path, _KIND)
    facts = read(_Facts, raw, f"the description in {path}")
    check_identity(facts.module, f"{path}: module")
    differs = difference(facts.module, describe(model))
    if differs:
        raise InputError(f"{path} {differs}")
    check_calendar(facts.calendar)
    wrong = InputError(f"{path} is damaged: its rows are not those of this model")
    if facts.times.keys() != set(_PARTS) or facts.count < 0:
        raise wrong
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for part in _PARTS:
        written = facts.times[part]
        try:
            times = [None if t is None else _stamp(facts.calendar, t) for t in written]
        except (ValueError, TypeError, OverflowError):
            raise wrong from None
        if not times:
            rows[part] = []
            continue
        columns = {name: tensors.get(f"{part}/{name}") for name in _COLUMNS}
        for name, column in columns.items():
            if column is None or column.shape != _shape(model, name, len(times)):
                raise wrong
        arrays = [column.numpy() for column in columns.values() if column is not None]
        rows[part] = list(zip(times, *arrays, strict=True))
    return facts.calendar, facts.count, facts.since, rows, tensors


def _shape(model: ForecastModel, column: str, rows: int) -> tuple[int, int]:
    spec = model.spec
    widths = {"covariates": len(spec.covariates), "known": len(spec.known)}
    return rows, widths.get(column, len(spec.targets))


def _stamp(calendar: Calendar, text: str) -> Any:
    stamp = calendar.untext(text)
    return calendar.stamps(calendar.clock(pd.Index([stamp])))[0] if calendar.even else stamp
