"""Rolling validation: what is chosen is scored on windows after the rows that it was fitted to.

    rows   |------ fitted ------|- check 1 -|- check 2 -| ... |- test ----|

The rows of a panel are ordered by time, not by series.

Where the validation part holds enough horizons, it is the only fold. Otherwise the second half of
training and validation is divided into several, and everything is fitted again before each.
"""

from itertools import pairwise

import numpy as np

from longstate.errors import InputError
from longstate.models import ForecastSpec
from longstate.train._table import Table
from longstate.train._windows import Split, Windows

ENOUGH = 20  # horizons in the validation part, so that it suffices alone
FOLDS = 5


def folds(table: Table, spec: ForecastSpec, parts: Split) -> list[tuple[Windows, Windows]]:
    """Windows to fit to, and the windows that begin after them; the last ones begin in the
    validation part. Every window ends before the test part."""
    last = Windows(table, spec, 0, parts.train), Windows(table, spec, parts.train, parts.validation)
    if parts.validation - parts.train >= ENOUGH * spec.horizon:
        return [last]
    first = max(parts.validation // 2, spec.window + 3 * spec.horizon)
    cuts = [first + k * (parts.train - first) // (FOLDS - 1) for k in range(FOLDS)]
    found = []
    for cut, end in pairwise(cuts):
        if cut < end:
            found += _fold(table, spec, cut, min(end - 1 + spec.horizon, parts.validation))
    return [*found, last]


def _fold(table: Table, spec: ForecastSpec, cut: int, end: int) -> list[tuple[Windows, Windows]]:
    """Nothing if a part of it has no window with a value."""
    try:
        return [(Windows(table, spec, 0, cut), Windows(table, spec, cut, end))]
    except InputError:
        return []


def independent(windows: list[Windows], scored: int) -> float:
    """The number of horizons that the windows of consecutive parts cover, summed over the series,
    which is that of windows without a common row; at most that of those that were scored."""
    places = windows[0].places
    origins = np.concatenate([one.origins for one in windows])
    series, at = places.of(origins), places.position[origins]
    first, last = np.full((2, len(places.names)), -1)
    first[series] = at.max()
    np.minimum.at(first, series, at)
    np.maximum.at(last, series, at)
    have = first >= 0
    return min(float(((last - first)[have] / windows[0].spec.horizon + 1).sum()), scored)
