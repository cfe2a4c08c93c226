"""The result of an evaluation, a frozen dataclass: printed by the CLI, drawn by the report.

Errors are in scaled units: the target divided by its standard deviation over the training part, so
that 1 is about the error of the training mean. Examples are in the data's own units.
"""

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from longstate._numbers import score
from longstate.train._bands import Band
from longstate.train._residuals import Autocorrelation


@dataclass(frozen=True)
class Score:
    """One method's errors over all scored windows, and targets, in scaled units.

    Args:
        method: "model", the forecast that `predict` gives; or a simple method or "network", one
            part alone.
        mse, mae: mean over windows, horizon steps and targets.
        mse_by_step (h), mae_by_step (h): the same for each step of the horizon.
        mase: absolute error over that of the seasonal naive method, one step ahead, on training and
            validation; None for forecasters of older versions.
        smape: mean of 200 |error| / (|truth| + |forecast|), in percent.
        crps: continuous ranked probability score, scaled units. Of the model an estimate: twice the
            mean pinball loss of its quantiles, which is 11 % too small for the levels 0.1, 0.5, 0.9
            and a Gaussian. Of methods without quantiles the absolute error, exactly.
    """

    method: str
    mse: float
    mae: float
    mse_by_step: tuple[float, ...]
    mae_by_step: tuple[float, ...]
    mase: float | None = None
    smape: float | None = None
    crps: float | None = None
    noise: float | None = None

    def differs(self, model: "Score") -> bool:
        """Whether its squared error differs from the model's by more than chance explains: by two
        standard errors, where these are known."""
        return self.noise is None or abs(self.mse - model.mse) > 2 * self.noise


@dataclass(frozen=True)
class Coverage:
    """How often the truth was at or below a forecast quantile; calibrated if equal to `level`.

    Args:
        level: of the quantile, between 0 and 1.
        observed: the observed share. `observed_by_step` (h) for each step of the horizon.
        pinball: mean pinball loss at this level, scaled units.
    """

    level: float
    observed: float
    observed_by_step: tuple[float, ...]
    pinball: float


@dataclass(frozen=True)
class SeriesScore:
    """The errors on one series of a panel, or one of several targets, in units of its own standard
    deviation.

    Args:
        name: its id or column. values: number of scored true values.
        mse: of the model. best: the simple method with the least error on all of them together.
        best_mse: its error on this one.
    """

    name: str
    values: int
    mse: float
    best: str
    best_mse: float

    def cells(self) -> tuple[str, str, str, str]:
        """Name, number of values and both errors, as the cells of a table."""
        return self.name, f"{self.values:,}", score(self.mse), score(self.best_mse)


@dataclass(frozen=True)
class Example:
    """One window with the forecasts of all methods, in the data's own units.

    Args:
        target: name of the column.
        times (w + h): ISO strings, or row numbers as strings where the data has no times.
        past (w): the end of the window (at most 2 horizons are kept); nan where missing.
        truth (h): the true values; nan where missing.
        forecasts: method -> (h).
        quantiles: level -> (h), the model's; empty where the model has none.
    """

    target: str
    times: tuple[str, ...]
    past: tuple[float, ...]
    truth: tuple[float, ...]
    forecasts: dict[str, tuple[float, ...]]
    quantiles: dict[float, tuple[float, ...]]


@dataclass(frozen=True)
class Drawn:
    """One series of a panel to draw: its last scored window.

    Args:
        series: its id. why: "largest error", "smallest error" or "random".
        example: the window, of the first target.
    """

    series: str
    why: str
    example: Example


