"""A picture of a forecast: history, forecast and bands."""

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from longstate.errors import InputError, expect_whole, near
from longstate.models import ForecastSpec
from longstate.models._time_text import read
from longstate.train._table import Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HORIZONS = 4  # of history before the forecast


class Drawn(NamedTuple):
    """Times, or row numbers, and values of one target of one series; nan in gaps."""

    x: pd.Index
    y: np.ndarray


def draw_forecast(
    table: Table,
    spec: ForecastSpec,
    forecast: pd.DataFrame,
    target: str | None,
    series: Any,
    rows: int | None,
    ax: "Axes | None",
) -> "Axes":
    """See `FittedForecaster.plot`; `forecast` is of `predict`."""
    name = spec.targets[0] if target is None else str(target)
    if name not in spec.targets:
        raise InputError(f"there is no target {name!r}; {near(name, spec.targets)}")
    rows = HORIZONS * spec.horizon if rows is None else rows
    expect_whole("rows", rows)
    number = _number_of(table, spec, forecast, series)
    title = name if table.panel is None else f"{name}, {table.panel.names[number]}"
    if table.panel is not None:
        forecast = forecast[forecast[spec.id].astype(str) == table.panel.names[number]]
    at = _times(forecast, spec)
    past = _history(table, name, number)
    begin = max(0, int(past.x.searchsorted(at[0])) - rows)
    end = int(past.x.searchsorted(at[-1], side="right"))
    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
    ax.plot(past.x[begin:end], past.y[begin:end], color="0.35", label="history")
    single = len(at) == 1  # no line and no area
    ax.plot(
        at, forecast[name].to_numpy(), color="C0", marker="." if single else "", label="forecast"
    )
    levels = spec.quantiles
    for i in range(len(levels) // 2):
        low, high = (forecast[f"{name}_q{levels[k]:g}"].to_numpy() for k in (i, -1 - i))
        share = f"{100 * (levels[-1 - i] - levels[i]):g} %"
        if single:
            ax.vlines(at, low, high, color="C0", alpha=0.2, linewidth=8, label=share)
        else:
            ax.fill_between(at, low, high, color="C0", alpha=0.2, linewidth=0, label=share)
    ax.set_title(title, loc="right")
    ax.set_xlabel(spec.time or "row")
    ax.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, frameon=False)
    return ax


def _number_of(table: Table, spec: ForecastSpec, forecast: pd.DataFrame, series: Any) -> int:
    """The series to draw: the given one, or the first one that is forecast."""
    if table.panel is None:
        if series is not None:
            raise InputError("series is for a forecaster of a panel; this one is of one series")
        return 0
    names = list(dict.fromkeys(forecast[spec.id].astype(str)))
    name = names[0] if series is None else str(series)
    if name not in names:
        raise InputError(f"there is no forecast of a series {name!r}; {near(name, names)}")
    return table.panel.names.index(name)


def _times(forecast: pd.DataFrame, spec: ForecastSpec) -> pd.Index:
    """Stamps of a forecast, or row numbers."""
    if spec.calendar is None or spec.time not in forecast:
        return pd.Index(forecast["row"])
    return read(spec.calendar, forecast[spec.time].reset_index(drop=True))


def _history(table: Table, name: str, series: int) -> Drawn:
    j = table.columns.targets.index(name)
    places = table.places
    rows = np.arange(places.firsts[series], places.ends[series])
    y = np.where(table.observed[rows, j], table.target[rows, j], np.nan)
    if table.panel is None:
        x = pd.RangeIndex(table.before, table.before + table.rows)
        return Drawn(x if table.times is None else table.times[rows], y)
    if places.base is None or table.calendar is None:
        return Drawn(pd.Index(places.position[rows]), y)
    return Drawn(table.calendar.at(places.base + places.position[rows]), y)
