"""Find the layers of a model that mix along time, and record the selective ones on some data.

Axes: b batch, t time, d channels.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import type_before_parametrizations

from longstate.errors import InputError
from longstate.systems import Trace
from longstate.systems._numbers import in_float64

Data = Tensor | Callable[[], object]
"""One input of a model, tokens (b, t) or u (b, t, d), or a function that runs it."""


class Found(NamedTuple):
    """A layer that mixes along time, and its place in the model.

    Attributes:
        name: in the model.
        layer: has a `system` or a `selection`.
        block: the module with this layer as its `mixer` and with a `norm`. None: there is none.
        norm: of that block.
    """

    name: str
    layer: Any
    norm: nn.Module | None
    block: nn.Module | None


class Recorded(NamedTuple):
    """One selective layer on some data.

    Attributes:
        trace: in float64.
        normed: whether its input was the output of the norm beside it; False without a norm.
        inputs (b, t, d): of the layer.
    """

    trace: Trace
    normed: bool
    inputs: Tensor


def find_layers(model: nn.Module) -> list[Found]:
    """All layers that mix along time."""
    places = {}
    for _, module in model.named_modules():
        mixer, norm = getattr(module, "mixer", None), getattr(module, "norm", None)
        if isinstance(mixer, nn.Module) and isinstance(norm, nn.Module):
            places[id(mixer)] = norm, module
    return [
        Found(
            name or type_before_parametrizations(module).__name__,
            module,
            *places.get(id(module), (None, None)),
        )
        for name, module in model.named_modules()
        if hasattr(module, "system") or hasattr(module, "selection")
    ]


def others(model: nn.Module) -> list[str]:
    """Name and type of every mixer without a system or a selection, such as attention."""
    found = []
    for name, module in model.named_modules():
        mixer, norm = getattr(module, "mixer", None), getattr(module, "norm", None)
        told = hasattr(mixer, "system") or hasattr(mixer, "selection")
        if isinstance(mixer, nn.Module) and isinstance(norm, nn.Module) and not told:
            found.append(f"{name}.mixer".lstrip(".") + f" ({type(mixer).__name__})")
    return found


def layers_of(model: nn.Module) -> Iterator[tuple[str, Any, nn.Module | None]]:
    """Name, layer and the norm beside it, of every layer that mixes along time."""
    for found in find_layers(model):
        yield found.name, found.layer, found.norm


def record(model: nn.Module, data: Data) -> dict[str, Trace]:
    """A trace, in float64, of every selective layer while the model reads the data once.

    If the input of a layer is the output of the norm beside it, the norm is computed in float64
    too, so that traces, like certificates, do not contain the rounding of a narrower type. Traces
    are for regular samples: they ignore a `dt` that the model passes on.

    Raises:
        InputError: the model cannot read the data, or the input of a layer is not finite.
    """
    return {name: r.trace for name, r in record_inputs(model, data).items()}


def record_inputs(model: nn.Module, data: Data) -> dict[str, Recorded]:
    """As `record`, with the inputs and whether they came from a norm.

    Raises:
        InputError: the model cannot read the data, or the input of a layer is not finite.
    """
    return {
        f.name: Recorded(widened(f.layer).trace(u).double(), same, u)
        for f, u, same in inputs_of(model, data)
    }


def inputs_of(model: nn.Module, data: Data) -> Iterator[tuple[Found, Tensor, bool]]:
    """Every selective layer that ran on the data, its input (b, t, d) in float64, and whether that
    is the output of the norm beside it. One after another, so that a trace of each can be made and
    forgotten.

    Raises:
        InputError: the model cannot read the data, or the input of a layer is not finite.
    """
    got: dict[str, Tensor] = {}
    normed: dict[str, tuple[Tensor, Tensor]] = {}
    found = [f for f in find_layers(model) if hasattr(f.layer, "trace")]
    hooks = []
    for f in found:

        def keep(_: nn.Module, args: Any, kwargs: Any, name: str = f.name) -> None:
            got[name] = (args[0] if args else kwargs["u"]).detach()

        def keep_norm(_: nn.Module, args: Any, out: Any, name: str = f.name) -> None:
            normed[name] = args[0].detach(), out.detach()

        hooks.append(f.layer.register_forward_pre_hook(keep, with_kwargs=True))
        if f.norm is not None:
            hooks.append(f.norm.register_forward_hook(keep_norm))
    run_once(model, data, hooks)
    for f in found:
        if f.name in got:
            yield f, *_wide_input(f, got.pop(f.name), normed.pop(f.name, None))


def run_once(model: nn.Module, data: Data, hooks: Sequence[Any]) -> None:
    """Let a model read data, in evaluation mode and without gradients, and remove the hooks.

    Raises:
        InputError: the model cannot read the data.
    """
    training = model.training
    try:
        model.eval()
        with torch.no_grad():
            data() if callable(data) else model(data.to(_device(model)))
    except ValueError as e:
        raise InputError(f"the model cannot read this data: {e}") from e
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()


def _wide_input(f: Found, u: Tensor, normed: tuple[Tensor, Tensor] | None) -> tuple[Tensor, bool]:
    if not bool(u.isfinite().all()):
        raise InputError(f"{f.name} got NaN or infinity on this data; `watch` finds the source")
    same = normed is not None and _same(u, normed[1])
    if same and normed is not None:
        return widened(f.norm)(in_float64(normed[0])), same
    return in_float64(u), same


def _same(u: Tensor, out: Tensor) -> bool:
    """Whether the layer's input is the norm's output, in the narrower of their types."""
    if u.shape != out.shape:
        return False
    narrow = u.dtype if u.dtype.itemsize < out.dtype.itemsize else out.dtype
    return torch.equal(u.to(narrow), out.to(narrow))


def widened(module: Any) -> Any:
    """A copy in float64 on the CPU, without gradients, so that systems, traces and certificates do
    not contain the rounding of a narrower type."""
    return copy.deepcopy(module).double().cpu().requires_grad_(False)


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
