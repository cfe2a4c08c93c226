"""What a forecast is made from and for: columns, lengths, the time step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstate.models._block import Gate

DAY, WEEK, YEAR = 86400.0, 7 * 86400.0, 365.2425 * 86400.0
# Harmonics of each cycle. The window itself holds the fine shape of a day; these place it.
CYCLES = {"day": (DAY, 3), "week": (WEEK, 3), "year": (YEAR, 2)}


@dataclass(frozen=True)
class ForecastSpec:
    """Columns and lengths. Everything that must agree between training and use.

    Args:
        targets: columns to forecast.
        covariates: columns known up to now.
        known: columns known for the future too.
        time: the column with the times, or None.
        step: time between rows as a pandas offset ("h", "30min", "MS"), or None without times.
        calendar: cycles given as features, of "day", "week", "year"; empty without times.
        window, horizon, season: rows.
        quantiles: levels between 0 and 1, ascending; empty for a point forecast only.
        gate: what stands behind each layer; see `longstate.models.Block`. In files of versions that
            did not write it, it is "glu".
    """

    targets: tuple[str, ...]
    covariates: tuple[str, ...]
    known: tuple[str, ...]
    time: str | None
    step: str | None
    calendar: tuple[str, ...]
    window: int
    horizon: int
    season: int
    quantiles: tuple[float, ...]
    gate: Gate = "glu"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "ForecastSpec":
        """From what JSON made of one: lists where there were tuples."""
        given: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in facts.items()
        }
        return cls(**given)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, the time first."""
        time = () if self.time is None else (self.time,)
        return (*time, *self.targets, *self.covariates, *self.known)

    @property
    def n_calendar(self) -> int:
        return sum(2 * CYCLES[c][1] for c in self.calendar)


def calendar_features(times: np.ndarray | None, cycles: tuple[str, ...], rows: int) -> np.ndarray:
    """Sine and cosine of the time within each cycle.

    Args:
        times (n): datetime64, or None.
        cycles: names of `CYCLES`.
        rows: n, for the case without times.

    Returns:
        (n, m), float64, m = 2 * harmonics summed over the cycles.
    """
    if times is None or not cycles:
        return np.zeros((rows, 0))
    seconds = times.astype("datetime64[ms]").astype(np.int64) / 1000.0
    columns = []
    for cycle in cycles:
        period, harmonics = CYCLES[cycle]
        for k in range(1, harmonics + 1):
            phase = 2 * np.pi * k * np.mod(seconds, period) / period
            columns += [np.sin(phase), np.cos(phase)]
    return np.stack(columns, axis=1)
