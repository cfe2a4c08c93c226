"""How a model was called on data: what healing and its report read, sequence by sequence."""

from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from longstate.compress._data import Batch
from longstate.memory._recording import run_once
from longstate.models import ForecastModel


class Call(NamedTuple):
    """Arguments with which a model was called: tensors with the sequences along their first
    axis."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]


def calls_of(model: nn.Module, batches: Sequence[Batch]) -> list[Call]:
    """How the model is called on data. A function that runs the model is run once."""
    found: list[Call] = []
    for batch in batches:
        if isinstance(batch, Tensor):
            found.append(Call((batch,), {}))
            continue

        def keep(_: nn.Module, args: Any, kwargs: Any) -> None:
            found.append(Call(args, kwargs))

        run_once(model, batch, [model.register_forward_pre_hook(keep, with_kwargs=True)])
    return found


class Rows:
    """All different sequences of some calls, by one index: what the model read twice must not be
    both learnt and held out."""

    def __init__(self, calls: Sequence[Call]):
        self.calls = calls
        sizes = [len(tensors_of(call)[0]) for call in calls]
        new = _different(calls)
        self.call = np.repeat(np.arange(len(calls)), sizes)[new]
        self.row = np.concatenate([np.arange(n) for n in sizes])[new]
        shapes = [tuple(x.shape[1:] for x in tensors_of(call)) for call in calls]
        kinds = {shape: i for i, shape in enumerate(dict.fromkeys(shapes))}
        self.kind = np.array([kinds[shape] for shape in shapes])[self.call]

    def batch(self, indices: np.ndarray) -> Call:
        """Rows of one kind, which have equal shapes, as one call."""
        parts = []
        for i in np.unique(self.call[indices]).tolist():
            at = torch.from_numpy(self.row[indices[self.call[indices] == i]])
            parts.append(_each(lambda x, at=at: x[at.to(x.device)], self.calls[i]))
        joined: Call = parts[0]
        if len(parts) > 1:
            joined = _each(lambda *xs: torch.cat(xs), *parts)
        return joined

    def split(self, indices: np.ndarray, size: int) -> list[np.ndarray]:
        """In parts of at most `size` rows of one kind."""
        kinds = [indices[self.kind[indices] == k] for k in np.unique(self.kind[indices])]
        return [part for rows in kinds for part in np.array_split(rows, -(-len(rows) // size))]


def _different(calls: Sequence[Call]) -> np.ndarray:
    """Whether no earlier sequence is equal, for each sequence of all calls."""
    seen: set[bytes] = set()
    found = []
    for call in calls:
        columns = [x.detach().cpu() for x in tensors_of(call)]
        for i in range(len(columns[0])):
            digest = blake2b(repr([x.shape[1:] for x in columns]).encode())
            for x in columns:
                digest.update(x[i : i + 1].reshape(-1).view(torch.uint8).numpy().tobytes())
            found.append(digest.digest() not in seen)
            seen.add(digest.digest())
    return np.array(found)


def answers(model: nn.Module, call: Call) -> Tensor:
    """What is compared: the first tensor of what a model gives; of a forecaster the point and the
    quantiles, in scaled units (b, ...). In float32 at least."""
    if isinstance(model, ForecastModel):
        point, quantiles = model.scaled(call.args[0])
        out = torch.cat([point[..., None], quantiles], dim=-1)
    else:
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        call = _each(lambda x: x.to(device), call)
        out = tree_leaves(model(*call.args, **call.kwargs))[0]
    return out.to(torch.promote_types(out.dtype, torch.float32))


def tensors_of(tree: Any) -> list[Tensor]:
    return [x for x in tree_leaves(tree) if isinstance(x, Tensor)]


def _each(change: Callable[..., Tensor], *calls: Call) -> Call:
    """A call with other tensors in the same places."""
    made: Call = tree_map(lambda *xs: change(*xs) if isinstance(xs[0], Tensor) else xs[0], *calls)
    return made
