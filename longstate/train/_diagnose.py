"""Find the module that produced the first number that is not finite."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from longstate._nonfinite import first_bad, is_finite
from longstate.errors import InputError


class NotFiniteError(InputError):
    """A training reached a loss or a gradient that is not finite.

    Args:
        step: steps that were taken before.
        where: the source, as the end of a sentence.
    """

    def __init__(self, step: int, where: str):
        self.step, self.where = step, where
        super().__init__(f"training stopped at step {step}: {where}")


def describe_nonfinite(model: nn.Module, loss: Callable[[], Tensor]) -> str:
    """Repeat forward and backward with checks of every module. Returns a sentence about the source.

    Args:
        model: the modules to check.
        loss: computes the loss of the batch that failed.
    """
    bad = first_bad(model.named_parameters())
    if bad is not None:
        return f"the parameter {bad} is no longer finite; a lower learning rate may help"
    model.zero_grad()  # of the step that failed
    watch = _Watch()
    leaves = [(n, m) for n, m in model.named_modules() if not any(True for _ in m.children())]
    hooks = [m.register_forward_hook(watch.output(f"{n} ({type(m).__name__})")) for n, m in leaves]
    try:
        value = loss()
        if watch.found is None and bool(torch.isfinite(value)):
            value.backward()
    finally:
        for hook in hooks:
            hook.remove()
    if watch.found is not None:
        return watch.found
    bad = first_bad((name, parameter.grad) for name, parameter in model.named_parameters())
    if bad is not None:
        return f"the gradient of {bad} is not finite"
    return "the loss is not finite, although the output of every module is finite"


class _Watch:
    """Keeps the first value that is not finite, in the forward pass and then in the backward pass.

    If the gradient at a module's output is not finite, its source is after that module: the module
    with the last finite gradient, or the loss.
    """

    def __init__(self) -> None:
        self.found: str | None = None
        self.after = "the loss"

    def output(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, outputs: Any) -> None:
            if self.found is None and not is_finite(outputs):
                self.found = f"the output of {name} is the first that is not finite"
            for tensor in tree_leaves(outputs):
                if isinstance(tensor, Tensor) and tensor.requires_grad:
                    tensor.register_hook(self._gradient(name))

        return hook

    def _gradient(self, name: str) -> Callable[[Tensor], None]:
        def hook(gradient: Tensor) -> None:
            if self.found is None and not is_finite(gradient):
                self.found = f"the gradient from {self.after} is the first that is not finite"
            self.after = name

        return hook
