"""Simulate a state that is stored in few bits: round it after every sample.

    h_t = A_t q_{t-1} + ...          q_t = round(h_t), with a separate step for each number

P_ii is the mean square of a number, and Q_ii the energy of the later outputs for an error of 1. The
range is +-5 sqrt(P_ii), so 2^b values have a step of 10 sqrt(P_ii) 2^-b. If rounding is white noise
with the variance step^2 / 12, the noise energy at the outputs is the sum of Q_ii step_i^2 / 12 per
sample, and it is smallest if bits follow the logarithm of P_ii Q_ii. This is an estimate: errors of
rounding to nearest are not white below about 5 bits, or if a number changes by less than a step per
sample. Errors of stochastic rounding are. `drift` gives bounds for all inputs.

With `scale="row"` steps follow the state, as in the decoding kernels, and no data is needed.

Rounding happens between calls of the layer. It shows the effect of few bits, but saves no memory;
`prepare_for_decoding(model, state_bits=8)` does.

Axes: b sequences, t time, g groups, r rows of a group, m numbers of a row.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from longstate._numbers import number
from longstate.compress._future import Source, sources
from longstate.compress._grids import SCALES, AnyGrid, Grid, RowGrid, Scale
from longstate.compress._seen import Data, collect
from longstate.errors import InputError
from longstate.layers._base import State, as_options
from longstate.memory import Result
from longstate.ops.quantized_step import ROUNDINGS, Digits, Rounding
from longstate.stream._tree import flatten, unflatten

_NO_NOISE = "; not below about 5 bits, nor where a number moves less than a step a sample"
_DOUBT = {"nearest": _NO_NOISE, "stochastic": "", "feedback": _NO_NOISE}
_DEVIATIONS = 5.0  # half of the range, in root mean squares
_FEWEST, _MOST = 1.0, 24.0  # bits of one number
_SHARED = range(2, 17)  # bits of one number where several share a step
_NOISY = 5.0  # least bits of a number, if `bits` allows it: rounding errors are not white below


@dataclass(frozen=True, eq=False, kw_only=True)
class RoundingNoise(Result):
    """Estimate of the noise that rounding adds to the outputs of each layer.

    Args:
        tensors: names of the states.
        bits: mean bits of a number of each.
        noise: mean energy added to an output sample of the layer, summed over channels.
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

    It is called like the layer. With feedback its state is {"state": ..., "rest": [...]}.

    Args:
        layer: the layer or model.
        grids: the allowed values of each tensor.
        rounding: see `quantize_state`.
        every: samples from one rounding to the next.
    """

    def __init__(self, layer: nn.Module, grids: Sequence[AnyGrid], rounding: Rounding, every: int):
        super().__init__()
        self.layer, self.grids, self.rounding, self.every = layer, grids, rounding, every
        self.clipped = 0
        """Number of values so far that were outside their range."""
        self.steps: list[Tensor | None] = [None] * len(grids)
        """Largest steps so far, of each tensor."""

    def init_state(self, batch: int) -> State:
        """The layer's initial state, and with feedback a zero rounding error."""
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
        """See `Layer.forward`; u (b, t, ...)."""
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
        """See `Layer.step`; u (b, ...). Rounds after every step, also if `every` is above 1."""
        y, after = self.layer.step(u, self._whole(state), **options)  # type: ignore[operator]
        return y, self._rounded(after)

    def noise(self) -> RoundingNoise:
        """An estimate of the noise in the outputs."""
        share = {"nearest": 1 / 12, "stochastic": 1 / 6, "feedback": 1 / 12}[self.rounding]
        noise, bits, steps = [], [], []
        for g, seen in zip(self.grids, self.steps, strict=True):
            step = g.finest if isinstance(g, Grid) else seen
            if step is None or g.observe is None:
                raise InputError(
                    "the steps follow the state and are not known yet: pass data to "
                    "quantize_state, and run the quantized layer on it"
                )
            noise.append(share * float((g.observe * step.square()).sum()) / self.every)
            bits.append(g.bits)
            coarse = g.step if isinstance(g, Grid) else step
            steps.append((float(coarse.min()), float(coarse.max())))
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
        """The state for the next call of the layer: with feedback the rounding error is added."""
        if self.rounding != "feedback":
            return state
        tensors = flatten(state["state"])
        for g, rest in zip(self.grids, state["rest"], strict=True):
            tensors[g.place.name] = tensors[g.place.name] + rest
        return unflatten(state["state"], tensors)

    def _rounded(self, state: State) -> State:
        tensors, rests = flatten(state), []
        for i, g in enumerate(self.grids):
            h = tensors[g.place.name]
            shape = g.step.shape if isinstance(g, Grid) else g.shape
            snapped = g.round(g.place.real(h).reshape(-1, *shape))
            self.clipped += snapped.outside
            if isinstance(g, RowGrid) and len(h):
                self.steps[i] = _larger(self.steps[i], snapped.step.amax(0))
            tensors[g.place.name] = g.place.back(snapped.value).to(h.device)
            if snapped.rest is not None:
                rests.append(g.place.back(snapped.rest).to(h.device))
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
    scale: Scale = "number",
) -> QuantizedState:
    """Round the state of a layer or model to few bits while it runs.

    Args:
        layer: with a `system` or a `trace`, or a model of such layers.
        data: input of the layer, for the ranges. None: white noise of variance 1, for linear
            layers; not needed if steps follow the state.
        bits: mean bits of a number of the recurrence's state, from 1 to 24. Other tensors, such as
            the past inputs of a short convolution, are not rounded.
        rounding: "nearest"; "stochastic": up or down at random, without bias; or "feedback": the
            rounding error is kept in the same number of bits and added before the next step.
        allocate: more bits for numbers with more effect on the outputs. False: the same for all.
        every: samples from one rounding to the next.
        scale: the numbers that share a step. "number": each has its own, which is constant and
            comes from the data. "row", "head" or "tensor": all numbers of one of these, in one
            sequence, share a step, a power of 2 that follows the largest of them; `bits` is then
            a whole number, the same for all. `prepare_for_decoding` works like "row".

    Raises:
        InputError: an option is out of range, or a selective layer has no data for constant steps.
    """
    if not _FEWEST <= bits <= _MOST:
        raise InputError(f"bits must be between {_FEWEST:g} and {_MOST:g}; got {bits}")
    if rounding not in ROUNDINGS:
        raise InputError(f"rounding must be one of {', '.join(ROUNDINGS)}; got {rounding!r}")
    if scale not in SCALES:
        raise InputError(f"scale must be one of {', '.join(SCALES)}; got {scale!r}")
    if scale != "number" and bits not in _SHARED:
        raise InputError(
            f"bits must be a whole number from 2 to 16 where a {scale} shares a step; got {bits}"
        )
    if every < 1:
        raise InputError(f"every must be at least 1 sample; got {every}")
    found = sources(layer)
    if data is not None:
        seen = collect(layer, found, data, None, 1024)
        moments: list[Any] = [
            (
                x.states.square().mean(0),
                x.observe.diagonal(dim1=-2, dim2=-1)[:, None] * x.weight[..., None],
            )
            for x in seen
        ]
    elif scale == "number":
        moments = [_of_system(s) for s in found]
    else:
        moments = [(None, None)] * len(found)
    digits = Digits(int(bits), rounding)
    grids: list[AnyGrid] = [
        _grid(s, m[0], m[1], bits, allocate, digits)
        if scale == "number"
        else RowGrid(
            s.place, s.shape, None if m[1] is None else m[1].expand(s.shape), digits, scale
        )
        for s, m in zip(found, moments, strict=True)
    ]
    return QuantizedState(layer, grids, rounding, every)


