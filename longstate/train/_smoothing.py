"""Damped seasonal exponential smoothing (Holt 1957, Winters 1960, Gardner and McKenzie 1985).

    expected  = level + damping * trend + season[t mod m]
    error     = y_t - expected
    level    <- level + damping * trend + a * error
    trend    <- damping * trend + a * b * error
    season[t mod m] <- season[t mod m] + g * error

    forecast of step k = level + (damping + ... + damping^k) * trend + season[(t + k) mod m]

It starts from means of the first one or two seasons of the window, so a forecast is a linear map of
the window. The map is found by smoothing the unit vectors: weights (w, h), as those of a line. They
add up to 1 at each step, because a constant added to the window is added to the forecast.

Axes: g settings, w window, h horizon, m season.
"""

from itertools import product
from typing import NamedTuple

import numpy as np


class Smoothing(NamedTuple):
    """The constants of one smoothing, each from 0 to 1."""

    level: float
    trend: float
    damping: float
    season: float


_TRENDS = ((0.0, 0.0), (0.05, 0.9), (0.05, 0.98), (0.2, 0.9), (0.4, 0.8))
SETTINGS = tuple(
    Smoothing(level, *trend, season)
    for level, trend, season in product(
        (0.05, 0.1, 0.2, 0.4, 0.7, 1.0), _TRENDS, (0.0, 0.1, 0.25, 0.5)
    )
)
LONGEST = 512  # rows: what lies before them has no weight after so many


class Smoothings:
    """The maps of all `SETTINGS` for one window.

    Args:
        window, horizon, season: rows. A window of less than two seasons is smoothed without one.
    """

    def __init__(self, window: int, horizon: int, season: int):
        self.window, self.horizon = window, horizon
        self.season = season if 2 * season <= window else 1
        self.settings = [s for s in SETTINGS if self.season > 1 or s.season == 0]
        self._read = min(window, max(LONGEST, 2 * self.season))
        self._level, self._trend, self._seasons = self._run()

    def weights(self, index: int) -> np.ndarray:
        """The map (w, h) of one setting."""
        steps = np.arange(1, self.horizon + 1)
        damping = self.settings[index].damping
        trend = np.cumsum(damping**steps)
        seasons = self._seasons[index][(self._read + steps - 1) % self.season]
        weights = self._level[index] + trend[:, None] * self._trend[index] + seasons
        return np.pad(weights.T, ((self.window - self._read, 0), (0, 0)))

    def _run(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Level (g, w), trend (g, w) and season (g, m, w) at the end of the rows that are read, as
        maps of these."""
        n, m = self._read, self.season
        a, b, damping, g = (np.array(x)[:, None] for x in zip(*self.settings, strict=True))
        unit = np.eye(n)
        level, trend, seasons = _start(unit, m)
        level, trend = (np.tile(x, (len(a), 1)) for x in (level, trend * 1.0))
        trend = trend * (damping > 0)
        seasons = np.tile(seasons, (len(a), 1, 1))
        for t in range(m, n):
            place = t % m
            moved = level + damping * trend
            error = unit[t] - moved - seasons[:, place]
            level = moved + a * error
            trend = damping * trend + a * b * error
            seasons[:, place] += g * error
        return level, trend, seasons


def _start(unit: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Level and trend at row m - 1, and the seasons, as maps of the rows."""
    if m == 1:
        return unit[0], np.zeros(len(unit)), np.zeros((1, len(unit)))
    first, second = unit[:m].mean(0), unit[m : 2 * m].mean(0)
    trend = (second - first) / m
    middle = (np.arange(m) - (m - 1) / 2)[:, None]
    shapes = (unit[:m] - first - middle * trend, unit[m : 2 * m] - second - middle * trend)
    return first + (m - 1) / 2 * trend, trend, (shapes[0] + shapes[1]) / 2
