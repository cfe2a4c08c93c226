"""The description of a forecaster: columns, lengths, the time step."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from longstate.models._block import Gate
from longstate.models._calendar import Calendar

DAY, WEEK, YEAR = 86400.0, 7 * 86400.0, 365.2425 * 86400.0
LARGEST = 1e100  # largest allowed value, so that sums of squares stay finite
# Number of harmonics of each cycle. Few suffice: the window shows the detailed shape of a day.
CYCLES = {"day": (DAY, 3), "week": (WEEK, 3), "year": (YEAR, 2)}


@dataclass(frozen=True)
class ForecastSpec:
    """Columns and lengths. Everything that must agree between training and use.

    Args:
        targets: columns to forecast.
        covariates: columns known up to now.
        known: columns known for the future too.
        time: the column with the times, or None.
        calendar: step and format of the times, or None without times.
        cycles: cycles that are features: "day", "week", "year"; empty without times.
        window, horizon, season: rows.
        quantiles: levels between 0 and 1, ascending; empty for a point forecast only.
        gate: the part after each layer; see `longstate.models.Block`. "glu" in files of versions
            that did not write it.
        lower, upper: bounds of every forecast. None: no bound.
        transform: applied to the targets before scaling: "none", "log1p" or "box-cox".
    """

    targets: tuple[str, ...]
    covariates: tuple[str, ...]
    known: tuple[str, ...]
    time: str | None
    calendar: Calendar | None
    cycles: tuple[str, ...]
    window: int
    horizon: int
    season: int
    quantiles: tuple[float, ...]
    gate: Gate = "glu"
    lower: float | None = None
    upper: float | None = None
    transform: str = "none"

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "ForecastSpec":
        """From JSON. Older runs have a step and no calendar: their times are without a zone."""
        raw: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in facts.items()}
        if "step" in raw:
            step, raw["cycles"] = raw.pop("step"), raw.pop("calendar")
            raw["calendar"] = None if step is None else {"step": step, "form": "mixed"}
        if raw["calendar"] is not None:
            found = raw["calendar"]
            raw["calendar"] = Calendar(**{**found, "holidays": tuple(found.get("holidays", ()))})
        return cls(**raw)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, the time first."""
        time = () if self.time is None else (self.time,)
        return (*time, *self.targets, *self.covariates, *self.known)

    @property
    def times(self) -> str:
        """The time column and its step, in words."""
        if self.time is None or self.calendar is None:
            return "row numbers"
        zone = "" if self.calendar.zone is None else f", {self.calendar.zone}"
        return f"{self.time}, every {self.calendar.words}{zone}"

    @property
    def n_calendar(self) -> int:
        return sum(2 * CYCLES[c][1] for c in self.cycles)


def calendar_features(times: np.ndarray | None, cycles: tuple[str, ...], rows: int) -> np.ndarray:
    """Sine and cosine of the time within each cycle.

    Args:
        times (n): datetime64, or None.
        cycles: names of `CYCLES`.
        rows: n, used without times.

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