def _larger(a: Tensor | None, b: Tensor) -> Tensor:
    return b if a is None else torch.maximum(a, b)


def _of_system(s: Source) -> tuple[Tensor, Tensor]:
    """P_ii and Q_ii of every number under white input."""
    if s.reach is None or s.observe is None:
        raise InputError(
            f"the range of a state of {type(s.layer).__name__} depends on its input; pass data"
        )
    P, Q = (v.diagonal(dim1=-2, dim2=-1)[:, None] for v in (s.reach, s.observe))
    return P, Q


def _grid(
    s: Source, square: Tensor, observe: Tensor, bits: float, allocate: bool, digits: Digits
) -> Grid:
    square = square.clamp(min=1e-12 * float(square.max().clamp(min=1e-30)))
    each = torch.full_like(square, bits)
    if allocate:
        each = _allocated(0.5 * torch.log2((square * observe).clamp(min=1e-300)), bits)
    levels = torch.exp2(each).floor()
    step = 2 * _DEVIATIONS * square.sqrt() / levels
    return Grid(s.place, step, levels.long(), observe.expand(s.shape), digits)


def _allocated(score: Tensor, bits: float) -> Tensor:
    """Bits of each number: its score plus a constant, within limits; their mean is `bits`."""
    fewest = min(bits, _NOISY)
    low, high = float(fewest - score.max()) - 1, float(_MOST - score.min()) + 1
    for _ in range(100):
        middle = (low + high) / 2
        mean = float((score + middle).clamp(fewest, _MOST).mean())
        low, high = (middle, high) if mean <= bits else (low, middle)
    return (score + low).clamp(fewest, _MOST)
