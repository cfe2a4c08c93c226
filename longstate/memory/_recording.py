"""The layers of a model that mix along time, and what the selective ones did with some data.

Axes: b batch, t time, d channels.
"""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from longstate.errors import InputError
from longstate.systems import Trace

Data = Tensor | Callable[[], object]
"""One input of a model, tokens (b, t) or u (b, t, d), or a function that runs it."""


def layers_of(model: nn.Module) -> Iterator[tuple[str, Any, nn.Module | None]]:
    """Name, layer and the norm before it, of every layer that mixes along time."""
    norms = {}
    for _, module in model.named_modules():
        mixer, norm = getattr(module, "mixer", None), getattr(module, "norm", None)
        if isinstance(mixer, nn.Module) and isinstance(norm, nn.Module):
            norms[id(mixer)] = norm
    for name, module in model.named_modules():
        if hasattr(module, "system") or hasattr(module, "selection"):
            yield name or type(module).__name__, module, norms.get(id(module))


def record(model: nn.Module, data: Data) -> dict[str, Trace]:
    """A trace, in float64, of every selective layer while the model reads the data once.

    Where a norm comes before a layer it is taken in float64 too, so that what its rounding adds in
    a narrower type is in no trace, as it is in no certificate.

    Raises:
        InputError: the model cannot read the data, or a layer got something not finite.
    """
    inputs: dict[str, Tensor] = {}
    found = [(name, layer, norm) for name, layer, norm in layers_of(model) if _traced(layer)]
    hooks = []
    for name, layer, norm in found:

        def keep(_: nn.Module, args: tuple[Any, ...], name: str = name) -> None:
            inputs[name] = args[0].detach()

        hooks.append((layer if norm is None else norm).register_forward_pre_hook(keep))
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
    traces = {}
    for name, layer, norm in found:
        if name not in inputs:
            continue
        if not bool(inputs[name].isfinite().all()):
            raise InputError(f"{name} got NaN or infinity on this data; `watch` says where")
        u = inputs[name].double().cpu()
        with torch.no_grad():
            if norm is not None:
                u = widened(norm)(u)
            traces[name] = widened(layer).trace(u).double()
    return traces


def widened(module: Any) -> Any:
    """A copy in float64 on the CPU, without gradients: what a narrow type would round on the way
    to a system, a trace or a certificate is no property of the weights."""
    return copy.deepcopy(module).double().cpu().requires_grad_(False)


def _traced(layer: Any) -> bool:
    return hasattr(layer, "trace")


def _device(model: nn.Module) -> torch.device:
    return next((p.device for p in model.parameters()), torch.device("cpu"))
