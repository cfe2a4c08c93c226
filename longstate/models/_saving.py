"""Save a model or a layer in one safetensors file: weights, and a description in the header."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from longstate import _tensorfile as tensorfile
from longstate.errors import InputError
from longstate.layers._base import Layer
from longstate.models._language_spec import LanguageSpec
from longstate.models._stack import layer_class

if TYPE_CHECKING:
    from longstate.models._language import LanguageModel


def fill(module: nn.Module, tensors: dict[str, torch.Tensor], path: str | Path) -> None:
    """Load the weights of a file into a module.

    Raises:
        InputError: names or shapes do not fit the module.
    """
    try:
        module.load_state_dict(tensors)
    except RuntimeError as e:
        reason = str(e).splitlines()[-1].strip()
        raise InputError(f"{path} is damaged or of another version: {reason}") from None
    module.eval()


def read_language_model(path: str | Path) -> "tuple[LanguageModel, dict[str, Any]]":
    """A language model, in evaluation mode, and the other facts of its file.

    Raises:
        InputError: the file is of another kind, or damaged.
    """
    from longstate.models._language import LanguageModel

    kind = "model" if tensorfile.kind_of(path) == "model" else "language"  # an older name
    tensors, facts = tensorfile.load(path, kind)
    model = LanguageModel(LanguageSpec.from_json(json.dumps(facts.get("spec"))))
    fill(model, tensors, path)
    return model, facts


def write_language_model(path: str | Path, model: "LanguageModel", facts: dict[str, Any]) -> None:
    """Write a language model, with further facts beside its description.

    Raises:
        InputError: the weights do not fit the description, or the file cannot be written.
    """
    with torch.device("meta"):
        expected = type(model)(model.spec).state_dict()
    state = model.state_dict()
    if {n: t.shape for n, t in state.items()} != {n: t.shape for n, t in expected.items()}:
        raise InputError(
            "the weights of this language model do not fit its spec: a model that was prepared "
            "for decoding or changed cannot be saved; save the original model"
        )
    spec = json.loads(model.spec.to_json())
    tensorfile.save(path, "language", dict(state), {"spec": spec, **facts})


def describe_layer(layer: Layer) -> dict[str, Any]:
    """Class and constructor arguments, as values that JSON can hold.

    Raises:
        InputError: it is not a layer of `longstate.layers`, or JSON cannot hold an argument.
    """
    from longstate import layers

    name, made_with = type(layer).__name__, getattr(layer, "_made_with", None)
    if getattr(layers, name, None) is not type(layer) or made_with is None:
        raise InputError(f"{name} is not a layer of longstate.layers; only those can be saved")
    try:
        return {"class": name.lower(), "arguments": json.loads(json.dumps(made_with))}
    except TypeError:
        raise InputError(f"JSON cannot hold the arguments of {name}: {made_with}") from None


def make_layer(facts: dict[str, Any]) -> Layer:
    """A new layer from the result of `describe_layer`."""
    return layer_class(facts["class"])(**facts["arguments"])


def save_layer(layer: Layer, path: str | Path) -> None:
    """Write one layer of `longstate.layers`; see `load_layer`.

    Raises:
        InputError: as for `describe_layer`; or the file cannot be written.
    """
    tensorfile.save(path, "layer", dict(layer.state_dict()), {"layer": describe_layer(layer)})


def load_layer(path: str | Path) -> Layer:
    """Read a file of `save_layer`. The layer is in evaluation mode.

    Raises:
        InputError: the file is of another kind, or damaged.
    """
    tensors, facts = tensorfile.load(path, "layer")
    layer = make_layer(facts["layer"])
    fill(layer, tensors, path)
    return layer
