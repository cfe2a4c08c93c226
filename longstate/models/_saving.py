"""Save a model or a layer in one safetensors file: weights, and a description in the header."""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrize import type_before_parametrizations

from longstate import _tensorfile as tensorfile
from longstate._facts import check_arguments, mapping, value_of
from longstate._shapes import shapes_only
from longstate.errors import InputError
from longstate.layers._base import Layer
from longstate.layers._prescribed import prescribe
from longstate.layers._renamed import options_today
from longstate.models._language_spec import LanguageSpec
from longstate.models._layer_names import any_layer_class

if TYPE_CHECKING:
    from longstate.models._language import LanguageModel

Module = TypeVar("Module", bound=nn.Module)
_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def build(make: Callable[[], Module], tensors: dict[str, Tensor], path: str | Path) -> Module:
    """The module that a description makes, with the weights of its file, in evaluation mode.

    It is made without memory at first, so that a description which does not fit its file costs
    nothing.

    Args:
        make: makes the module; called twice.
        tensors: the file's.
        path: the file.

    Raises:
        InputError: no such module can be made, the tensors are not the module's, or hold numbers
            that are not finite.
    """
    try:
        with shapes_only():
            expected = make().state_dict()
    except (ValueError, TypeError, RuntimeError, ArithmeticError, AttributeError, KeyError) as e:
        raise InputError(f"{path} describes a model that cannot be made: {_line(e)}") from None
    check_tensors(tensors, expected, path)
    for name, tensor in tensors.items():
        if not finite(tensor):
            raise InputError(f"{path} cannot be used: its {name} holds numbers that are not finite")
    module = make()
    _take_types(module, tensors)
    module.load_state_dict(tensors)
    return module.eval()


