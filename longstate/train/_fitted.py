"""What a fitted forecaster does with data: predict, evaluate."""

import dataclasses
import warnings
from typing import Any

import pandas as pd

from longstate._facts import read
from longstate.errors import InputError
from longstate.models import ForecastModel
from longstate.models._remarks import unseen_columns
from longstate.train._chosen import Chosen
from longstate.train._evaluate import evaluate
from longstate.train._evaluation import ForecastEvaluation
from longstate.train._forecast_frame import check_reach, first_unseen, forecast_frame, remarks
from longstate.train._frame import Data
from longstate.train._history import Evaluated, TrainingHistory
from longstate.train._panel_forecast import forecast_panel
from longstate.train._panel_table import resized, with_units
from longstate.train._read_table import table_for
from longstate.train._table import Table
from longstate.train._windows import Windows


class FittedForecaster:
    """The part of `Forecaster` that needs no training."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self._model: ForecastModel | None = None

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

    def predict(self, frame: Data, *, method: str | None = None) -> pd.DataFrame:
        """Forecast the `horizon` rows after the last row with a target.

        Args:
            frame: the columns of training, with at least `window` rows; after them, where columns
                are known in advance, `horizon` rows with those columns filled and empty targets.
            method: one method alone: "network", "line", "ridge", "smoothing", "seasonal naive" or
                "last value". None for their weighted mean.

        Returns:
            The time (or row number) and, for each target, its column and one for each quantile; in
            a panel the id of the series before them, and all series one after the other.
            `attrs["notes"]` has sentences about corrections of the data.

        Raises:
            InputError: the data or the method cannot be used, or only the last row of the window is
                observed.
        """
        table = self._table(frame)
        spec = self.model.spec
        if table.panel is not None:
            return forecast_panel(table, self.model, method)
        check_reach(table, spec)
        forecast, lacks = self.model.checked(Windows.last(table, spec), method)
        notes = [*([] if lacks is None else [lacks]), *unseen_columns(spec, table.since)]
        notes += remarks(table, self.model)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        return forecast_frame(table, spec, forecast, notes)

    def evaluate(self, frame: Data) -> ForecastEvaluation:
        """Score the rows of `frame` that were not used for training or validation."""
        table = self._table(frame)
        first = first_unseen(table, self.facts, self.model.spec.horizon)
        scored = evaluate(self.model, Windows(table, self.model.spec, first))
        chosen = "" if self.choice is None else self.choice.words()
        notes = (*scored.notes, *remarks(table, self.model))
        return dataclasses.replace(scored, notes=notes, chosen=chosen)

    def _table(self, data: Data) -> Table:
        spec = self.model.spec
        table = with_units(table_for(data, spec), spec, trained=self.model.scale)
        return resized(table, spec.window + spec.horizon, 0)
