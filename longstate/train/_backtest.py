"""Forecasts from several origins, each from the rows before it alone.

    rows      |--- training ---|- validation -|------ unseen ------|
    origins                                   o      o      o
    forecasts                                 [h]    [h]    [h]

Axes: b origins, h horizon, c targets, q quantiles.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from longstate.errors import InputError, expect_whole
from longstate.models import Forecast, ForecastModel
from longstate.models._time_text import present
from longstate.train._baselines import fit_linear, last_value, seasonal_naive
from longstate.train._choice import refit_to, rolling
from longstate.train._folds import folds
from longstate.train._origin import cut
from longstate.train._scaling import check_size
from longstate.train._table import Table
from longstate.train._windows import Batch, Split, Windows

if TYPE_CHECKING:
    from longstate.train._fitted import FittedForecaster

MOST_ORIGINS = 10**6


@dataclass(frozen=True)
class Backtest:
    """Forecasts from several origins, and their errors.

    Args:
        forecasts: one row for each origin and step: the origin (time or number of the last row that
            was read), the time, the step from 1; and for each target its forecast, quantiles and
            true value (`NAME_actual`, nan in gaps).
        scores: one row for each target and method: mean absolute error and root of the mean squared
            error in the target's own unit, and the share of true values in the widest band.
        notes: sentences on the data, and on what was fitted again.
    """

    forecasts: pd.DataFrame
    scores: pd.DataFrame
    notes: tuple[str, ...]


def check_backtest(origins: int, refit: bool | int, network: bool) -> int:
    """The number of origins after which everything is fitted again; 0 for never.

    Raises:
        InputError: a number makes no sense.
    """
    expect_whole("origins", origins, most=MOST_ORIGINS)
    every = int(refit) if isinstance(refit, bool) else refit
    expect_whole("refit", every, 0)
    if network and not every:
        raise InputError("network=True trains again at each refit; give refit=True or a number")
    return every


@torch.no_grad()
def run_backtest(
    forecaster: "FittedForecaster",
    table: Table,
    first: int,
    origins: int,
    every: int,
    network: bool,
    show: Callable[[str], None] | None,
) -> Backtest:
    """See `FittedForecaster.backtest`.

    Args:
        forecaster: fitted.
        table: all rows. first: the first one that was not used for training or validation.
        origins, network, show: as there. every: from `check_backtest`.
    """
    model = forecaster.model
    windows = Windows(table, model.spec, first)
    check_size(model, table, table.rows)
    picked = np.unique(np.linspace(0, len(windows) - 1, min(origins, len(windows))).round())
    again = _Refits(forecaster, table, first, network) if every else None
    rows: dict[str, list[Any]] = {}
    simple: dict[str, list[np.ndarray]] = {}
    for i, index in enumerate(picked.astype(int)):
        batch = windows.batch(np.array([index]))
        row = int(batch.rows[0])
        if show is not None:
            show(table.label(row - 1))
        if again is not None and i % every == 0:
            model = again.before(row)
        forecast = _forecast(model, batch, refitted=again is not None)
        _add(rows, table, model, batch, forecast)
        for name, method in (("last value", last_value), ("seasonal naive", seasonal_naive)):
            simple.setdefault(name, []).append(method(windows, batch)[0].numpy())
    frame = pd.DataFrame(rows)
    what = "Nothing was fitted again: forecasts use what was fitted to the training part."
    if again is not None:
        fitted = "Everything was trained" if network else "Ridge and line were fitted"
        what = f"{fitted} again at {-(-len(picked) // every)} of {len(picked)} origins."
    notes = [*table.notes, what]
    if len(picked) < origins:
        notes.append(f"The unseen rows hold {len(picked)} origins; {origins} were asked for.")
    return Backtest(frame, _scores(frame, model, simple), tuple(notes))


class _Refits:
    """Models that were fitted to the rows before an origin alone."""

    def __init__(self, forecaster: "FittedForecaster", table: Table, first: int, network: bool):
        self._forecaster, self._table, self._network = forecaster, table, network
        model, split = forecaster.model, forecaster.facts["split"]
        if model.choice is None:
            raise InputError("this forecaster was trained by an older version; train it again")
        train = round(first * split[0] / (split[0] + split[1]))
        self._parts = Split(train, first, first)
        if first < model.spec.window + 2 * model.spec.horizon:
            raise InputError(
                "refit needs the rows of training in the data; it has "
                f"{first} before the first unseen one"
            )
        if not network:
            self._linear = fit_linear(copy.deepcopy(model), folds(table, model.spec, self._parts))
            self._rolled = rolling(model, self._linear)

    def before(self, row: int) -> ForecastModel:
        if self._network:
            with torch.enable_grad():
                return self._forecaster._trained_again(cut(self._table, row))
        model = copy.deepcopy(self._forecaster.model)
        parts = Split(self._parts.train, self._parts.validation, row)
        refit_to(model, self._linear, parts, self._rolled)
        return model


def _forecast(model: ForecastModel, batch: Batch, *, refitted: bool) -> Forecast:
    if model.choice is None:
        return model(batch.window)
    fitted = model.choice.fitted(model, refitted=refitted)
    parts = model.choice.parts(model, batch.window, fitted, model.choice.unread())
    return model.unscaled(model.choice.of_parts(parts, fitted, None), batch.window)


def _add(
    rows: dict[str, list[Any]], table: Table, model: ForecastModel, batch: Batch, found: Forecast
) -> None:
    """Add the rows of one origin."""
    spec, row = model.spec, int(batch.rows[0])
    steps = range(spec.horizon)
    if table.times is None or table.calendar is None:
        origin, times = table.before + row - 1, [table.before + row + step for step in steps]
    else:
        origin, *times = present(table.calendar, table.times[row - 1 : row + spec.horizon])
    columns: dict[str, Any] = {"origin": [origin] * spec.horizon}
    columns |= {spec.time or "row": times, "step": [step + 1 for step in steps]}
    for j, name in enumerate(spec.targets):
        columns[name] = found.point[0, :, j].tolist()
        for k, level in enumerate(spec.quantiles):
            columns[f"{name}_q{level:g}"] = found.quantiles[0, :, j, k].tolist()
        truth = torch.where(batch.present, batch.future, torch.nan)
        columns[f"{name}_actual"] = truth[0, :, j].tolist()
    for name, values in columns.items():
        rows.setdefault(name, []).extend(values)


def _scores(
    frame: pd.DataFrame, model: ForecastModel, simple: dict[str, list[np.ndarray]]
) -> pd.DataFrame:
    spec, found = model.spec, []
    for j, name in enumerate(spec.targets):
        truth = frame[f"{name}_actual"].to_numpy()
        held = float("nan")
        if len(spec.quantiles) > 1:
            low, high = (frame[f"{name}_q{spec.quantiles[i]:g}"] for i in (0, -1))
            held = float(((low <= truth) & (truth <= high))[~np.isnan(truth)].mean())
        points = {"model": frame[name].to_numpy()}
        points |= {m: np.concatenate([x[:, j] for x in parts]) for m, parts in simple.items()}
        for method, point in points.items():
            error = (point - truth)[~np.isnan(truth)]
            mae, rmse = float(np.abs(error).mean()), float(np.sqrt((error**2).mean()))
            own = held if method == "model" else float("nan")
            found.append({"target": name, "method": method, "mae": mae, "rmse": rmse, "held": own})
    return pd.DataFrame(found)