def _take_types(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Give parameters and buffers the types of the file, so that loading rounds nothing and widens
    no narrow model. `dynamics` of layers stay in float32 at least, and buffers in their own type.
    """
    for path, owner in module.named_modules():
        own = [*owner.named_parameters(recurse=False), *owner.named_buffers(recurse=False)]
        for name, t in own:
            stored = tensors.get(f"{path}.{name}" if path else name)
            if stored is None or stored.dtype not in _FLOATS or not t.is_floating_point():
                continue
            kept = t.dtype if not isinstance(t, nn.Parameter) else stored.dtype
            kept = torch.float32 if name in getattr(owner, "dynamics", ()) else kept
            t.data = t.data.to(torch.promote_types(kept, stored.dtype))


def check_tensors(
    tensors: Mapping[str, Tensor], expected: Mapping[str, Tensor], path: str | Path
) -> None:
    """Refuse tensors of other names, shapes or kinds than those of `expected`.

    Raises:
        InputError: names the first one.
    """
    end = "the file is damaged, or its description is not that of its tensors"
    for name, want in expected.items():
        if name not in tensors:
            raise InputError(f"{path} lacks the tensor {name}; {end}")
        have = tensors[name]
        if have.shape != want.shape:
            raise InputError(
                f"{path}: {name} has shape {tuple(have.shape)}, its description makes it "
                f"{tuple(want.shape)}; {end}"
            )
        if (have.is_floating_point(), have.is_complex()) != (
            want.is_floating_point(), want.is_complex(),
        ):  # fmt: skip
            raise InputError(f"{path}: {name} is of type {have.dtype}, not {want.dtype}; {end}")
    for name in tensors:
        if name not in expected:
            raise InputError(f"{path} has a tensor {name} that its model lacks; {end}")


def check_blocks(declared: int, tensors: Mapping[str, Tensor], path: str | Path) -> None:
    """Refuse another number of blocks than the tensors are of, before any is made.

    Raises:
        InputError: says both numbers.
    """
    places = (re.search(r"(?:^|\.)blocks\.(\d+)\.", name) for name in tensors)
    found = len({place[1] for place in places if place is not None})
    if found != declared:
        raise InputError(
            f"{path} describes a model of {declared:,} blocks and holds tensors of {found:,}; the "
            "file is damaged"
        )


def finite(tensor: Tensor) -> bool:
    """Whether every number of a tensor is; read once, without a copy."""
    if not tensor.numel() or not (tensor.is_floating_point() or tensor.is_complex()):
        return True
    real = torch.view_as_real(tensor) if tensor.is_complex() else tensor
    least, most = torch.aminmax(real if real.element_size() > 1 else real.float())
    return bool(torch.isfinite(least)) and bool(torch.isfinite(most))


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0][:200]


def read_language_model(path: str | Path) -> "tuple[LanguageModel, dict[str, Any]]":
    """A language model, in evaluation mode, and the other facts of its file.

    Raises:
        InputError: the file is of another kind, or damaged.
    """
    from longstate.models._language import LanguageModel

    kind = "model" if tensorfile.kind_of(path) == "model" else "language"  # an older name
    tensors, facts = tensorfile.load(path, kind)
    try:
        spec = LanguageSpec.from_json(json.dumps(facts.get("spec")))
    except InputError as e:
        raise InputError(f"{path} is damaged or of a later version: {e}") from None
    check_blocks(len(spec.layers), tensors, path)
    return build(lambda: LanguageModel(spec), tensors, path), facts


def write_language_model(path: str | Path, model: "LanguageModel", facts: dict[str, Any]) -> None:
    """Write a language model, with further facts beside its description.

    Raises:
        InputError: the weights do not fit the description, or the file cannot be written.
    """
    with shapes_only():
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

    kind, made_with = type_before_parametrizations(layer), getattr(layer, "_made_with", None)
    name, prescribed = kind.__name__, layers.prescription(layer)
    free = parametrize.is_parametrized(layer) and prescribed is None
    if getattr(layers, name, None) is not kind or made_with is None or free:
        raise InputError(f"{name} is not a layer of longstate.layers; only those can be saved")
    inside = [n for n, v in made_with.items() if isinstance(v, Layer)]
    made_with = {**made_with, **{n: describe_layer(getattr(layer, n)) for n in inside}}
    try:
        facts = {"class": name.lower(), "arguments": json.loads(json.dumps(made_with))}
    except TypeError:
        raise InputError(f"JSON cannot hold the arguments of {name}: {made_with}") from None
    return facts if prescribed is None else {**facts, "prescribed": prescribed._asdict()}


def describe_layers(blocks: Any) -> list[dict[str, Any]]:
    """`describe_layer` of the layer in every block of a stack, in order."""
    return [describe_layer(block.mixer) for block in blocks.each_block()]


def layer_maker(facts: object, what: str) -> Callable[[], Layer]:
    """Makes a new layer from what `describe_layer` gave.

    Args:
        facts: from a file.
        what: they describe, to begin a sentence with.

    Raises:
        InputError: they describe no layer.
    """
    given = mapping(facts, what)
    for name in (given.keys() - {"prescribed"}) ^ {"class", "arguments"}:
        raise InputError(f"{what} {'has an unknown' if name in given else 'lacks the'} {name!r}")
    kind = any_layer_class(value_of(given["class"], str, f"{what}.class"))
    arguments = options_today(kind.__name__, mapping(given["arguments"], f"{what}.arguments"))
    inner = {
        name: layer_maker(arguments.pop(name, None), f"{what}.arguments.{name}")
        for name, hint in get_type_hints(kind.__init__).items()
        if hint is Layer
    }
    check_arguments(kind.__init__, arguments, what)
    prescribed = given.get("prescribed")
    if prescribed is not None:
        check_arguments(prescribe, mapping(prescribed, f"{what}.prescribed"), what)

    def make() -> Layer:
        layer = kind(**{name: of() for name, of in inner.items()}, **arguments)
        return layer if prescribed is None else prescribe(layer, **prescribed)

    return make


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
    return build(layer_maker(facts.get("layer"), f"the layer in {path}"), tensors, path)
