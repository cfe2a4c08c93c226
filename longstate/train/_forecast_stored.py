"""The file of a forecaster: its model, and what it takes to go on with it."""

import copy
import dataclasses
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from longstate._facts import read
from longstate.models import ForecastModel, ForecastSpec, make_layer
from longstate.models._choice import Choice
from longstate.models._layer_names import options_to_train
from longstate.models._saving import build, check_blocks, describe_layers, layer_maker
from longstate.train import _checkpoint as checkpoint
from longstate.train._checkpoint import MODEL
from longstate.train._fitted import FittedForecaster
from longstate.train._forecast_record import ForecastRecord
from longstate.train._frame import Data
from longstate.train._old_names import renamed
from longstate.train._patterns import layer_names
from longstate.train._settings import Size, Training
from longstate.train._summary import summary

Kind = TypeVar("Kind", bound="StoredForecaster")


class StoredForecaster(FittedForecaster):
    """The part of `Forecaster` that saves and loads."""

    layers: tuple[str, ...]
    size: Size
    training: Training
    seed: int

    def __init__(self) -> None:
        super().__init__()
        self._made: list[dict[str, Any]] | None = None  # layers, where `size` does not tell

    def with_model(self: Kind, model: ForecastModel) -> Kind:
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

    def summary(self, frame: Data | None = None) -> str:
        """What it forecasts, what the forecast is made of, what it was trained on: a plain text.

        Args:
            frame: adds errors and coverage on its rows that were not used for training, as
                `evaluate` gives them.

        Raises:
            InputError: the data cannot be used, or has no such rows.
        """
        return summary(self, None if frame is None else self.evaluate(frame))

    @classmethod
    def load(cls: type[Kind], path: str | Path) -> Kind:
        """Read a file of `save`, or a folder of `fit(out=...)`."""
        path = Path(path)
        path = path / MODEL if path.is_dir() else path
        tensors, raw = checkpoint.load(path, "forecaster")
        facts = renamed(raw)
        found = read(ForecastRecord, facts, f"the description in {path}")
        spec = ForecastSpec.of(found.spec, f"{path}: spec")
        found.check_until(spec)
        check_blocks(found.size.n_layers, tensors, path)
        make: Any = cls  # whose arguments are those of `Forecaster`
        self: Kind = make(
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
            layers = [
                partial(make_layer, name, **options_to_train(name, d_state=size.d_state))
                for name in names
            ]
        sizes: Any = {"d_model": size.d_model, "n_layers": size.n_layers, "dropout": size.dropout}
        model = ForecastModel(spec, layers, **sizes)
        model.choice = Choice.of(spec, tensors)
        return model
