"""One row of a stream of forecasts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from longstate.errors import InputError
from longstate.models import Calendar, ForecastSpec
from longstate.models._spec import LARGEST
from longstate.models._time_text import read_one


class Row(NamedTuple):
    """One row: its time and its numbers, nan where missing; and the codes of its texts, 0 where
    missing or unknown."""

    time: Any
    target: np.ndarray
    observed: np.ndarray
    covariates: np.ndarray
    known: np.ndarray
    static: np.ndarray = np.zeros(0)
    codes: np.ndarray = np.zeros(0, dtype=np.int64)


def row_of(
    spec: ForecastSpec, calendar: Calendar, values: Mapping[str, str | float], before: Any
) -> Row:
    """A row of the data.

    Args:
        spec: names the columns. calendar: of the times.
        values: column -> number or text.
        before: time of the row before it; None if there is none.

    Raises:
        InputError: a column is missing or not a number, or the time cannot be read.
    """
    for name in spec.columns:
        if name not in values and name != spec.time:
            raise InputError(f"there is no column {name!r} in the row")
    target, covariates, known, static = (
        np.array([number(name, values[name]) for name in names], dtype=np.float64)
        for names in (spec.targets, spec.covariates, spec.known, spec.static)
    )
    codes = [code(values[one.column], one.levels) for one in spec.categories]
    time = None
    if spec.time is not None:
        raw = str(values.get(spec.time, ""))
        time = read_one(calendar, raw, before)
        if time is None:
            raise InputError(f"the time column {spec.time!r} holds {raw[:60]!r}, not a date")
    observed = ~np.isnan(target)
    return Row(time, target, observed, covariates, known, static, np.array(codes, np.int64))


def gap(spec: ForecastSpec, time: Any) -> Row:
    """A row without a value."""
    target, covariates, known, static = (
        np.full(len(names), np.nan)
        for names in (spec.targets, spec.covariates, spec.known, spec.static)
    )
    observed = np.zeros(len(target), dtype=bool)
    codes = np.zeros(len(spec.categories), dtype=np.int64)
    return Row(time, target, observed, covariates, known, static, codes)


def code(value: str | float, levels: Sequence[str]) -> int:
    """The code of a text."""
    text = str(value).strip()
    return 1 + levels.index(text) if text in levels else 0


def number(name: str, value: str | float) -> float:
    """A cell as a number; nan if it is empty.

    Raises:
        InputError: it is no number, infinite or too large.
    """
    text = str(value).strip().lower()
    if text in ("", "na", "nan", "null", "none"):
        return float("nan")
    if text in ("true", "false"):
        return float(text == "true")
    try:
        found = float(text)
    except ValueError:
        raise InputError(
            f"column {name!r} holds {str(value)[:60]!r}; a number was expected"
        ) from None
    if not abs(found) <= LARGEST:
        what = "infinite" if abs(found) == float("inf") else f"too large ({found:g})"
        raise InputError(f"column {name!r} is {what}")
    return found
