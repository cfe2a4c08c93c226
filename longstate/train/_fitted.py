"""What a fitted forecaster does with data: predict, update, evaluate, backtest."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pandas as pd

from longstate._facts import read
from longstate.errors import InputError
from longstate.models import ForecastModel
from longstate.train._backtest import Backtest, check_backtest, run_backtest
from longstate.train._chosen import Chosen
from longstate.train._evaluate import evaluate
from longstate.train._evaluation import ForecastEvaluation
from longstate.train._forecast_frame import first_unseen, remarks
from longstate.train._forecast_plot import draw_forecast
from longstate.train._frame import Data
from longstate.train._history import Evaluated, TrainingHistory
from longstate.train._origin import Origin
from longstate.train._panel_table import resized, with_units
from longstate.train._predict import forecast_table
from longstate.train._read_table import table_for
from longstate.train._recent import Recent
from longstate.train._roll import pieces_of
from longstate.train._table import Table
from longstate.train._windows import Windows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class FittedForecaster:
    """The part of `Forecaster` that needs no training.

    Args:
        facts: of the training; see `ForecastRecord`.
    """

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._model: ForecastModel | None = None
        self._recent: Recent | None = None

    @property
    def model(self) -> ForecastModel:
        if self._model is None:
            raise InputError("the forecaster is not fitted yet; call fit first")
        return self._model

    @property
    def choice(self) -> Chosen | None:
        """How the forecast was chosen; None for runs of older versions."""
        found = self.facts.get("choice")
        return None if found is None else read(Chosen, found, "the choice")

    @property
    def history(self) -> TrainingHistory:
        raw = self.facts["history"]
        return TrainingHistory(**{**raw, "looks": tuple(Evaluated(**x) for x in raw["looks"])})

    def predict(
        self,
        frame: Data | None = None,
        *,
        method: str | None = None,
        horizon: int | None = None,
        origin: Origin | None = None,
    ) -> pd.DataFrame:
        """Forecast the rows after the last row with a target, or after `origin`.

        Args:
            frame: the columns of training, with at least `window` rows; after them, where columns
                are known in advance, `horizon` rows with those columns filled and empty targets.
                None forecasts from the rows of `fit` and `update`.
            method: one method alone: "network", "line", "ridge", "smoothing", "seasonal naive" or
                "last value". None for their weighted mean.
            horizon: number of rows; None takes that of training. Beyond it, each further part reads
                the forecast before it, and bands there are not calibrated; a note says so.
            origin: last row that is read: its time, or its number from 0 (an integer). In a panel a
                time for all series, or the number of a row of each where there are no times. Later
                targets and covariates are not used. None takes the last row with a target.

        Returns:
            The time (or row number) and, for each target, its column and one for each quantile; in
            a panel the id of the series before them, and all series one after the other.
            `attrs["notes"]` has sentences about corrections of the data.

        Raises:
            InputError: the data, method, horizon or origin cannot be used, or only the last row of
                the window is observed.
        """
        pieces_of(self.model.spec, horizon)  # before the data is read
        table = self._table(frame, origin)
        return forecast_table(table, self.model, method, horizon, origin)

    def plot(
        self,
        frame: Data | None = None,
        *,
        forecast: pd.DataFrame | None = None,
        target: str | None = None,
        series: Any = None,
        rows: int | None = None,
        ax: "Axes | None" = None,
    ) -> "Axes":
        """Draw the history, the forecast and its bands with matplotlib.

        Args:
            frame: as `predict` takes it; None draws after the rows of `fit` and `update`, of which
                about `window` are kept.
            forecast: of `predict`, for the same frame; None makes it. Rows of the frame at its
                times are drawn too.
            target: one of the targets; None draws the first.
            series: id of a series of a panel; None draws the first.
            rows: of history before the forecast; None takes four horizons.
            ax: axes to draw on; None makes a figure.

        Returns:
            The axes; `ax.figure.savefig(path)` saves the picture.

        Raises:
            InputError: the data cannot be used, or there is no such target or series.
        """
        table = self._table(frame)
        if forecast is None:
            forecast = self.predict(frame)
        return draw_forecast(table, self.model.spec, forecast, target, series, rows, ax)

    def update(self, rows: Data) -> "FittedForecaster":
        """Add rows that follow those of `fit` and earlier updates; `predict()` forecasts from them.

        Nothing is fitted again. The last `window` rows are kept, not the state of the network:
        each forecast subtracts the last value from the whole window, so its input is another one.

        Args:
            rows: the columns of training, oldest first, later than the rows before; at the end,
                where columns are known in advance, rows with these alone. After `load`, the first
                update gives at least `window` rows. In a panel rows of some or all series, in any
                order; new series begin.

        Raises:
            InputError: the rows cannot be used, or do not follow. The forecaster is unchanged.
        """
        recent = (self._recent or Recent.nothing(self.model.spec)).updated(rows)
        recent.check()
        self._recent = recent
        return self

    def evaluate(self, frame: Data) -> ForecastEvaluation:
        """Score the rows of `frame` that were not used for training or validation."""
        table = self._table(frame)
        first = first_unseen(table, self.facts, self.model.spec.horizon)
        scored = evaluate(self.model, Windows(table, self.model.spec, first))
        chosen = "" if self.choice is None else self.choice.words()
        notes = (*scored.notes, *remarks(table, self.model))
        return dataclasses.replace(scored, notes=notes, chosen=chosen)

    def backtest(
        self,
        frame: Data,
        *,
        origins: int = 10,
        refit: bool | int = False,
        network: bool = False,
        show: Callable[[str], None] | None = None,
    ) -> Backtest:
        """Forecast from several origins in the rows that were not used for training or validation,
        each from the rows before it alone.

        Args:
            frame: the columns of training. With `refit` it has the rows of training too.
            origins: number of origins, evenly spaced. In a panel moments, at which all series are
                forecast that have a window and a horizon there.
            refit: fit ridge and line again to all rows before an origin: True at each, n at every
                n-th. False uses what was fitted to the training part.
            network: train everything again at these origins, the network too. Slow.
            show: called with the time of each origin.

        Raises:
            InputError: the data cannot be used, or there is no unseen row.
        """
        every = check_backtest(origins, refit, network)
        table = self._table(frame)
        first = first_unseen(table, self.facts, self.model.spec.horizon)
        return run_backtest(self, table, first, origins, every, network, show)

    def _trained_again(self, table: Table) -> ForecastModel:
        """The model of a new training on these rows, with the same settings."""
        raise NotImplementedError

    def _table(self, data: Data | None, origin: Origin | None = None) -> Table:
        spec = self.model.spec
        if data is not None:
            table = table_for(data, spec, origin)
        elif self._recent is None:
            raise InputError("there are no rows to forecast from; give predict a frame, or update")
        elif origin is not None:
            raise InputError("an origin needs a frame; predict() forecasts after the last row")
        else:
            table = self._recent.table
        table = with_units(table, spec, trained=self.model.scale)
        return resized(table, spec.window + spec.horizon, 0)
