"""One row of a stream of forecasts."""

from typing import Any, NamedTuple

import numpy as np

from longstate.errors import InputError
from longstate.models._spec import LARGEST


class Row(NamedTuple):
    """One row: its time and its numbers, nan where missing."""

    time: Any
    target: np.ndarray
    observed: np.ndarray
    covariates: np.ndarray
    known: np.ndarray


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
