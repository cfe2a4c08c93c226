"""The layer of each block of a model."""

from collections.abc import Sequence

from longstate.errors import InputError
from longstate.models import layer_class
from longstate.models._block import Gate, resolve

DEPTH = 3
"""Default number of blocks of a model with one kind of layer."""


def layer_pattern(layers: str | Sequence[str]) -> tuple[str, ...]:
    """The names of layers in lower case: one, or several in a list or separated by commas.

    Raises:
        InputError: there is no such layer.
    """
    listed = layers.split(",") if isinstance(layers, str) else list(layers)
    pattern = tuple(str(name).strip().lower() for name in listed)
    for name in pattern:
        if name.isdigit():
            raise InputError(
                f"layers must be names, such as 'mamba,s4d'; got {name!r}. The number of blocks is "
                "n_layers"
            )
        layer_class(name)
    return pattern


def default_gate(pattern: Sequence[str]) -> Gate:
    """The gate after each layer: the layers' own default, if it is the same for all."""
    gates = {resolve("auto", layer_class(name)) for name in pattern}
    return gates.pop() if len(gates) == 1 else "auto"


def layer_names(layers: str | Sequence[str], n_layers: int | None) -> tuple[str, ...]:
    """One name per block.

    Args:
        layers: as for `layer_pattern`; the pattern is repeated.
        n_layers: number of blocks. None: one pattern, or `DEPTH` blocks of a single name.

    Raises:
        InputError: there is no such layer, or fewer blocks than names.
    """
    pattern = layer_pattern(layers)
    if n_layers is not None and n_layers < 1:
        raise InputError(f"n_layers must be at least 1; got {n_layers}")
    n = n_layers or (len(pattern) if len(pattern) > 1 else DEPTH)
    if n < len(pattern):
        raise InputError(f"{len(pattern)} layers need n_layers of at least {len(pattern)}; got {n}")
    return tuple(pattern[i % len(pattern)] for i in range(n))
