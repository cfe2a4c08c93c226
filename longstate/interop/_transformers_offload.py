"""Weights that accelerate keeps on a disk or in another memory, and brings for each call.

Its hooks bring the weights of a module when that module is called. Our layers give weights of the
modules inside them, such as `conv1d`, to a kernel without calling those modules, and take their
device for that of a new state.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn


def is_offloaded(module: nn.Module) -> bool:
    """Whether weights are elsewhere until a module is called."""
    return any(p.is_meta for p in module.parameters())


@contextmanager
def weights_in_place(module: nn.Module) -> Iterator[None]:
    """All weights inside `module` are where it runs, until the end of the block."""
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
