"""The forecaster, an estimator for data frames: fit, predict, evaluate, save, load."""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from longstate._facts import read
from longstate.errors import InputError
from longstate.models import ForecastModel, ForecastSpec, make_layer
from longstate.models._choice import Choice
from longstate.models._saving import build, check_blocks, describe_layers, layer_maker
from longstate.train import _checkpoint as checkpoint
from longstate.train import _ranks as ranks
from longstate.train._checkpoint import CHECKPOINT, MODEL
from longstate.train._choice import choose
from longstate.train._fitted import FittedForecaster
from longstate.train._forecast_frame import remarks
from longstate.train._forecast_record import ForecastRecord, begun_run, facts_of, training_notes
from longstate.train._forecast_task import ForecastTask
from longstate.train._frame import Data, Names
from longstate.train._history import TrainingHistory
from longstate.train._irregular import check_layers
from longstate.train._keeping import Keeping, Progress
from longstate.train._loop import train
from longstate.train._memory import check_memory
from longstate.train._old_names import renamed
from longstate.train._patterns import default_gate, layer_names, layer_pattern
from longstate.train._prepare import CONSTANT, Bounds, plan, run_identity, solve
from longstate.train._read_table import Roles, training_table
from longstate.train._settings import Size, Training, check_sizes
from longstate.train._table import Table
from longstate.train._time_step import Timing
from longstate.train._windows import Split


class Forecaster(FittedForecaster):
    """Simple methods, and a state space network for what a linear regression leaves over.

    The forecast is a weighted mean of the last value, seasonal naive, exponential smoothing, ridge
    regressions and the network, with weights from validation; `choice` tells them.

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
        super().__init__()
        self._made: list[dict[str, Any]] | None = None  # layers, where `size` does not tell

    def fit(
        self,
        frame: Data,
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
        split: Sequence[float] = (0.7, 0.1, 0.2),
        refit: bool = True,
        out: str | Path | None = None,
        show: Callable[[Progress], None] | None = None,
    ) -> "Forecaster":
        """Train on the first part of `frame`; the second part decides when to stop, and the third
        is for evaluation.

        Args:
            frame: one row per time step, oldest first; also a Series or an array. In a panel, one
                row per series and time, in any order.
            target: column or columns to forecast; None if there is only one.
            covariates: columns known up to now. known: columns known for the future too.
            time: column with the times; None takes an index of times, or the column that is named
                (date, time, ds, ts, quarter, last_updated...) or written like one.
            id: column that names the series of a panel: one model for all of them, each with its
                own scale. A frame with the columns unique_id, ds and y is taken as one.
            static: columns that a series has once; numbers or text.
            wide: take the target columns as the series of a panel.
            step, zone, holidays: of the times, if they cannot be found in the data; see `Timing`.
            lower, upper, transform: of the targets; see `Bounds`.
            split: shares of the rows for training, validation and test.
            refit: fit the linear methods to all rows at the end, for `predict`. `evaluate` uses
                what was fitted without the test part.
            out: folder for the checkpoint and the model. A run that was stopped there is continued.
            show: called with the progress after each step.

        Raises:
            InputError: data, settings or folder cannot be used.
        """
        timing = Timing(step, zone, tuple(str(day) for day in holidays))
        roles = Roles(target, covariates, known, time, id, static, wide)
        table, found = training_table(frame, roles, timing)
        check_layers(table.calendar, self.layers)
        bounds = Bounds(lower, upper, transform)
        begun = begun_run(out)
        window = self.window or begun.get("window")
        spec, parts, table = plan(
            table, self.horizon, window, self.season, self.quantiles, split, bounds
        )
        facts = facts_of(table, parts, split, found)
        with checkpoint.run_folder(out):
            spec = dataclasses.replace(spec, gate=begun.get("gate") or default_gate(self.layers))
            self._made = None if self.training.shrink_to else self._made
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(self.seed)
                check_memory(lambda: self._build(spec))
                self._model = self._build(spec)
            self._fit(table, spec, parts, out, show, facts, refit)
        return self

    def with_model(self, model: ForecastModel) -> "Forecaster":
        """A copy that forecasts by another model of the same columns and lengths."""
        new = copy.copy(self)
        new._model, new._made = model, describe_layers(model.backbone)
        return new

    def save(self, path: str | Path) -> None:
        """Write the model to one safetensors file."""
        facts = {
            "spec": dataclasses.asdict(self.model.spec),
            "layers": ",".join(self.layers),
            "size": dataclasses.asdict(self.size),
            "training": dataclasses.asdict(self.training),
            "seed": self.seed,
            **({} if self._made is None else {"made": self._made}),
            **self.facts,
        }
        checkpoint.save(Path(path), "forecaster", dict(self.model.state_dict()), facts)

    @classmethod
    def load(cls, path: str | Path) -> "Forecaster":
        """Read a file of `save`, or a folder of `fit(out=...)`."""
        path = Path(path)
        path = path / MODEL if path.is_dir() else path
        tensors, raw = checkpoint.load(path, "forecaster")
        facts = renamed(raw)
        found = read(ForecastRecord, facts, f"the description in {path}")
        spec = ForecastSpec.of(found.spec, f"{path}: spec")
        found.check_until(spec)
        check_blocks(found.size.n_layers, tensors, path)
        self = cls(
            spec.horizon,
            window=spec.window,
            layers=found.layers,
            quantiles=spec.quantiles,
            season=spec.season,
            size=found.size,
            training=found.training,
            seed=found.seed,
        )
        self._made = found.made
        self._model = build(lambda: self._build(spec, tensors), tensors, path)
        settings = ("spec", "layers", "size", "training", "seed", "made")
        self.facts = {name: value for name, value in facts.items() if name not in settings}
        return self

    def _build(self, spec: ForecastSpec, tensors: Iterable[str] = ()) -> ForecastModel:
        size = self.size
        made = (layer_maker(x, f"made[{i}]") for i, x in enumerate(self._made or ()))
        layers: Any = lambda _: next(made)()  # noqa: E731
        if self._made is None:
            names = layer_names(self.layers, size.n_layers)
            layers = [partial(make_layer, name, d_state=size.d_state) for name in names]
        sizes: Any = {"d_model": size.d_model, "n_layers": size.n_layers, "dropout": size.dropout}
        model = ForecastModel(spec, layers, **sizes)
        model.choice = Choice.of(spec, tensors)
        return model

    def _fit(
        self,
        table: Table,
        spec: ForecastSpec,
        parts: Split,
        out: str | Path | None,
        show: Callable[[Progress], None] | None,
        facts: dict[str, Any],
        refit: bool,
    ) -> None:
        constant, linear = solve(self.model, table, parts)
        training, validation = linear.folds[-1].fit, linear.folds[-1].check
        more = [CONSTANT.format(name) for name in constant] + remarks(table, self.model)
        task = ForecastTask(self.model, training, validation, self.training, seed=self.seed)
        settings = {**dataclasses.asdict(self.size), **dataclasses.asdict(self.training)}
        settings |= {"layers": ",".join(self.layers), "seed": self.seed}
        identity = run_identity(table, spec, parts, settings)

        def ended(history: TrainingHistory) -> None:
            if self.training.shrink_to is not None:
                self._made = describe_layers(self.model.backbone)
            chosen = choose(self.model.eval(), linear, parts, refit=refit)
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
