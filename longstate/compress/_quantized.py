"""A state that is rounded to few bits after every sample, as if it were kept so.

    h_t = A_t q_{t-1} + ...          q_t = round(h_t) in steps of its own for each number

With P_ii the mean square of a number and Q the energy of what is read of the state later, a range
of +-5 sqrt(P_ii) and 2^b values make a step of 10 sqrt(P_ii) 2^-b. Rounding is taken as noise of
a twelfth of the squared step: then sum of Q_ii step_i^2 / 12 reaches the outputs at every sample,
and bits are best given by the logarithm of P_ii Q_ii. That is an estimate: errors of rounding to
nearest are no noise below about 5 bits, nor where a number moves by less than a step from one
sample to the next; those of random rounding are. What can never be exceeded is in `drift`.

This file rounds between the calls of any layer. It shows what few bits do; it saves no memory.

Axes: b sequences, t time, g groups, r rows of a group, m numbers of a row.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from longstate._numbers import number
from longstate.compress._future import Source, sources
from longstate.compress._parts import Place
from longstate.compress._seen import Data, collect
from longstate.errors import InputError
from longstate.layers._base import State, as_options
from longstate.memory import Result
from longstate.stream._tree import flatten, unflatten

Rounding = Literal["nearest", "stochastic", "feedback"]
_ROUNDINGS = ("nearest", "stochastic", "feedback")
_NO_NOISE = "; not below about 5 bits, nor where a number moves less than a step a sample"
_DOUBT = {"nearest": _NO_NOISE, "stochastic": "", "feedback": _NO_NOISE}
_DEVIATIONS = 5.0  # roots of the mean square that the range reaches to either side
_FEWEST, _MOST = 1.0, 24.0  # bits of one number
_NOISY = 5.0  # bits below which rounding errors are no noise, so that none is given fewer if it can


class Grid(NamedTuple):
    """The values that one tensor of a state may take.

    Attributes:
        place: which tensor.
        step (g, r, m): from one value to the next; 0 is one.
        levels (g, r, m): how many.
        observe (g, r, m): energy of the later outputs for an error of 1.
    """

    place: Place
    step: Tensor
    levels: Tensor
    observe: Tensor

    def snap(self, x: Tensor, stochastic: bool) -> tuple[Tensor, int]:
        """The nearest value (b, g, r, m), or one of the two at random, and how many were outside
        the range."""
        k = x / self.step
        whole = torch.floor(k + torch.rand_like(k)) if stochastic else k.round()
        low, high = -(self.levels // 2), (self.levels - 1) // 2
        inside = torch.minimum(torch.maximum(whole, low), high)
        return self.step * inside, int((inside != whole).sum())

    def again(self, rest: Tensor) -> Tensor:
        """What rounding took (b, g, r, m), at the middle of one of as many cells of a step."""
        cell = torch.floor((rest / self.step + 0.5) * self.levels).clamp(min=0)
        return self.step * ((torch.minimum(cell, self.levels - 1) + 0.5) / self.levels - 0.5)


@dataclass(frozen=True, eq=False, kw_only=True)
class RoundingNoise(Result):
    """What rounding adds to the outputs of each layer, as noise.

    Args:
        tensors: names of the states.
        bits: on average, of one number of each.
        noise: mean energy that rounding adds to an output sample of the layer, all channels.
        steps: smallest and largest step of each.
    """

    tensors: tuple[str, ...]
    bits: tuple[float, ...]
    noise: tuple[float, ...]
    steps: tuple[tuple[float, float], ...]

    def rows(self) -> tuple[list[str], list[list[str]]]:
        body = [
            [name, number(b), number(n), f"{number(s[0])} to {number(s[1])}"]
            for name, b, n, s in zip(self.tensors, self.bits, self.noise, self.steps, strict=True)
        ]
        return ["tensor", "bits", "noise energy of a sample", "steps"], body


class QuantizedState(nn.Module):
    """A layer or model whose state is rounded; made by `quantize_state`.

    The same call as the layer's. With feedback its state is {"state": ..., "rest": [...]}.

    Args:
        layer: whose state it is.
        grids: the values that it may take.
        rounding: see `quantize_state`.
        every: samples from one rounding to the next.
    """

    def __init__(self, layer: nn.Module, grids: list[Grid], rounding: Rounding, every: int):
        super().__init__()
        self.layer, self.grids, self.rounding, self.every = layer, grids, rounding, every
        self.clipped = 0
        """Numbers that lay outside their range so far."""

    def init_state(self, batch: int) -> State:
        """That of the layer, rounded."""
        state: State = self.layer.init_state(batch)  # type: ignore[operator]
        tensors = flatten(state)
        zeros = [torch.zeros_like(tensors[g.place.name]) for g in self.grids]
        return {"state": state, "rest": zeros} if self.rounding == "feedback" else state

    def forward(
        self,
        u: Tensor,
        state: State = None,
        *,
        dt: Tensor | None = None,
        mask: Tensor | None = None,
        reset: Tensor | None = None,
        rate: float = 1.0,
    ) -> tuple[Tensor, State]:
        """As the layer's; u (b, t, ...)."""
        state = self.init_state(len(u)) if state is None else state
        outputs = []
        for start in range(0, max(u.shape[1], 1), self.every):
            now = slice(start, start + self.every)
            times = [None if v is None else v[:, now] for v in (dt, mask, reset)]
            options = as_options(times[0], times[1], times[2], rate)
            y, after = self.layer(u[:, now], self._whole(state), **options)
            state = self._rounded(after)
            outputs.append(y)
        return torch.cat(outputs, dim=1), state

    def step(self, u: Tensor, state: State, **options: Any) -> tuple[Tensor, State]:
        """As the layer's; u (b, ...). Rounds after every step, whatever `every`."""
        y, after = self.layer.step(u, self._whole(state), **options)  # type: ignore[operator]
        return y, self._rounded(after)

    def noise(self) -> RoundingNoise:
        """What to expect of the outputs."""
        share = {"nearest": 1 / 12, "stochastic": 1 / 6, "feedback": 1 / 12}[self.rounding]
        noise, bits, steps = [], [], []
        for g in self.grids:
            step = g.step / g.levels if self.rounding == "feedback" else g.step
            noise.append(share * float((g.observe * step.square()).sum()) / self.every)
            many = 2 if self.rounding == "feedback" else 1
            bits.append(many * float(g.levels.double().log2().mean()))
            steps.append((float(g.step.min()), float(g.step.max())))
        names = tuple(g.place.name for g in self.grids)
        return RoundingNoise(
            kind="estimate",
            scope="rounding errors as independent noise" + _DOUBT[self.rounding],
            sentence=f"Rounding the state to {number(sum(bits) / len(bits))} bits a number adds "
            f"noise of energy {number(max(noise))} to an output sample, in the layer where that "
            "is most.",
            tensors=names,
            bits=tuple(bits),
            noise=tuple(noise),
            steps=tuple(steps),
        )

    def _whole(self, state: State) -> State:
        """The state that the layer goes on from."""
        if self.rounding != "feedback":
            return state
        tensors = flatten(state["state"])
        for g, rest in zip(self.grids, state["rest"], strict=True):
            tensors[g.place.name] = tensors[g.place.name] + rest
        return unflatten(state["state"], tensors)

    def _rounded(self, state: State) -> State:
        tensors, rests = flatten(state), []
        for g in self.grids:
            h = tensors[g.place.name]
            x = g.place.real(h).reshape(-1, *g.step.shape)
            q, outside = g.snap(x, self.rounding == "stochastic")
            self.clipped += outside
            tensors[g.place.name] = g.place.back(q).to(h.device)
            if self.rounding == "feedback":
                rests.append(g.place.back(g.again(x - q)).to(h.device))
        rounded = unflatten(state, tensors)
        return {"state": rounded, "rest": rests} if self.rounding == "feedback" else rounded


