"""Put other layers into a model, and keep its description right."""

import dataclasses
from collections.abc import Mapping, Sequence

from torch import nn

from longstate.layers._base import Layer
from longstate.models._language import LanguageModel
from longstate.models._language_spec import LanguageSpec
from longstate.models._layer_names import inner_layer


def put_at(model: nn.Module, name: str, layer: nn.Module) -> None:
    """Make `layer` the module of that name."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, layer)


def exchange(model: nn.Module, layers: Mapping[str, Layer]) -> None:
    """Put other layers into a model, for good.

    Args:
        model: changed in place; the description of a language model too.
        layers: the new layer for each name of a module.
    """
    language = isinstance(model, LanguageModel)
    before = [inner_layer(mixer) for mixer in mixers(model)] if language else []
    for name, layer in layers.items():
        put_at(model, name, layer)
    if isinstance(model, LanguageModel):
        model.spec = described(model.spec, before, mixers(model))


def mixers(model: nn.Module) -> list[Layer]:
    """The layers of a model's blocks, in order."""
    return [block.mixer for block in model.each_block()]  # type: ignore[operator]


def described(spec: LanguageSpec, before: Sequence[Layer], after: Sequence[Layer]) -> LanguageSpec:
    """The description of a language model after its layers have changed."""
    own = {}
    for i, layers in enumerate(zip(before, after, strict=True)):
        was, now = (getattr(inner_layer(layer), "_made_with", {}) for layer in layers)
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
