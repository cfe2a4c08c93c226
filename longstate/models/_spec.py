"""The description of a forecaster: columns, lengths, the time step."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from longstate._facts import mapping, read
from longstate._numbers import duration, number
from longstate.errors import expect
from longstate.models._block import Gate
from longstate.models._calendar import Calendar
from longstate.models._scale import TRANSFORMS

DAY, WEEK, YEAR = 86400.0, 7 * 86400.0, 365.2425 * 86400.0
MOST_ROWS = 10**9  # of a window, a horizon or a season
LARGEST = 1e100  # largest allowed value, so that sums of squares stay finite
# Number of harmonics of each cycle. Few suffice: the window shows the detailed shape of a day.
CYCLES = {"day": (DAY, 3), "week": (WEEK, 3), "year": (YEAR, 2)}


@dataclass(frozen=True)
class Category:
    """A column of text, which the network reads by an embedding.

    Args:
        column: its name.
        role: "static" and "known" columns are read for the future too; "covariate" ones up to now.
        levels: the texts of the training, with the codes 1, 2 and so on; others have the code 0.
    """

    column: str
    role: Literal["static", "known", "covariate"]
    levels: tuple[str, ...]


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
        id: the column that names the series, in a panel. series: those of the training.
        static: columns of numbers that a series has once.
        categories: columns of text.

    Raises:
        InputError: a value is out of its range.
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
    id: str | None = None
    series: tuple[str, ...] = ()
    static: tuple[str, ...] = ()
    categories: tuple[Category, ...] = ()

    def __post_init__(self) -> None:
        for name in ("window", "horizon", "season"):
            value = getattr(self, name)
            expect(1 <= value <= MOST_ROWS, f"{name} must be 1 to {MOST_ROWS:,} rows; got {value}")
        columns = (*self.targets, *self.covariates, *self.known, *self.static)
        expect((self.id is None) == (not self.series), "series must be there where id is")
        expect(len(set(self.series)) == len(self.series), "series must not name one twice")
        expect(len(self.targets) > 0, "targets must name at least one column")
        expect(len(set(self.targets)) == len(self.targets), "targets must not name a column twice")
        expect(self.time not in columns, f"the time {self.time!r} is also another column")
        rising = all(
            a < b for a, b in zip((0.0, *self.quantiles), (*self.quantiles, 1.0), strict=True)
        )
        expect(rising, f"quantiles must rise between 0 and 1; got {list(self.quantiles)}")
        for cycle in self.cycles:
            expect(cycle in CYCLES, f"there is no cycle {cycle!r}; there is {', '.join(CYCLES)}")
        expect(
            self.transform in TRANSFORMS,
            f"transform must be one of {', '.join(TRANSFORMS)}; got {self.transform!r}",
        )
        for name in ("lower", "upper"):
            value = getattr(self, name)
            expect(value is None or abs(value) <= LARGEST, f"{name} must be finite; got {value}")
        if self.lower is not None and self.upper is not None:
            expect(self.lower < self.upper, "lower must be below upper")

    @classmethod
    def of(cls, facts: object, what: str = "the description of a forecast") -> "ForecastSpec":
        """From JSON, also of runs whose step stood alone: their times are without a zone.

        Args:
            facts: field -> value.
            what: where it is from, to begin a sentence with.

        Raises:
            InputError: a field is missing, unknown or wrong.
        """
        raw = mapping(facts, what)
        if "step" in raw:
            step, raw["cycles"] = raw.pop("step"), raw.pop("calendar", ())
            raw["calendar"] = None if step is None else {"step": step, "form": "mixed"}
            raw["cycles"] = () if step is None else raw["cycles"]
        spec = read(cls, raw, what)
        expect(spec.time is not None or not spec.cycles, f"{what} has cycles, but no time column")
        if spec.calendar is not None:
            from longstate.models._time_text import check_calendar

            check_calendar(spec.calendar)
        return spec

    @property
    def reads_ahead(self) -> bool:
        """Whether a forecast needs rows of the future."""
        return bool(self.known) or any(one.role == "known" for one in self.categories)

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read; the id and the time first."""
        first = tuple(name for name in (self.id, self.time) if name is not None)
        texts = tuple(c.column for c in self.categories if c.column != self.id)
        return (*first, *self.targets, *self.covariates, *self.known, *self.static, *texts)

    @property
    def times(self) -> str:
        """The time column and its step, in words."""
        if self.time is None or self.calendar is None:
            return "row numbers"
        zone = "" if self.calendar.zone is None else f", {self.calendar.zone}"
        if self.calendar.irregular:
            usual = self.calendar.usual or 1.0
            words = duration(usual) if self.calendar.dated else number(usual)
            return f"{self.time}, irregular, usually {words} apart{zone}"
        return f"{self.time}, every {self.calendar.words}{zone}"

    @property
    def n_calendar(self) -> int:
        """Features of the times: of cycles, or the time from the last row of the window."""
        return sum(2 * CYCLES[c][1] for c in self.cycles) + self.irregular

    @property
    def irregular(self) -> bool:
        """Whether the time between rows is read."""
        return self.calendar is not None and self.calendar.irregular


@dataclass(frozen=True)
class ModelFacts:
    """What the file of a `ForecastModel` says of it."""

    spec: dict[str, Any]
    layers: list[dict[str, Any]]
    d_model: int
    dropout: float

    def __post_init__(self) -> None:
        expect(self.d_model >= 1, f"d_model must be at least 1; got {self.d_model}")
        expect(0 <= self.dropout < 1, f"dropout must be at least 0 and below 1; got {self.dropout}")


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
