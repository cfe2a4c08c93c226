"""What the clauses of the layer contract share."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jaxtyping
import torch
from torch import Tensor
from torch.testing import assert_close
from torch.utils._pytree import tree_map

from longstate.layers._base import Layer, State


def close(actual: State, expected: State, what: str) -> None:
    assert_close(actual, expected, msg=lambda text: f"{what}: {text}")


def random_state(layer: Layer, batch: int) -> State:
    """A state that could have been reached: the layer has seen something."""
    u = torch.randn(batch, 5, layer.d_model, dtype=torch.float64)
    return tree_map(Tensor.detach, layer(u)[1])


@contextmanager
def annotations_unchecked() -> Iterator[None]:
    """Calls without jaxtyping's runtime checks, where the caller has switched them on.

    A check would refuse a wrong argument before the layer can say what is wrong with it, and would
    stop `torch.compile`.
    """
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)


def refuses(call: Callable[[], object]) -> bool:
    """Whether the call raises a ValueError."""
    try:
        with annotations_unchecked():
            call()
    except ValueError:
        return True
    return False
