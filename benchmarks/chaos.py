"""Chaotic series: forecasts of 50 rows, with and without noise.

    python benchmarks/chaos.py [--seeds 3]

Lorenz x: 12,000 rows of x of the Lorenz system (10, 28, 8/3), 0.02 time units apart. Mackey-Glass:
10,000 rows, one time unit apart, with the delay 17. A seed is another start. With noise, Gaussian
noise of 1 % of the standard deviation is added to every row, also to those that score a forecast.
70 % of the rows are for training, 10 % for validation; scores are the mean squared error over all
windows of the last 20 %, in variances of the training part. longstate has its default settings;
peers are in `forecast_peers.py`.
"""

import itertools
import math
import statistics
import time
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from command import parser
from kept import FOLDER
from measure import machine, save
from runs import Runs, seeds_of

from longstate import Forecaster

HORIZON, NOISE = 50, 0.01
SHOWN = ("model", "map", "network", "line", "last value")


def lorenz(seed: int, rows: int = 12_000, dt: float = 0.02) -> np.ndarray:
    """Rows of x, y and z, by the classical Runge-Kutta method with four steps to a row."""

    def slope(s: np.ndarray) -> np.ndarray:
        x, y, z = s
        return np.array([10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z])

    h, found = dt / 4, []
    s = np.array([1.0, 1.0, 20.0]) + np.random.default_rng(seed).standard_normal(3)
    for i in range(4 * (rows + 500)):
        a = slope(s)
        b = slope(s + h / 2 * a)
        c = slope(s + h / 2 * b)
        s = s + h / 6 * (a + 2 * b + 2 * c + slope(s + h * c))
        if i % 4 == 3:
            found.append(s)
    return np.array(found[500:])


def mackey_glass(seed: int, rows: int = 10_000, tau: int = 17) -> np.ndarray:
    """By Heun's method with ten steps to a row."""
    per, before = 10, 500
    x = list(1.2 + 0.1 * np.random.default_rng(seed).standard_normal(per * tau + 1))

    def slope(now: float, then: float) -> float:
        return 0.2 * then / (1 + then**10) - 0.1 * now

    for _ in range(per * (rows + before)):
        first = slope(x[-1], x[-1 - per * tau])
        second = slope(x[-1] + first / per, x[-per * tau])
        x.append(x[-1] + (first + second) / (2 * per))
    return np.array(x[per * tau + 1 :: per][before : before + rows])


SERIES = {"Lorenz x": lambda seed: lorenz(seed)[:, 0], "Mackey-Glass": mackey_glass}


def series(name: str, noise: float, seed: int) -> np.ndarray:
    y = SERIES[name](seed)
    return y + noise * y.std() * np.random.default_rng(100 + seed).standard_normal(len(y))


def measured(name: str, noise: float, seed: int) -> dict[str, Any]:
    frame, began = pd.DataFrame({"y": series(name, noise, seed)}), time.process_time()
    made = Forecaster(HORIZON, seed=seed).fit(frame, "y")
    seconds = time.process_time() - began
    evaluation = made.evaluate(frame)
    scores = {s.method: s.mse for s in evaluation.scores}
    bands = {f"{100 * b.level:.0f} %": 100 * b.observed for b in evaluation.bands}
    return {"seconds": seconds, "choice": made.choice.words(), "bands": bands, **scores}


def figure(values: list[float]) -> str:
    """Mean, and lowest to highest."""
    values = [v for v in values if not math.isnan(v)]
    if not values:
        return "-"
    spread = f" ({min(values):.2g} to {max(values):.2g})" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2g}{spread}"


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--seeds", type=int, default=3)
    given = options.parse_args()
    runs = Runs(FOLDER / "chaos.jsonl", ("series", "noise", "method", "seed"))
    found = {}
    for name, noise in itertools.product(SERIES, (0.0, NOISE)):
        named = {"series": name, "noise": noise}
        do = partial(measured, name, noise)
        found[name, noise] = list(seeds_of(runs, given.seeds, do, method="longstate", **named))
    lines = [
        "# Forecasts of chaotic series",
        "",
        "50 rows ahead, mean squared error in variances: mean (lowest to highest start).",
        "Command: `python benchmarks/chaos.py`",
        "",
        machine(),
        "",
        "| series | noise | " + " | ".join(SHOWN) + " | choice | 80 % band holds | seconds |",
        "| --- | ---: |" + " ---: |" * len(SHOWN) + " --- | ---: | ---: |",
    ]
    for (name, noise), own in found.items():
        cells = [figure([r.get(m, math.nan) for r in own]) for m in SHOWN]
        cells.append(", ".join(sorted({r["choice"] for r in own})))
        cells.append(f"{statistics.fmean(r['bands']['80 %'] for r in own):.0f} %")
        cells.append(f"{statistics.fmean(r['seconds'] for r in own):.0f}")
        lines.append(f"| {name} | {100 * noise:g} % | " + " | ".join(cells) + " |")
    save("chaos", "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
