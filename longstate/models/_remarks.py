"""Remarks on the input of a forecast: values unlike all of training, and columns without values."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from longstate.errors import InputError
from longstate.models._scale import Units
from longstate.models._spec import ForecastSpec

if TYPE_CHECKING:
    from longstate.models._forecaster import ForecastModel

FAR = 100.0
"""Standard deviations from the mean. Of n values none is further than sqrt(n - 1) (Samuelson 1968),
so a training part of 10,000 rows had no such value."""


@torch.no_grad()
def strange_values(
    model: "ForecastModel",
    target: Float[np.ndarray, "n c"],
    covariates: Float[np.ndarray, "n p"],
    known: Float[np.ndarray, "m k"],
    label: Callable[[int], str],
    units: Units | None = None,
) -> list[str]:
    """A sentence for each column with values that are far from those of training, or beyond a bound
    of the forecasts; nan is no value.

    Args:
        model: knows mean and spread of the training part.
        target, covariates, known: rows of the data, in its own units.
        label: the time of a row.
        units: scale of the targets in each row, in a panel; None: the model's.
    """
    spec, found = model.spec, []
    for scale, values, names in (
        (model.scale, target, spec.targets),
        (model.covariate_scale, covariates, spec.covariates),
        (model.known_scale, known, spec.known),
    ):
        own = units if units is not None and scale is model.scale else scale.units
        zero = torch.zeros(values.shape[1], dtype=torch.float64)
        middle, unit = (
            np.broadcast_to(x.numpy(), values.shape) for x in (own.inverse(zero), own.unit)
        )
        for j, name in enumerate(names):
            column = values[:, j]
            far = np.abs(column - middle[:, j]) > FAR * unit[:, j]
            row = int(far.argmax()) if len(far) else 0
            usual = f"{middle[row, j]:.4g} +- {unit[row, j]:.4g} in training" if far.any() else ""
            wrong = [(far, usual)]
            if scale is model.scale:
                for word, bound, beyond in (
                    ("lower", spec.lower, np.less),
                    ("upper", spec.upper, np.greater),
                ):
                    if bound is not None:
                        wrong.append((beyond(column, bound) & ~far, f"{word} is {bound:g}"))
            found += [_sentence(name, column, at, label, said) for at, said in wrong if at.any()]
    return found


def _sentence(
    name: str, column: np.ndarray, wrong: np.ndarray, label: Callable[[int], str], usual: str
) -> str:
    row, count = int(wrong.argmax()), int(wrong.sum())
    more = "" if count == 1 else f" (and {count - 1} more rows are alike)"
    return (
        f"Column {name!r} is {column[row]:g} at {label(row)}{more}, but {usual}; if that is wrong, "
        "correct it or leave it empty."
    )


def missing_rows(seen: int, rows: int) -> str | None:
    """A sentence if fewer than half of the rows of a window are observed.

    Raises:
        InputError: only the last one is.
    """
    if seen <= 1 < rows // 2:
        raise InputError(
            f"of the {rows} rows that a forecast reads, {rows - seen} are missing: only the "
            "last was observed, so there is nothing to forecast from"
        )
    if 2 * seen >= rows:
        return None
    return f"Of the {rows} rows that the forecast reads, {rows - seen} are missing."


def unseen_columns(spec: ForecastSpec, since: dict[str, int]) -> list[str]:
    """A sentence for each column that has no value in the window, of some that have.

    Args:
        spec: window and columns.
        since: number of rows since the last value of each column; 0 if the last row has one.
    """
    names = [name for name, rows in since.items() if rows >= spec.window]
    return [
        f"Column {name!r} has no value in the {spec.window} rows that the forecast reads; its last "
        "one stands for them."
        for name in names
    ]
