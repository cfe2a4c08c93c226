"""A small artificial evaluation of the right shape."""

import math
from dataclasses import replace

import numpy as np
import torch

from longstate.reports import ForecastReport
from longstate.systems import DiagonalSystem
from longstate.train import (
    Coverage,
    Evaluated,
    Example,
    ForecastEvaluation,
    Score,
    SeriesScore,
    TrainingHistory,
)
from longstate.train._ahead import Ahead
from longstate.train._bands import Band
from longstate.train._chosen import Chosen, Part
from longstate.train._evaluation import Drawn
from longstate.train._residuals import Autocorrelation

HORIZON, PAST = 12, 24
LEVELS = (0.1, 0.5, 0.9)


def score(method: str, level: float, horizon: int = HORIZON) -> Score:
    by_step = tuple(level * math.log1p(i + 1) for i in range(horizon))
    mean = sum(by_step) / horizon
    return Score(method, mean, 0.8 * mean, by_step, tuple(0.8 * e for e in by_step))


def one_example(target: str = "temperature", *, dated: bool = True, phase: float = 0.0) -> Example:
    wave = np.sin(np.arange(PAST + HORIZON) / 4 + phase)
    past, truth = wave[:PAST].copy(), wave[PAST:]
    past[3] = math.nan
    start = np.datetime64("2013-10-19T22:00")
    hours = start + np.arange(PAST + HORIZON) * np.timedelta64(1, "h")
    times = [str(h).replace("T", " ") + ":00" for h in hours] if dated else range(8000, 8036)
    return Example(
        target,
        tuple(map(str, times)),
        tuple(past),
        tuple(truth),
        {"model": tuple(truth + 0.1), "ridge": tuple(truth - 0.3)},
        {level: tuple(truth + level - 0.5) for level in LEVELS},
    )


def evaluation(target: str = "temperature", *, model: float = 0.1) -> ForecastEvaluation:
    names = {"model": model, "last value": 0.4, "seasonal naive": 0.3, "ridge": 0.2}
    return ForecastEvaluation(
        targets=(target,),
        horizon=HORIZON,
        window=48,
        season=24,
        windows=1611,
        first="2013-10-18 12:00:00",
        last="2013-12-30 23:00:00",
        scores=tuple(score(method, level) for method, level in names.items()),
        quantiles=tuple(Coverage(q, q, (q,) * HORIZON, 0.1) for q in LEVELS),
        examples=(one_example(target), one_example(target, phase=2.0)),
    )


def history() -> TrainingHistory:
    looks = tuple(Evaluated(10 * i, i, 1 / i if i else math.nan, 1.1 / (i + 1)) for i in range(5))
    return TrainingHistory(looks, best_step=40, ended="finished", seconds=12.3)


def choice() -> Chosen:
    parts = (
        Part("smoothing", 0.25, 0.3, 0.31),
        Part("line", 0.15, 0.2, 0.21),
        Part("network", 0.6, 0.12),
    )
    return Chosen(
        parts, error=0.1, rolling=0.19, folds=5, windows=80, independent=7.5, calibrated=8.0,
        now=20.0, gain=0.07, noise=0.02, refitted=True,
    )  # fmt: skip


def system(decay: float = 0.9) -> DiagonalSystem:
    a = torch.tensor([decay, 0.5 * decay])
    return DiagonalSystem(a, torch.ones(2, 1), torch.ones(1, 2), torch.ones(1, 1), discrete=True)


def report(target: str = "temperature") -> ForecastReport:
    return ForecastReport(
        evaluation(target),
        name=f"run of {target}",
        history=history(),
        systems={f"layer 1, {target}": system(), "layer 2": system(0.99)},
        interval=3600.0,
        configuration={"layer": "S4D", "targets": (target,), "covariates": (), "file": target},
        environment={"PyTorch": "2.13.0", "host": target},
        notes=(f"column {target} has a gap",),
    )


def full(**changes) -> ForecastReport:
    """A report with every section of a single series; `changes` are of its evaluation."""
    band = Band(0.8, 0.71, 0.5, 200.0, tuple(0.8 - 0.01 * i for i in range(HORIZON)))
    columns = tuple(SeriesScore(n, 19332, e, "seasonal naive", 0.3) for n, e in
                    (("temperature", 0.1), ("HUFL", 0.05)))  # fmt: skip
    left = Autocorrelation("temperature", (0.5, 0.3, 0.25, 0.2), (0.1,) * 4)
    found = {
        "bands": (band,), "columns": columns, "residuals": (left,), "worst": (one_example(),),
        **changes,
    }  # fmt: skip
    return replace(
        report(), evaluation=replace(evaluation(), **found), choice=choice(),
        ahead=Ahead({"": (ahead_example(), ahead_example("HUFL"))}),
    )  # fmt: skip


def full_panel() -> ForecastReport:
    """The same of a panel."""
    names = [f"Women's shoes, store {i} of Yorkshire" for i in range(30)]
    series = tuple(SeriesScore(n, 19332, 1 / (i + 1), "seasonal naive", 0.3) for i, n in
                   enumerate(names))  # fmt: skip
    drawn = tuple(
        Drawn(names[i], why, one_example(f"sales of {names[i]}"))
        for i, why in ((0, "largest error"), (10, "random"), (29, "smallest error"))
    )
    ahead = Ahead({names[0]: (ahead_example("sales"),)})
    return replace(full(series=series, drawn=drawn, columns=()), ahead=ahead)


def ahead_example(target: str = "temperature") -> Example:
    """A window of the future."""
    one = one_example(target)
    truth = (math.nan,) * HORIZON
    return replace(one, truth=truth, forecasts={"model": one.forecasts["model"]})