def quantize_state(
    layer: nn.Module,
    data: Data | None = None,
    *,
    bits: float = 8,
    rounding: Rounding = "nearest",
    allocate: bool = True,
    every: int = 1,
) -> QuantizedState:
    """A layer or model whose running state is rounded to few bits.

    Args:
        layer: with a `system` or a `trace`, or a model of such layers.
        data: what it reads, for the ranges. None: white noise of variance 1, for linear layers.
        bits: of one number of the recurrence's state, on average; from 1 to 24. Other tensors, such
            as the taps of a convolution, stay as they are.
        rounding: "nearest"; "stochastic": up or down at random, right on average; or "feedback":
            what rounding took is kept in as many bits again, and given back before the next step.
        allocate: more bits where more is read. False: as many for every number.
        every: samples from one rounding to the next.

    Raises:
        InputError: an option is out of range; a selective layer and no data.
    """
    if not _FEWEST <= bits <= _MOST:
        raise InputError(f"bits must be between {_FEWEST:g} and {_MOST:g}; got {bits}")
    if rounding not in _ROUNDINGS:
        raise InputError(f"rounding must be one of {', '.join(_ROUNDINGS)}; got {rounding!r}")
    if every < 1:
        raise InputError(f"every must be at least 1 sample; got {every}")
    found = sources(layer)
    if data is None:
        moments = [_of_system(s) for s in found]
    else:
        seen = collect(layer, found, data, None, 1024)
        moments = [
            (
                x.states.square().mean(0),
                x.observe.diagonal(dim1=-2, dim2=-1)[:, None] * x.weight[..., None],
            )
            for x in seen
        ]
    grids = [_grid(s, *m, bits, allocate) for s, m in zip(found, moments, strict=True)]
    return QuantizedState(layer, grids, rounding, every)


def _of_system(s: Source) -> tuple[Tensor, Tensor]:
    """Mean square and energy of what is read, of every number under white input."""
    if s.reach is None or s.observe is None:
        raise InputError(
            f"the range of a state of {type(s.layer).__name__} depends on its input; pass data"
        )
    P, Q = (v.diagonal(dim1=-2, dim2=-1)[:, None] for v in (s.reach, s.observe))
    return P, Q


def _grid(s: Source, square: Tensor, observe: Tensor, bits: float, allocate: bool) -> Grid:
    square = square.clamp(min=1e-12 * float(square.max().clamp(min=1e-30)))
    each = torch.full_like(square, bits)
    if allocate:
        each = _allocated(0.5 * torch.log2((square * observe).clamp(min=1e-300)), bits)
    levels = torch.exp2(each).floor()
    step = 2 * _DEVIATIONS * square.sqrt() / levels
    return Grid(s.place, step, levels.long(), observe.expand(s.shape))


def _allocated(score: Tensor, bits: float) -> Tensor:
    """Bits of each number: its score and a constant, within limits, `bits` on average."""
    fewest = min(bits, _NOISY)
    low, high = float(fewest - score.max()) - 1, float(_MOST - score.min()) + 1
    for _ in range(100):
        middle = (low + high) / 2
        mean = float((score + middle).clamp(fewest, _MOST).mean())
        low, high = (middle, high) if mean <= bits else (low, middle)
    return (score + low).clamp(fewest, _MOST)
