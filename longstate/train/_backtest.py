"""Forecasts from several origins, each from the rows before it alone.

    rows      |--- training ---|- validation -|------ unseen ------|
    origins                                   o      o      o
    forecasts                                 [h]    [h]    [h]

In a panel an origin is a moment: all series that have rows there are forecast.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import torch

from longstate.errors import InputError, expect_whole
from longstate.models import Forecast, ForecastModel
from longstate.train._baselines import fit_linear, last_value, seasonal_naive
from longstate.train._choice import refit_to, rolling
from longstate.train._compared import Compared, forecasts_of, scores_of
from longstate.train._folds import folds
from longstate.train._origin import cut
from longstate.train._panel_table import named, resized, with_units
from longstate.train._roll import BATCH
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
        forecasts: one row for each origin, series and step: the id of the series, in a panel; the
            origin (time or number of the last row that was read), the time, the step from 1; and
            for each target its forecast, quantiles and true value (`NAME_actual`, nan in gaps).
        scores: one row for each target and method: mean absolute error and root of the mean squared
            error, and the share of true values in the widest band. Errors are in the target's own
            unit; in a panel in standard deviations of each series, as in an evaluation.
        series: the same for each series of a panel, in the target's own unit, and `scaled`, the
            root in standard deviations; empty for a single series.
        notes: sentences on the data, and on what was fitted again.
    """

    forecasts: pd.DataFrame
    scores: pd.DataFrame
    series: pd.DataFrame
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
    model, spec = forecaster.model, forecaster.model.spec
    windows = Windows(table, spec, first)
    check_size(model, table, table.span)
    at = table.places.position[windows.origins]
    moments = np.unique(at)
    some = np.linspace(0, len(moments) - 1, min(origins, len(moments)))
    picked = moments[np.unique(some.round().astype(int))]
    again = _Refits(forecaster, table, first, network) if every else None
    found = []
    for i, moment in enumerate(picked.tolist()):
        rows = windows.origins[at == moment]
        if show is not None:
            show(table.label(int(rows[0]) - 1))
        if again is not None and i % every == 0:
            model = again.before(moment)
        now = windows.on(with_units(table, model.spec, moment, model.scale, strict=True))
        for part in np.array_split(rows, -(-len(rows) // BATCH)):
            found.append(_compared(model, now, now.at(part), refitted=again is not None))
    compared = Compared.of_all(found)
    what = "Nothing was fitted again: forecasts use what was fitted to the training part."
    if again is not None:
        fitted = "Everything was trained" if network else "Ridge and line were fitted"
        what = f"{fitted} again at {-(-len(picked) // every)} of {len(picked)} origins."
    notes = [*table.notes, what]
    if len(picked) < origins:
        notes.append(f"The unseen rows hold {len(picked)} origins; {origins} were asked for.")
    without = np.setdiff1d(np.arange(len(table.places.names)), table.places.of(compared.rows))
    if len(without):
        few = named([table.places.names[i] for i in without])
        notes.append(f"{few} have no window and horizon at these origins.")
    frame = forecasts_of(compared, table, spec)
    return Backtest(frame, *scores_of(compared, table, forecaster.model), tuple(notes))


class _Refits:
    """Models that were fitted to the rows before an origin alone."""

    def __init__(self, forecaster: "FittedForecaster", table: Table, first: int, network: bool):
        self._forecaster, self._table, self._network = forecaster, table, network
        model, split = forecaster.model, forecaster.facts["split"]
        if model.choice is None:
            raise InputError("this forecaster was trained by an older version; train it again")
        if first < model.spec.window + 2 * model.spec.horizon:
            raise InputError(
                "refit needs the rows of training in the data; it has "
                f"{first} before the first unseen one"
            )
        if not network:
            if table.panel is not None:  # the scale of others needs rows after an origin
                trained = set(model.spec.series) & set(table.panel.names)
                if not trained:
                    raise InputError("refit needs the series of training in the data; it has none")
                kept = cut(table, table.span, trained)
                table = resized(kept, model.spec.window + model.spec.horizon, 0)
            train = table.places.position_of(split[0] / (split[0] + split[1]), first)
            self._parts = Split(train, first, first)
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


def _compared(model: ForecastModel, windows: Windows, batch: Batch, *, refitted: bool) -> Compared:
    """The forecasts of one batch."""
    forecast = _forecast(model, batch, refitted=refitted)
    return Compared(
        rows=batch.rows,
        points={
            "model": forecast.point.numpy(),
            "last value": last_value(windows, batch).numpy(),
            "seasonal naive": seasonal_naive(windows, batch).numpy(),
        },
        quantiles=forecast.quantiles.numpy(),
        truth=torch.where(batch.present, batch.future, torch.nan).numpy(),
    )


def _forecast(model: ForecastModel, batch: Batch, *, refitted: bool) -> Forecast:
    if model.choice is None:
        return model(batch.window)
    fitted = model.choice.fitted(model, refitted=refitted)
    parts = model.choice.parts(model, batch.window, fitted, model.choice.unread())
    return model.unscaled(model.choice.of_parts(parts, fitted, None), batch.window)
