"""The forecaster against what people would pick instead, on eighteen sets of many kinds.

    pip install statsforecast lightgbm neuralforecast
    python benchmarks/forecast_peers.py FOLDER [--sets tourism,Lorenz] [--methods NHITS,AutoARIMA]
    python benchmarks/forecast_peers.py FOLDER --methods "" --save

FOLDER is described in `peer_sets.py`, where the sets are too. All methods have one configuration
for all sets, and forecast from the same origins: at most 60, evenly spaced in the last 20 % of the
rows. Training is the first 70 %, validation the next 10 % (of short series at least one horizon
each). Errors are in units of each series' standard deviation over the training part, averaged over
origins, steps and series. longstate has its default settings, with `refit=False`; ridge is the one
of its evaluation. AutoETS and AutoARIMA are fitted again at each origin, to all rows before it (the
last 500 of hourly and chaotic series). LightGBM has lags, means, calendar and known columns, one
model for all series of a set, repeated row by row; it stops by the validation part, which also
chooses between values, changes and seasonal changes. The models of neuralforecast read the same
window as longstate, are stopped by the validation part, and train on one thread for --seconds of
the processor at most. Methods that do not draw random numbers run once, the others with --seeds.
"""

import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from command import parser
from kept import FOLDER
from measure import machine, save
from peer_methods import auto_arima, auto_ets, errors, lightgbm, longstate, neural, simple
from peer_sets import SETS, Series
from runs import Run, Runs, seeds_of

NEURAL = ("NHITS", "DLinear", "TSMixer")
METHODS = {
    "seasonal naive": simple,
    "longstate": longstate,
    "LightGBM": lightgbm,
    "AutoETS": auto_ets,
    "AutoARIMA": auto_arima,
}
SHOWN = ("longstate", "seasonal naive", "ridge", "AutoETS", "LightGBM", "AutoARIMA", *NEURAL)
SIMPLE = ("seasonal naive", "ridge", "AutoETS", "LightGBM")
SURE = ("seasonal naive", "AutoETS", "AutoARIMA")  # draw no random numbers


def run(method: Any, series: Series, seed: int) -> dict[str, Any]:
    """Errors of each of the method's forecasts, and its facts."""
    began, origins = time.process_time(), series.origins()
    found = method(series, seed)
    scores = {}
    for name, forecasts in found.forecasts.items():
        squared, absolute = errors(series, forecasts, origins)
        scores[name] = [float(squared.mean()), float(absolute.mean())]
    facts = {"kind": series.kind, "origins": len(origins), **found.facts}
    return {"scores": scores, "cpu_seconds": time.process_time() - began, **facts}


def measured(runs: list[Run], name: str, method: str, which: int = 0) -> list[float]:
    """One error for each seed."""
    return [
        r["scores"][method][which] for r in runs if r["set"] == name and method in r["scores"]
        and r["method"] == (method if method != "ridge" else "longstate")
    ]  # fmt: skip


def figure(values: list[float]) -> str:
    """Mean, and lowest to highest."""
    if not values:
        return "-"
    if len(values) == 1 or max(values) - min(values) < 5e-4 * max(values):
        return f"{values[0]:.3g}"
    return f"{statistics.fmean(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def against(runs: list[Run], name: str) -> tuple[str, float, float] | None:
    """The best method of all, and our error relative to it and to the best simple one."""
    mean = {m: statistics.fmean(v) for m in SHOWN if (v := measured(runs, name, m))}
    if "longstate" not in mean or len(mean) < 2:
        return None
    own = mean.pop("longstate")
    best = min(mean, key=lambda m: mean[m])
    few = min(mean[m] for m in SIMPLE if m in mean)
    return ("longstate" if own <= mean[best] else best), own / mean[best], own / few


def tables(runs: list[Run]) -> list[str]:
    kinds = {r["set"]: r["kind"] for r in runs}
    names = [name for name in SETS if name in kinds]
    lines: list[str] = []
    for which, title in enumerate(("Mean squared error", "Mean absolute error")):
        more = "best | longstate / best other | / best simple |" if which == 0 else ""
        lines += [f"## {title}", "", f"| set | kind | {' | '.join(SHOWN)} | {more}"]
        ends = " --- | ---: | ---: |" if which == 0 else ""
        lines.append("| --- | --- |" + " ---: |" * len(SHOWN) + ends)
        for name in names:
            cells = [figure(measured(runs, name, m, which)) for m in SHOWN]
            if which == 0:
                found = against(runs, name)
                cells += [found[0], f"{found[1]:.2f}", f"{found[2]:.2f}"] if found else ["-"] * 3
            lines.append(f"| {name} | {kinds[name]} | " + " | ".join(cells) + " |")
        lines.append("")
    return lines + summary(runs, names)


def summary(runs: list[Run], names: list[str]) -> list[str]:
    found = {name: x for name in names if (x := against(runs, name))}
    near = [name for name, x in found.items() if x[1] <= 1.03]
    behind = [f"{name} ({100 * (x[2] - 1):.0f} %)" for name, x in found.items() if x[2] > 1.1]
    missing = {m: [n for n in SETS if not measured(runs, n, m)] for m in SHOWN}
    lines = [
        f"Best, or within 3 % of the best of all that ran: {len(near)} of {len(found)} sets. "
        f"More than 10 % behind the best of {', '.join(SIMPLE)}: {', '.join(behind) or 'none'}.",
        "",
        "Weights of longstate's parts, first seed: "
        + "; ".join(
            f"{r['set']}: " + ", ".join(f"{k} {w:g}" for k, w in r["choice"].items() if w)
            for r in runs if r["method"] == "longstate" and r["seed"] == 0
        ) + ".",
        "",
    ]  # fmt: skip
    seeds = {m: {len(v) for n in names if (v := measured(runs, n, m))} for m in SHOWN}
    for m in SHOWN:
        lacks = ", ".join(missing[m]) or "no set"
        lines.append(f"- {m}: seeds {sorted(seeds[m]) or 0}; not run: {lacks}.")
    return lines


def main() -> None:
    options = parser(__doc__)
    options.add_argument("folder", type=Path)
    options.add_argument("--sets", default=",".join(SETS))
    options.add_argument("--methods", default="seasonal naive,longstate,LightGBM,AutoETS")
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--seconds", type=float, default=300, help="of training, neuralforecast")
    options.add_argument("--save", action="store_true")
    given = options.parse_args()
    runs = Runs(FOLDER / "forecast_peers.jsonl", ("set", "method", "seed"))
    known = METHODS | {name: neural(name, given.seconds) for name in NEURAL}
    for name in given.sets.split(",") if given.methods else ():
        series = SETS[name](given.folder)
        for method in given.methods.split(","):
            seeds = 1 if method in SURE else given.seeds
            do = partial(run, known[method], series)
            list(seeds_of(runs, seeds, do, set=name, method=method))
    if given.save:
        text = f"# The forecaster and its peers\n\n{__doc__}\n\n{machine()}\n"
        save("forecast_peers", "\n".join([text, *tables(runs.all())]))


if __name__ == "__main__":
    np.seterr(all="ignore")
    main()
