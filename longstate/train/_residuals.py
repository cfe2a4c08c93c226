"""Autocorrelation of the errors one step ahead: what a forecaster leaves in the data.

    r_k = mean z_t z_{t+k} / mean z_t^2,      z the errors minus their mean

The errors of a perfect forecaster are white noise, of which 95 % of the r_k are within
1.96 / sqrt(number of pairs). Pairs are of one series; those of all series of a panel count
together.

Axes: n windows, c targets.
"""

from dataclasses import dataclass

import numpy as np

from longstate.errors import expect
from longstate.train._windows import Windows

FEWEST = 30  # pairs of a lag, and half of the errors
LAGS = 10, 400  # at least, unless the rows are too few; at most
NORMAL = 1.96  # 95 % of a normal distribution are within so many deviations
LARGE = 0.2  # which explains 4 % of the variance: less is not worth a change, however sure it is


@dataclass(frozen=True)
class Autocorrelation:
    """Of the errors of one target one step ahead.

    Args:
        target: name of the column.
        values (k): at the lags 1 to k.
        bounds (k): between -bound and bound are 95 % of the values of white noise.
    """

    target: str
    values: tuple[float, ...]
    bounds: tuple[float, ...]

    def __post_init__(self) -> None:
        expect(len(self.values) == len(self.bounds) > 0, "each lag needs a value and a bound")

    @property
    def outside(self) -> tuple[int, ...]:
        """The lags beyond their bound."""
        pairs = zip(self.values, self.bounds, strict=True)
        return tuple(k for k, (r, bound) in enumerate(pairs, 1) if abs(r) > bound)

    @property
    def largest(self) -> int:
        """The lag with the largest absolute value."""
        return 1 + int(np.argmax(np.abs(self.values)))

    @property
    def is_white(self) -> bool:
        """Whether no more lags are outside than 5 % and chance explain."""
        n = len(self.values)
        return len(self.outside) <= 0.05 * n + NORMAL * (0.05 * 0.95 * n) ** 0.5

    @property
    def remains(self) -> bool:
        """Whether there is something to learn that is worth it."""
        return not self.is_white and abs(self.values[self.largest - 1]) >= LARGE

    def sentence(self) -> str:
        """How many lags are outside, and which is the largest."""
        n, found, value = len(self.values), len(self.outside), self.values[self.largest - 1]
        said = (
            f"{self.target}: {found or 'no'} of {n} lags {'is' if found == 1 else 'are'} outside "
            f"the bound, where white noise has about {0.05 * n:.2g}; the largest is {value:.2f} at "
            f"lag {self.largest}."
        )
        if self.is_white:
            return f"{said} This is like white noise: nothing is left to learn from them."
        if self.remains:
            return f"{said} The errors are not white noise: something is left to learn."
        return (
            f"{said} The errors are not quite white noise, but that lag explains only "
            f"{100 * value**2:.1f} % of their variance."
        )


def autocorrelation(
    errors: np.ndarray, windows: Windows, season: int
) -> tuple[Autocorrelation, ...]:
    """One for each target that has enough errors.

    Args:
        errors (n, c): of all windows, one step ahead, in scaled units; nan in gaps.
        windows: n windows in order.
        season: rows of a season, the last lag.
    """
    first = int(windows.origins[0])
    at = windows.origins - first
    dense = np.full((int(at[-1]) + 1, errors.shape[1]), np.nan)
    dense[at] = errors
    series = windows.places.of(first + np.arange(len(dense)))
    most = min(max(season, LAGS[0]), LAGS[1], len(dense) - 1)
    found = []
    for name, z in zip(windows.spec.targets, dense.T, strict=True):
        values, bounds = _lags(z, series, most)
        if values:
            found.append(Autocorrelation(name, tuple(values), tuple(bounds)))
    return tuple(found)


def _lags(z: np.ndarray, series: np.ndarray, most: int) -> tuple[list[float], list[float]]:
    """Values and bounds from lag 1 on, as far as half of the errors have a partner."""
    values: list[float] = []
    bounds: list[float] = []
    count = int((~np.isnan(z)).sum())
    if not count or not (power := np.nanvar(z)):
        return values, bounds
    z = z - np.nanmean(z)
    for k in range(1, most + 1):
        product = (z[:-k] * z[k:])[series[:-k] == series[k:]]
        product = product[~np.isnan(product)]
        if len(product) < max(FEWEST, count / 2):
            break
        values.append(float(product.mean() / power))
        bounds.append(NORMAL / len(product) ** 0.5)
    return values, bounds
