"""Weights that accelerate keeps on a disk or in another memory, and loads for each call.

Its hooks load the weights of a module when that module is called. The layers of longstate pass
weights of inner modules, such as `conv1d`, to a kernel without calling these modules, and create
states on the device of these weights. So the weights must be loaded before.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def is_offloaded(module: nn.Module) -> bool:
    """Whether weights are loaded only when a module is called."""
    return any(p.is_meta for p in module.parameters())


@contextmanager
def weights_in_place(module: nn.Module) -> Iterator[None]:
    """Context manager: all weights inside `module` are on its device."""
    hooked: list[tuple[nn.Module, Any]] = [
        (m, m._hf_hook) for m in module.modules() if "_hf_hook" in vars(m)
    ]
    for inner, hook in hooked:
        hook.pre_forward(inner)
    try:
        yield
    finally:
        for inner, hook in hooked:
            hook.post_forward(inner, None)
