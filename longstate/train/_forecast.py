"""The forecaster, an estimator for data frames: fit, predict, evaluate, save, load."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch

from longstate.errors import InputError
from longstate.models import ForecastModel, ForecastSpec
from longstate.models._saving import describe_layers
from longstate.train import _checkpoint as checkpoint
from longstate.train import _ranks as ranks
from longstate.train._checkpoint import CHECKPOINT, MODEL
from longstate.train._choice import choose
from longstate.train._forecast_frame import remarks
from longstate.train._forecast_record import begun_run, facts_of, training_notes
from longstate.train._forecast_stored import StoredForecaster
from longstate.train._forecast_task import ForecastTask
from longstate.train._frame import Data, Names, as_frame
from longstate.train._history import TrainingHistory
from longstate.train._irregular import check_layers
from longstate.train._keeping import Keeping, Progress
from longstate.train._long_table import table_of_file
from longstate.train._loop import train
from longstate.train._memory import check_memory
from longstate.train._patterns import default_gate, layer_names, layer_pattern
from longstate.train._prepare import (
    CONSTANT,
    Bounds,
    default_split,
    plan,
    run_identity,
    solve,
)
from longstate.train._read_table import Roles
from longstate.train._recent import Recent
from longstate.train._settings import Size, Training, check_sizes
from longstate.train._table import Table
from longstate.train._time_step import Timing
from longstate.train._tune import SEARCHED, Tuning, check_no_search, remark, search
from longstate.train._windows import Split


class _Data(NamedTuple):
    """What `fit` was given, as far as a training reads it."""

    table: Table
    notes: tuple[str, ...]
    bounds: Bounds
    split: Sequence[float]
    refit: bool


class Forecaster(StoredForecaster):
    """Simple methods, and a state space network for what a linear regression leaves over.

    The forecast is a weighted mean of the last value, seasonal naive, exponential smoothing, ridge
    regressions, an iterated map and the network, with weights from validation; `choice` tells them.

        Forecaster(horizon=96).fit(frame, target="OT").predict(frame)

    Args:
        horizon: number of rows to forecast.
        window: number of rows that a forecast reads; None takes 336, or less for short data.
        layers: name of a class in `longstate.layers`, in any case; or several (a list, or
            separated by commas): a pattern that is repeated over the blocks.
        quantiles: levels besides the mean; empty for none.
        season: rows per season for the seasonal naive baseline; None finds it from the time step.
        size: of the state space part. training: settings of the training.
        seed: of weights, order of the windows, and dropout.
    """

    def __init__(
        self,
        horizon: int,
        *,
        window: int | None = None,
        layers: str | Sequence[str] = "s4d",
        quantiles: Sequence[float] = (0.1, 0.5, 0.9),
        season: int | None = None,
        size: Size = Size(),  # noqa: B008
        training: Training = Training(),  # noqa: B008
        seed: int = 0,
    ):
        check_sizes(horizon=horizon, window=window, season=season, seed=seed)
        if any(not 0 < q < 1 for q in quantiles) or len(set(quantiles)) < len(quantiles):
            raise InputError(
                f"quantiles must be different numbers between 0 and 1; got {list(quantiles)}"
            )
        self.layers = layer_pattern(layers)
        layer_names(self.layers, size.n_layers)
        self.horizon, self.window, self.season = horizon, window, season
        self.quantiles = tuple(sorted(float(q) for q in quantiles))
        self.size, self.training, self.seed = size, training, seed
        self.tail: pd.DataFrame | None = None  # of a file
        super().__init__()

    def fit(
        self,
        frame: Data | str | Path,
        target: Names | None = None,
        *,
        covariates: Names = (),
        known: Names = (),
        time: str | int | None = None,
        id: str | int | None = None,
        static: Names = (),
        wide: bool = False,
        step: str | None = None,
        zone: str | None = None,
        holidays: Iterable[Any] = (),
        lower: float | None = None,
        upper: float | None = None,
        transform: str = "none",
        split: Sequence[float] | None = None,
        refit: bool = True,
        tune: Tuning | float | None = None,
        out: str | Path | None = None,
        show: Callable[[Progress], None] | None = None,
    ) -> "Forecaster":
        """Train on the first part of `frame`; the second part decides when to stop, and the third
        is for evaluation.

        Args:
            frame: one row per time step, oldest first; also a Series or an array. In a panel, one
                row per series and time, in any order. Or the path of a CSV, Parquet or Arrow file:
                the numbers of a large one are memory-mapped in `out`, and `tail` has its last rows.
            target: column or columns to forecast; None if there is only one.
            covariates: columns known up to now. known: columns known for the future too.
            time: column with the times; None takes an index of times, or the column that is named
                (date, time, ds, ts, quarter, last_updated...) or written like one.
            id: column that names the series of a panel: one model for all of them, each with its
                own scale. A frame with the columns unique_id, ds and y is taken as one.
            static: columns that a series has once; numbers or text.
            wide: take the target columns as the series of a panel.
            step, zone, holidays: of the times, if they cannot be found in the data; see `Timing`.
            lower, upper, transform: of the targets; see `Bounds`. Counts get a lower of 0, unless
                it is -inf.
            split: shares of the rows for training, validation and test. None takes 0.7, 0.1 and
                0.2; of short data validation and test get one horizon at least.
            refit: fit the linear methods to all rows at the end, for `predict`. `evaluate` uses
                what was fitted without the test part.
            tune: minutes for a search for window, layers, sizes, dropout and learning rate by the
                error on validation. It is continued from `out`, and Ctrl-C keeps the best so far.
            out: folder for the checkpoint and the model. A run that was stopped there is continued.
            show: called with the progress after each step.

        Raises:
            InputError: data, settings or folder cannot be used.
        """
        timing = Timing(step, zone, tuple(str(day) for day in holidays))
        roles = Roles(target, covariates, known, time, id, static, wide)
        table, found, rows, before = table_of_file(frame, roles, timing, out)
        check_layers(table.calendar, self.layers)
        shares, short = default_split(table, self.horizon) if split is None else (split, ())
        bounds, counts = Bounds(lower, upper, transform).natural(table)
        data = _Data(table, (*found, *short, *counts), bounds, shares, refit)
        if tune is None:
            self._train(data, out, show)
        else:
            self._tune(data, tune if isinstance(tune, Tuning) else Tuning(tune), out, show)
        self.tail = None if rows is frame else as_frame(rows)
        if table.some is not None:  # of the test part, and of the future
            unseen = len(table.codes) - self.facts["seen_rows"]
            self.tail = as_frame(rows).tail(unseen + self.model.spec.window)
        self._recent = Recent.nothing(self.model.spec).updated(rows).after(before)
        return self

    def _train(
        self, data: _Data, out: str | Path | None, show: Callable[[Progress], None] | None
    ) -> None:
        check_layers(data.table.calendar, self.layers)
        check_no_search(out)
        begun = begun_run(out)
        window = self.window or begun.get("window")
        spec, parts, table = plan(
            data.table, self.horizon, window, self.season, self.quantiles, data.split, data.bounds
        )
        with checkpoint.run_folder(out):
            spec = dataclasses.replace(spec, gate=begun.get("gate") or default_gate(self.layers))
            self._made = None if self.training.shrink_to else self._made
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                check_memory(lambda: self._build(spec))
                self._model = self._build(spec)
            self._fit(data._replace(table=table), spec, parts, out, show)

    def _fit(
        self,
        data: _Data,
        spec: ForecastSpec,
        parts: Split,
        out: str | Path | None,
        show: Callable[[Progress], None] | None,
    ) -> None:
        facts = facts_of(data.table, parts, data.split, data.notes)
        constant, linear = solve(self.model, data.table, parts)
        training, validation = linear.folds[-1].fit, linear.folds[-1].check
        more = [CONSTANT.format(name) for name in constant] + remarks(data.table, self.model)
        task = ForecastTask(self.model, training, validation, self.training, seed=self.seed)
        identity = run_identity(data.table, spec, parts, self._settings())

        def ended(history: TrainingHistory) -> None:
            if self.training.shrink_to is not None:
                self._made = describe_layers(self.model.backbone)
            chosen = choose(self.model.eval(), linear, parts, refit=data.refit)
            self.facts = {
                **facts,
                "history": dataclasses.asdict(history),
                "choice": dataclasses.asdict(chosen),
                "notes": [*facts["notes"], *more, *training_notes(history)],
            }
            if out is not None and ranks.rank() == 0:
                self.save(Path(out) / MODEL)

        keeping = Keeping(None if out is None else Path(out) / CHECKPOINT, identity)
        train(task, self.training, seed=self.seed, keeping=keeping, show=show, ended=ended)

    def _settings(self) -> dict[str, Any]:
        """Of layers and training, for the identity of a run."""
        settings = {**dataclasses.asdict(self.size), **dataclasses.asdict(self.training)}
        return settings | {"layers": ",".join(self.layers), "seed": self.seed}

    def _tune(
        self,
        data: _Data,
        tuning: Tuning,
        out: str | Path | None,
        show: Callable[[Progress], None] | None,
    ) -> None:
        identity = {"data": data.table.digest(data.table.span)[:16], "horizon": self.horizon}
        identity |= {"window": self.window, "season": self.season, "quantiles": self.quantiles}
        identity |= {"split": data.split, **dataclasses.asdict(data.bounds), **self._settings()}
        texts = {name: str(value) for name, value in identity.items()}
        folder = None if out is None else Path(out)
        with checkpoint.run_folder(folder):
            found = search(self, tuning, texts, folder, lambda one, to: one._train(data, to, show))
        vars(self).update(vars(found.forecaster))
        notes = [note for note in self.facts["notes"] if not note.startswith(SEARCHED)]
        self.facts = {**self.facts, "notes": [*notes, remark(found)]}
        if folder is not None:
            self.save(folder / MODEL)

    def _trained_again(self, table: Table) -> ForecastModel:
        spec = self.model.spec
        new = Forecaster(
            spec.horizon,
            window=spec.window,
            layers=self.layers,
            quantiles=spec.quantiles,
            season=spec.season,
            size=self.size,
            training=self.training,
            seed=self.seed,
        )
        bounds = Bounds(spec.lower, spec.upper, spec.transform)
        new._train(_Data(table, (), bounds, self.facts["split"], True), None, None)
        return new.model
