"""Common parts of the two forecasting benchmarks: runs over horizons and seeds, and a table."""

import statistics
import time
from collections.abc import Callable, Sequence

from measure import machine

from longstate import Forecaster
from longstate.train import ForecastEvaluation

METHODS = ("last value", "seasonal naive", "ridge", "model")


def table(
    horizons: Sequence[int], seeds: Sequence[int], run: Callable[[int, int], tuple]
) -> list[str]:
    """Lines of a markdown table: the mean over the seeds, its range, and ridge beside it.

    Args:
        horizons, seeds: one run for each pair.
        run: (horizon, seed) -> fitted forecaster and its evaluation on the test part.
    """
    lines = [
        "| horizon | last value | seasonal naive | ridge | model (range of seeds) | "
        "model against ridge | steps trained, best | longest run |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for horizon in horizons:
        fitted: list[Forecaster] = []
        scored: list[ForecastEvaluation] = []
        seconds = []
        for seed in seeds:
            began = time.perf_counter()
            forecaster, evaluation = run(horizon, seed)
            seconds.append(time.perf_counter() - began)
            fitted.append(forecaster)
            scored.append(evaluation)
            print(horizon, seed, *evaluation.verdict(), f"{seconds[-1]:.0f} s", flush=True)
        lines.append(_line(horizon, fitted, scored, max(seconds)))
    return lines


def _line(
    horizon: int, fitted: list[Forecaster], scored: list[ForecastEvaluation], seconds: float
) -> str:
    mse = {m: statistics.mean(e.score(m).mse for e in scored) for m in METHODS}
    runs = [e.score("model").mse for e in scored]
    ends = ", ".join(f"{f.history.looks[-1].step}, {f.history.best_step}" for f in fitted)
    cells = [
        f"{horizon}",
        *(f"{mse[m]:.4f}" for m in METHODS[:3]),
        f"{mse['model']:.4f} ({min(runs):.4f} to {max(runs):.4f})",
        f"{100 * (mse['model'] / mse['ridge'] - 1):+.1f} %",
        ends,
        f"{seconds:.0f} s",
    ]
    return "| " + " | ".join(cells) + " |"


def heading(title: str, what: str, forecaster: Forecaster) -> str:
    return (
        f"# {title}\n\n{what}\n\n"
        f"Layers {forecaster.layers}, window {forecaster.window}. {forecaster.size}. "
        f"{forecaster.training}\n\n{machine()}\n"
    )
