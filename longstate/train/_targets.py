"""Classes and numbers to learn, checked as scikit-learn checks them.

Axes: n cases.
"""

import warnings
from typing import Any

import numpy as np

from longstate.errors import InputError


def labels_of(y: Any, n: int) -> np.ndarray:
    """Classes (n): whole numbers, texts or truth values.

    Raises:
        InputError: y is missing, of another length, or not made of classes.
    """
    labels = _column(y, n)
    if labels.dtype.kind == "f":
        if not np.isfinite(labels).all():
            raise InputError("y contains NaN or infinity; every case needs a class")
        if (labels != np.round(labels)).any():
            raise InputError(
                "Unknown label type: continuous. y of a Classifier must be classes, not numbers "
                "with fractions; use a Regressor"
            )
    if labels.dtype.kind == "O":
        if any(v is None or v != v for v in labels):
            raise InputError("y contains missing labels (None or NaN); every case needs a class")
        if len({type(v) for v in labels}) > 1:
            raise InputError("y mixes classes of several types; use one, such as texts")
    return labels


def class_numbers(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The classes, sorted, and the number of each case's class.

    Raises:
        InputError: there is only one class.
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    if len(classes) < 2:
        raise InputError(
            f"y has only one class, {classes.tolist()[0]!r}; a classifier needs at least 2 classes"
        )
    return classes, numbers.astype(np.int64)


def numbers_of(y: Any, n: int) -> np.ndarray:
    """Numbers (n), float64.

    Raises:
        InputError: y is missing, of another length, or not finite.
    """
    values = _column(y, n)
    try:
        numbers = values.astype(np.float64)
    except (TypeError, ValueError):
        raise InputError("y of a Regressor must be numbers") from None
    if not np.isfinite(numbers).all():
        raise InputError("y contains NaN or infinity; every case needs a number")
    return numbers


def _column(y: Any, n: int) -> np.ndarray:
    if y is None:
        raise InputError("this estimator requires y to be passed, but the target y is None")
    values = np.asarray(y)
    if np.iscomplexobj(values):
        raise InputError("Complex data not supported: y must be classes or real numbers")
    if values.ndim == 2 and values.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected", _warning(), stacklevel=4
        )
        values = values[:, 0]
    if values.ndim != 1:
        raise InputError(f"y must have one value for each case; got shape {values.shape}")
    if len(values) != n:
        raise InputError(f"X has {n} cases, but y has {len(values)} values")
    return values


def _warning() -> type[Warning]:
    """scikit-learn's own warning where it is installed."""
    try:
        from sklearn.exceptions import DataConversionWarning
    except ImportError:
        return UserWarning
    return DataConversionWarning
