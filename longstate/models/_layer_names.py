"""Layers by name: `mamba`, or `smr:mamba` for one inside of another."""

import inspect
from typing import Any

from longstate import layers
from longstate.errors import InputError, near
from longstate.layers._base import Layer
from longstate.layers._wrapper import Wrapper


def layer_class(name: str) -> type[Layer]:
    """The class in `longstate.layers` of that name, in any case, that is built from a `d_model`.

    Of a name such as `smr:mamba` the class behind the colon, whose options the layer takes; build
    it with `make_layer`.

    Raises:
        InputError: there is none.
    """
    known = {n: kind for n, kind in every_layer().items() if not issubclass(kind, Wrapper)}
    return _class(split_name(name)[1], known)


def make_layer(name: str, d_model: int, **options: Any) -> Layer:  # options of any layer
    """A new layer. A name such as `smr:mamba` makes `SMR(Mamba(d_model))`.

    Args:
        name: see `layer_class`.
        d_model: channels.
        options: of the class.

    Raises:
        InputError: there is no such layer.
    """
    wrapper, layer = split_name(name)[0], layer_class(name)(d_model, **options)
    return layer if wrapper is None else wrapper(layer)


_TO_TRAIN: dict[str, dict[str, Any]] = {"linearcde": {"stable": True}}
"""Options without which training by gradients diverges on long sequences."""


def options_to_train(name: str, **wanted: Any) -> dict[str, Any]:  # options of any layer
    """Options of a layer that is chosen by its name and then trained.

    Args:
        name: see `layer_class`.
        wanted: those of them that the class has are used.

    Raises:
        InputError: there is no such layer.
    """
    kind = layer_class(name)
    known = inspect.signature(kind.__init__).parameters
    own = _TO_TRAIN.get(split_name(name)[1], {})
    return {key: value for key, value in wanted.items() if key in known} | own


def split_name(name: str) -> tuple[type[Wrapper] | None, str]:
    """The class before the colon of a name such as `smr:mamba`, and the rest of it in small
    letters. Other names have no such class."""
    before, colon, rest = name.lower().partition(":")
    kind = every_layer().get(before)
    if colon and kind is not None and issubclass(kind, Wrapper):
        return kind, rest
    return None, name.lower()


def inner_layer(layer: Layer) -> Layer:
    """The layer that takes the options of its name: that inside of a wrapper."""
    return layer.layer if isinstance(layer, Wrapper) else layer


def any_layer_class(name: str) -> type[Layer]:
    """`layer_class`, and classes that are built around another layer."""
    return _class(name, every_layer())


def _class(name: str, classes: dict[str, type[Layer]]) -> type[Layer]:
    if name.lower() not in classes:
        raise InputError(f"there is no layer {name!r}; {near(name, sorted(classes))}")
    return classes[name.lower()]


def every_layer() -> dict[str, type[Layer]]:
    """The layers of this package, by name in small letters."""
    return {
        name.lower(): kind
        for name, kind in vars(layers).items()
        if isinstance(kind, type) and issubclass(kind, Layer) and kind != Layer
    }
