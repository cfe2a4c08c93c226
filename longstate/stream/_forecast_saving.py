"""Save and load the rows of a stream of forecasts."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from longstate import _tensorfile as tensorfile
from longstate.errors import InputError
from longstate.models import Calendar, ForecastModel
from longstate.stream._identity import describe, difference
from longstate.stream._saving import _check

_KIND = "forecast stream"
_PARTS = ("past", "future", "doubtful")
_COLUMNS = ("target", "observed", "covariates", "known")


def save_rows(
    path: str | Path,
    module: dict[str, Any],
    calendar: Calendar,
    count: int,
    rows: dict[str, list[Any]],
) -> None:
    """Write the rows of each part.

    Args:
        path: the file.
        module: the model's identity, from `describe`.
        calendar: of the times.
        count: number of rows so far.
        rows: (time, target, observed, covariates, known) by part.
    """
    tensors: dict[str, Tensor] = {}
    for part in _PARTS:
        kept = rows[part]
        for i, column in enumerate(_COLUMNS, start=1):
            if kept:
                tensors[f"{part}/{column}"] = torch.from_numpy(np.stack([row[i] for row in kept]))
    facts = {
        "module": module,
        "calendar": dataclasses.asdict(calendar),
        "count": count,
        "times": {
            part: [None if row[0] is None else calendar.text(row[0]) for row in rows[part]]
            for part in _PARTS
        },
    }
    tensorfile.save(path, _KIND, tensors, {**facts, "check": _check(facts, tensors)})


def load_rows(
    path: str | Path, model: ForecastModel
) -> tuple[Calendar, int, dict[str, list[tuple[Any, ...]]]]:
    """The calendar, the number of rows so far, and the rows of each part.

    Raises:
        InputError: the file is missing, damaged, or belongs to another model.
    """
    tensors, facts = tensorfile.load(path, _KIND)
    check = facts.pop("check", None)
    if check != _check(facts, tensors):
        raise InputError(f"{path} is damaged: its contents have changed since it was written")
    differs = difference(facts["module"], describe(model))
    if differs:
        raise InputError(f"{path} {differs}")
    saved = facts["calendar"]
    calendar = Calendar(**{**saved, "holidays": tuple(saved["holidays"])})
    rows: dict[str, list[tuple[Any, ...]]] = {}
    for part in _PARTS:
        times = [None if t is None else _stamp(calendar, t) for t in facts["times"][part]]
        arrays = [tensors[f"{part}/{column}"].numpy() for column in _COLUMNS] if times else []
        rows[part] = list(zip(times, *arrays, strict=True)) if times else []
    return calendar, facts["count"], rows


def _stamp(calendar: Calendar, text: str) -> Any:
    stamp = calendar.untext(text)
    return calendar.stamps(calendar.clock(pd.Index([stamp])))[0] if calendar.even else stamp
