"""Helpers of the clauses of the layer contract."""

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
    """A reachable state: that after some random samples."""
    u = torch.randn(batch, 5, layer.d_model, dtype=torch.float64)
    return tree_map(Tensor.detach, layer(u)[1])


@contextmanager
def annotations_unchecked() -> Iterator[None]:
    """Context without jaxtyping's runtime checks, in case the caller has enabled them.

    A check would refuse a wrong argument before the layer can raise its own error, and would
    break `torch.compile`.
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
