"""Run a model on data with some of its layers exchanged, and compare the outputs.

Layers are exchanged in place while the model runs, and put back afterwards. So a function that
calls the model, such as a forecaster on a data frame, uses the exchanged layers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from longstate.errors import InputError
from longstate.memory._recording import run_once
from longstate.models import LanguageModel
from longstate.models._exchange import put_at

Batch = Tensor | Callable[[], object]
Data = Batch | Sequence[Batch]
Given = Data | np.ndarray | Sequence[np.ndarray]
"""Data, or series for a classifier or a regressor, as their `predict` takes them."""
_SAMPLES = 4096  # tokens or samples of one batch


def batches_of(data: Data | None) -> list[Batch]:
    """Data as a list of batches.

    Raises:
        InputError: this is no data.
    """
    if data is None:
        return []
    if isinstance(data, Tensor):
        if data.dim() < 2 or not data.numel():
            raise InputError(
                f"data must be tokens (b, t) or u (b, t, d); got a tensor of {tuple(data.shape)}"
            )
        return list(data.split(max(1, _SAMPLES // data.shape[1])))
    if callable(data):
        return [data]
    if not isinstance(data, Sequence) or not len(data):
        raise InputError(
            "data must be a tensor, a function that runs the model, or a list of these, as it is "
            f"read more than once; got {type(data).__name__}"
        )
    return [batch for part in data for batch in batches_of(part)]


@contextmanager
def exchanged(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[None]:
    """The model with other layers at these places, until the end of the block."""
    old = {name: model.get_submodule(name) for name in layers}
    try:
        for name, layer in layers.items():
            put_at(model, name, layer)
        yield
    finally:
        for name, layer in old.items():
            put_at(model, name, layer)


def outputs(model: nn.Module, batch: Batch) -> Tensor:
    """The first tensor of the model's output, in float32 at least."""
    got: list[Any] = []
    hook = model.register_forward_hook(lambda _, args, out: got.append(out))
    run_once(model, batch, [hook])
    if not got:
        raise InputError("data() did not run the model; it must call the model it belongs to")
    first: Tensor = tree_leaves(got[-1])[0]
    return first.to(torch.promote_types(first.dtype, torch.float32))


def distance(model: nn.Module, true: Tensor, other: Tensor) -> float:
    """`apart` as a number that is never negative."""
    return max(float(apart(model, true, other)), 0.0)


def apart(model: nn.Module, true: Tensor, other: Tensor) -> Tensor:
    """The distance of two outputs: for a language model the mean Kullback-Leibler divergence of the
    next token, in nats; otherwise the energy of the difference, as a share of the first."""
    if isinstance(model, LanguageModel):
        one, two = true.log_softmax(-1), other.log_softmax(-1)
        return (one.exp() * (one - two)).sum(-1).mean()
    return (true - other).square().sum() / true.square().sum().clamp(min=1e-60)


def share(true: Tensor, other: Tensor) -> float:
    """Norm of the difference, as a share of the norm of the first."""
    return float((true - other).norm() / true.norm().clamp(min=1e-30))


def nats(model: nn.Module, batch: Batch, logits: Tensor) -> float | None:
    """Mean loss of the next token, in nats; None for models without tokens."""
    if not isinstance(model, LanguageModel) or not isinstance(batch, Tensor):
        return None
    if batch.shape[1] < 2:
        return None
    right = logits[:, :-1].log_softmax(-1).gather(-1, batch[:, 1:, None].to(logits.device))
    return -float(right.mean())
