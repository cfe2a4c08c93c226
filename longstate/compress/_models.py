"""Put reduced layers into a model, and update the model's description."""

import copy
from collections.abc import Mapping
from typing import Any

from torch import nn

from longstate import layers as known
from longstate.errors import InputError
from longstate.layers import Layer
from longstate.models import ForecastModel, LanguageModel
from longstate.models._exchange import described, mixers, put_at
from longstate.models._series import SeriesModel
from longstate.train import Forecaster, TextModel
from longstate.train._series_estimator import SeriesEstimator


def inner(model: Any) -> nn.Module:
    """The module of a model or an estimator.

    Raises:
        InputError: it is neither.
    """
    if isinstance(model, Forecaster | TextModel):
        return model.model
    if isinstance(model, SeriesEstimator):
        return model.network_
    if not isinstance(model, nn.Module):
        raise InputError(
            "model must be a Forecaster, a TextModel, a Classifier, a Regressor, a model or a "
            f"layer; got {type(model).__name__}"
        )
    return model


def input_of(model: Any, data: Any) -> Any:
    """Data as the module of a model reads it: series for a classifier become tensors (b, t, c).

    Raises:
        InputError: the model cannot read it.
    """
    if not isinstance(model, SeriesEstimator) or data is None:
        return data
    if callable(data):
        raise InputError(
            f"data of a {type(model).__name__} must be series, as for predict; got a function"
        )
    return model.inputs(data)


def outer(model: Any, small: nn.Module) -> Any:
    """An object of the kind of `model` with the smaller module."""
    if isinstance(model, Forecaster):
        assert isinstance(small, ForecastModel)
        return model.with_model(small)
    if isinstance(model, TextModel):
        assert isinstance(small, LanguageModel)
        return model.with_model(small)
    if isinstance(model, SeriesEstimator):
        assert isinstance(small, SeriesModel)
        return model.with_network(small)
    return small


def with_layers(module: nn.Module, layers: Mapping[str, Layer]) -> nn.Module:
    """A copy of a model with other layers and the matching description."""
    memo: dict[int, Any] = {id(module.get_submodule(name)): new for name, new in layers.items()}
    small = copy.deepcopy(module, memo)  # deepcopy does not copy what is in the memo
    for name, new in layers.items():
        put_at(small, name, new)
    if isinstance(module, LanguageModel) and isinstance(small, LanguageModel):
        small.spec = described(module.spec, mixers(module), mixers(small))
    return small


def check_layer(name: str, layer: Any) -> None:
    """Refuse a layer without a method that changes its state.

    Raises:
        InputError: it is not a layer of this package, or it has no such method.
    """
    kind = type(layer).__name__
    if known.prescription(layer) is not None:
        raise InputError(
            f"{name} has a prescription, which a smaller layer might not keep; "
            "call longstate.layers.release(layer) first"
        )
    if getattr(known, kind, None) is not type(layer):
        raise InputError(
            f"a {kind} is no layer of longstate.layers; reduce the model before "
            "prepare_for_decoding"
        )
    verbs = ("with_system", "with_oscillators", "with_states", "with_projection")
    if not any(hasattr(layer, verb) for verb in verbs):
        raise InputError(f"{kind} has no way to make its state smaller")
