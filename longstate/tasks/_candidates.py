"""The layers of a screen, by name: those of this package, or `module:Name` of the user's own."""

import hashlib
import importlib
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from longstate.errors import InputError, near
from longstate.layers import Layer
from longstate.layers._wrapper import Wrapper
from longstate.models import make_layer
from longstate.models._layer_names import every_layer, options_to_train, split_name

_SMALL: dict[str, dict[str, Any]] = {
    "mamba2": {"d_state": 32, "d_head": 16},
    "mamba3": {"d_state": 32, "d_head": 16},
    "linearcde": {"d_state": 16, "start": "learned"},
}
"""Options for a small width and short training; all other layers have their defaults."""

LAYERS = tuple(
    f"{name}:s4d" if issubclass(kind, Wrapper) else name for name, kind in every_layer().items()
)
"""All layers of this package."""


@dataclass(frozen=True)
class Candidate:
    """A layer to train.

    Args:
        name: as given.
        make: builds it from a number of channels.
        version: digest of the user's module, so that runs of an older text are not reused.
    """

    name: str
    make: Callable[[int], Layer]
    version: str = ""


def candidate(name: str) -> Candidate:
    """A layer by name, in any case, or as `module:Name`, where Name is a class or a function that
    is called with a number of channels. Modules are looked for in the current folder too.

    Raises:
        InputError: there is no such layer or module, or importing it fails.
    """
    if ":" in name and split_name(name)[0] is None:
        return _own(name)
    name = name.lower()
    options = options_to_train(name) | _SMALL.get(split_name(name)[1], {})
    return Candidate(name, lambda width: make_layer(name, width, **options))


def _own(name: str) -> Candidate:
    where, _, what = name.partition(":")
    module = _module(where, name)
    if not hasattr(module, what):
        names = [n for n in vars(module) if not n.startswith("_")]
        raise InputError(f"the module {where!r} has no {what!r}; {near(what, names)}")
    made = getattr(module, what)
    if not callable(made):
        raise InputError(
            f"{name} must be a class or a function that makes a layer from a number of channels; "
            f"got {type(made).__name__}"
        )
    file = getattr(module, "__file__", None)
    text = Path(file).read_bytes() if file else b""
    return Candidate(name, made, hashlib.sha256(text).hexdigest()[:12])


def _module(where: str, name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(where)
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"the module {where!r} of the layer {name!r} cannot be imported: {said}; it is looked "
            "for in the current folder and among the installed packages"
        ) from None


def check(candidate: Candidate, width: int) -> None:
    """Check what a screen needs of a user's layer: `y, state = layer(u, state)`, causal, resumable.

    The layers of this package are tested with it.

    Raises:
        InputError: names the first clause that does not hold.
    """
    if ":" not in candidate.name:
        return
    torch.manual_seed(0)
    try:
        layer = candidate.make(width)
        if not isinstance(layer, nn.Module):
            raise _Broken(f"it makes a {type(layer).__name__}, not a module")
        layer = layer.double().eval()
        with torch.no_grad():
            _clauses(layer, torch.randn(2, 12, width, dtype=torch.float64))
    except _Broken as error:
        reason = str(error)
    except Exception as error:
        reason = f"it raised {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    else:
        return
    raise InputError(
        f"the layer {candidate.name!r} breaks the contract of a layer: {reason}; "
        "`longstate.testing.check_layer` checks all of it"
    )


class _Broken(Exception):
    """A clause that does not hold."""


def _clauses(layer: nn.Module, u: Tensor) -> None:
    missing = [name for name in ("d_model", "init_state", "own_gate") if not hasattr(layer, name)]
    if missing:
        raise _Broken(
            f"it has no {missing[0]}; derive it from longstate.layers.Layer and set d_model"
        )
    if layer.d_model != u.shape[2]:
        raise _Broken(f"its d_model is {layer.d_model} and not {u.shape[2]}")
    result = layer(u)
    if not isinstance(result, tuple) or len(result) != 2:
        raise _Broken(f"a call must return y and a state; got {type(result).__name__}")
    y, _ = result
    if not isinstance(y, Tensor) or y.shape != u.shape:
        got = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise _Broken(f"y must have the shape of u, {tuple(u.shape)}; got {got}")
    if not y.isfinite().all():
        raise _Broken("y is not finite")
    changed = torch.cat([u[:, :6], -u[:, 6:]], 1)
    if not torch.allclose(layer(changed)[0][:, :6], y[:, :6]):
        raise _Broken("its output depends on later samples")
    first, state = layer(u[:, :5])
    second, _ = layer(u[:, 5:], state)
    if not torch.allclose(torch.cat([first, second], 1), y):
        raise _Broken("two pieces with the state between them differ from one call")


def state_bytes(model: nn.Module, inputs: Tensor) -> int:
    """Bytes of the state of one row after these inputs."""
    with torch.no_grad():
        _, state = model(inputs[:1])
    return sum(s.numel() * s.element_size() for s in tree_leaves(state) if isinstance(s, Tensor))
