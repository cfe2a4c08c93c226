"""Which module made the first number that is not finite."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def describe_nonfinite(model: nn.Module, loss: Callable[[], Tensor]) -> str:
    """Run forward and backward once more, watching every module; a sentence about the first NaN.

    Args:
        model: the modules to watch.
        loss: computes the loss of the batch that failed.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"the parameter {name} is no longer finite; a lower learning rate may help"
    found: list[str] = []
    hooks = []
    for name, module in model.named_modules():
        if name and not any(True for _ in module.children()):
            hooks.append(module.register_forward_hook(_watch(name, "output", found)))
            hooks.append(module.register_full_backward_hook(_watch(name, "gradient", found)))
    try:
        value = loss()
        if not found and bool(torch.isfinite(value)):
            value.backward()
    finally:
        for hook in hooks:
            hook.remove()
    if found:
        return found[0]
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and not torch.isfinite(parameter.grad).all():
            return f"the gradient of {name} is not finite"
    return "the loss is not finite, though every module's output is"


def _watch(name: str, what: str, found: list[str]) -> Callable[..., None]:
    def hook(module: nn.Module, taken: Any, given: Any) -> None:
        if not found and _bad(given if what == "output" else taken):
            kind = type(module).__name__
            found.append(f"the {what} of {name} ({kind}) is the first that is not finite")

    return hook


def _bad(values: Any) -> bool:
    if isinstance(values, Tensor):
        numeric = values.is_floating_point() or values.is_complex()
        return numeric and not bool(torch.isfinite(values).all())
    if isinstance(values, dict):
        values = tuple(values.values())
    return isinstance(values, list | tuple) and any(_bad(v) for v in values)
