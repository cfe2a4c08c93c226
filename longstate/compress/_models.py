"""Put reduced layers into a model, and update the model's description."""

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import nn

from longstate import layers as known
from longstate.compress._data import put_at
from longstate.errors import InputError
from longstate.layers import Layer
from longstate.models import ForecastModel, LanguageModel, LanguageSpec
from longstate.train import Forecaster, TextModel


def inner(model: Any) -> nn.Module:
    """The module of a model or an estimator.

    Raises:
        InputError: it is neither.
    """
    if isinstance(model, Forecaster | TextModel):
        return model.model
    if not isinstance(model, nn.Module):
        raise InputError(
            "model must be a Forecaster, a TextModel, a model or a layer; got "
            f"{type(model).__name__}"
        )
    return model


def outer(model: Any, small: nn.Module) -> Any:
    """An object of the kind of `model` with the smaller module."""
    if isinstance(model, Forecaster):
        assert isinstance(small, ForecastModel)
        return model.with_model(small)
    if isinstance(model, TextModel):
        assert isinstance(small, LanguageModel)
        return model.with_model(small)
    return small


def with_layers(module: nn.Module, layers: Mapping[str, Layer]) -> nn.Module:
    """A copy of a model with other layers and the matching description."""
    memo: dict[int, Any] = {id(module.get_submodule(name)): new for name, new in layers.items()}
    small = copy.deepcopy(module, memo)  # deepcopy does not copy what is in the memo
    for name, new in layers.items():
        put_at(small, name, new)
    if isinstance(small, LanguageModel):
        small.spec = described(module, small)
    return small


def described(module: nn.Module, small: LanguageModel) -> LanguageSpec:
    """The description of a language model after its layers have changed."""
    assert isinstance(module, LanguageModel)
    spec = module.spec
    own = {}
    for i, (old, new) in enumerate(zip(module.each_block(), small.each_block(), strict=True)):
        was, now = (getattr(b.mixer, "_made_with", {}) for b in (old, new))
        changed = {k: v for k, v in now.items() if k != "d_model" and was.get(k) != v}
        own[i] = {**spec.options.get(str(i), {}), **changed}
    options = {name: dict(given) for name, given in spec.options.items() if not name.isdecimal()}
    for kind in set(spec.layers):
        places = [i for i, name in enumerate(spec.layers) if name == kind]
        if all(own[i] == own[places[0]] for i in places):  # one entry for all layers of a kind
            options[kind] = {**options.get(kind, {}), **own[places[0]]}
        else:
            options |= {str(i): own[i] for i in places if own[i]}
    return dataclasses.replace(spec, options={k: v for k, v in options.items() if v})


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
