"""A sample of the states of a model on data, and their readout, in bounded memory.

Axes: b sequences, t time, g groups, r rows of a group, m numbers of a row.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longstate.compress._future import Source, observed, states_at
from longstate.errors import InputError
from longstate.stream._tree import flatten

Data = Tensor | Iterable[Tensor]
"""Input of a model, (b, t, ...), or several such batches."""


class Seen(NamedTuple):
    """Statistics of one layer on data.

    Attributes:
        states (b, g, r, m): a uniform random sample of all states, as real numbers.
        observe (g, m, m): Q; see `longstate.compress._future`.
        weight (g, r): relative energy of the rows of a group in the output, 1 on average.
    """

    states: Tensor
    observe: Tensor
    weight: Tensor


def collect(
    model: nn.Module, found: list[Source], data: Data, at: int | Sequence[int] | None, rows: int
) -> list[Seen]:
    """The statistics of each layer.

    Args:
        model: anything with `y, state = model(u, state)`.
        found: its layers.
        data: its input.
        at: numbers of samples after which states are taken; see `positions`.
        rows: size of the sample, at most.

    Raises:
        InputError: there are fewer than two states, or a state is not finite.
    """
    draw = torch.Generator().manual_seed(0)
    kept = [torch.zeros(0, *s.shape).double() for s in found]
    keys, count = torch.zeros(0).double(), 0
    sums: list[tuple[Tensor, Tensor] | None] = [None] * len(found)
    for batch in batches(data):
        places = positions(batch, at)
        for state in states_at(model, batch, places):
            tensors = flatten(state)
            fresh = torch.rand(len(batch), generator=draw, dtype=torch.float64)
            keys = torch.cat([keys, fresh])
            chosen = keys.argsort()[
                :rows
            ]  # the states with the smallest random keys: a uniform sample
            keys = keys[chosen]
            for i, s in enumerate(found):
                x = s.place.real(tensors[s.place.name]).reshape(-1, *s.shape)
                kept[i] = torch.cat([kept[i], x])[chosen]
        more = observed(model, found, batch, places)
        sums = [_plus(a, b) for a, b in zip(sums, more, strict=True)]
        count += len(places) * len(batch)
    if len(keys) < 2:
        raise InputError("data must hold at least two states")
    if not all(bool(x.isfinite().all()) for x in kept):
        raise InputError("a state is not finite on this data; longstate.memory.watch says where")
    return [_seen(s, x, total, count) for s, x, total in zip(found, kept, sums, strict=True)]


def _seen(s: Source, states: Tensor, total: tuple[Tensor, Tensor] | None, count: int) -> Seen:
    weight = torch.ones(s.shape[:2]).double() if total is None else total[1] / count
    weight = weight / weight.mean(1, keepdim=True).clamp(min=1e-300)
    Q = s.observe if total is None else total[0] / count
    assert Q is not None
    return Seen(states, Q, weight.clamp(min=1e-6))


def _plus(
    a: tuple[Tensor, Tensor] | None, b: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor] | None:
    if a is None or b is None:
        return b
    return a[0] + b[0], a[1] + b[1]


def batches(data: Data) -> Iterable[Tensor]:
    """Data as batches."""
    return [data] if isinstance(data, Tensor) else data


def positions(data: Tensor, at: int | Sequence[int] | None) -> list[int]:
    """Numbers of samples after which states are taken, in rising order.

    Raises:
        InputError: one of them is not inside the data, or the data is too short.
    """
    if data.dim() < 2:
        raise InputError(f"data must be (batch, time, ...); got shape {tuple(data.shape)}")
    length = data.shape[1]
    if at is None:
        places = sorted({max(1, length * i // 8) for i in range(2, 7)})
    else:
        places = sorted({at} if isinstance(at, int) else set(at))
    if not places or not 1 <= places[0] <= places[-1] < length:
        raise InputError(
            f"at must be numbers of samples from 1 to {length - 1}, one less than the data is "
            f"long; got {at if at is not None else 'data of one sample'}"
        )
    return places