@dataclass(frozen=True)
class ForecastEvaluation:
    """Scores of the model and its baselines on windows that were not used for training.

    Args:
        targets: columns that were forecast. horizon, window, season: in rows.
        windows: number of scored windows.
        first, last: time (or row) of the first and the last scored forecast step.
        scores: the model first, then the simple methods, then the network alone.
        quantiles: the model's coverage per level; empty where it has none.
        examples: a few windows, spread over the scored part.
        notes: sentences about corrections of the data.
        bands: how often the truth was in each band, the widest first.
        chosen: methods and weights of the model, in words.
        series: errors on each series of a panel, the largest first; empty for a single series.
        columns: errors on each target, the largest first; empty for a single target.
        worst: the windows and targets with the largest errors, in other rows each.
        drawn: some series of a panel.
        residuals: autocorrelation of the errors one step ahead, for each target.
    """

    targets: tuple[str, ...]
    horizon: int
    window: int
    season: int
    windows: int
    first: str
    last: str
    scores: tuple[Score, ...]
    quantiles: tuple[Coverage, ...]
    examples: tuple[Example, ...]
    notes: tuple[str, ...] = ()
    bands: tuple[Band, ...] = ()
    chosen: str = ""
    series: tuple[SeriesScore, ...] = ()
    columns: tuple[SeriesScore, ...] = ()
    worst: tuple[Example, ...] = ()
    drawn: tuple[Drawn, ...] = ()
    residuals: tuple[Autocorrelation, ...] = ()

    def by_series(self) -> str | None:
        """How the errors are spread over the series of a panel."""
        if not self.series:
            return None
        better = sum(one.mse < one.best_mse for one in self.series)
        best = self.series[0].best
        on = f"{better:,}" if better else "none"
        middle = sorted(one.mse for one in self.series)[len(self.series) // 2]
        return (
            f"The squared error of the {len(self.series):,} series is from "
            f"{score(self.series[-1].mse)} to {score(self.series[0].mse)}, the median "
            f"{score(middle)}; on {on} of them the model is better than {best}."
        )

    def score(self, method: str) -> Score:
        return next(s for s in self.scores if s.method == method)

    def verdict(self) -> tuple[str, ...]:
        """One sentence per other method: by how much the model is better or worse, with both
        errors; and one for each band that holds too little or too much."""
        model = self.score("model")
        found = [
            f"The model is {other.method}." if other.method == self.chosen
            else _compare(model, other)
            for other in self.scores
            if other is not model
        ]  # fmt: skip
        return (*found, *(s for band in self.bands if (s := band.sentence()) is not None))

    @property
    def rivals(self) -> tuple[Score, ...]:
        """Scores of the simple methods, but for one that the model is."""
        kept = ("model", "network", self.chosen)
        return tuple(s for s in self.scores if s.method not in kept)

    def beats_all(self) -> bool:
        """Whether the model has a smaller squared error than every simple method."""
        return all(self.score("model").mse < other.mse for other in self.rivals)

    def to_json(self) -> str:
        """JSON text; missing values are null. Read it back with `from_json`."""
        return json.dumps(_nan_to_null(dataclasses.asdict(self)), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "ForecastEvaluation":
        raw = json.loads(text)
        return cls(
            **{
                **raw,
                "targets": tuple(raw["targets"]),
                "scores": tuple(Score(**_tuples(s)) for s in raw["scores"]),
                "quantiles": tuple(Coverage(**_tuples(q)) for q in raw["quantiles"]),
                "examples": tuple(_example(e) for e in raw["examples"]),
                "notes": tuple(raw.get("notes", ())),
                "bands": tuple(Band(**_tuples(b)) for b in raw.get("bands", ())),
                "series": tuple(SeriesScore(**s) for s in raw.get("series", ())),
                "columns": tuple(SeriesScore(**s) for s in raw.get("columns", ())),
                "worst": tuple(_example(e) for e in raw.get("worst", ())),
                "drawn": tuple(
                    Drawn(**{**d, "example": _example(d["example"])}) for d in raw.get("drawn", ())
                ),
                "residuals": tuple(Autocorrelation(**_tuples(r)) for r in raw.get("residuals", ())),
            }
        )


def _compare(model: Score, other: Score) -> str:
    figures = f"(MSE {score(model.mse)} against {score(other.mse)})"
    if other.mse == 0:
        return f"The model does not beat {other.method}, which has no error {figures}."
    change = 100 * (model.mse / other.mse - 1)
    if model.mse == other.mse:
        return f"The model and {other.method} have the same error {figures}."
    if abs(change) < 0.05:
        return f"The model and {other.method} are equal within 0.05 % {figures}."
    if change < 0:
        return f"The model beats {other.method} by {-change:.1f} % {figures}."
    return f"The model does NOT beat {other.method}: it is {change:.1f} % worse {figures}."


def _example(raw: dict[str, Any]) -> Example:
    return Example(
        target=raw["target"],
        times=tuple(raw["times"]),
        past=_floats(raw["past"]),
        truth=_floats(raw["truth"]),
        forecasts={name: _floats(v) for name, v in raw["forecasts"].items()},
        quantiles={float(level): _floats(v) for level, v in raw["quantiles"].items()},
    )


def _floats(values: list[float | None]) -> tuple[float, ...]:
    return tuple(float("nan") if v is None else v for v in values)


def _tuples(raw: dict[str, Any]) -> dict[str, Any]:
    return {k: _floats(v) if isinstance(v, list) else v for k, v in raw.items()}


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _nan_to_null(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_nan_to_null(v) for v in value]
    if isinstance(value, float) and value != value:
        return None
    return value
