"""Bits and error of a codec, predicted and measured, with the kind of every number."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from longstate._numbers import cell, number
from longstate.compress._codec import StateCodec
from longstate.compress._future import future_energy, sources, states_at
from longstate.compress._park import park
from longstate.compress._parts import Rotated, Rounded
from longstate.compress._quantizer import code_length
from longstate.compress._seen import Data, batches, positions
from longstate.layers._base import State
from longstate.memory import Kind, Result
from longstate.memory._result import THIS_DATA
from longstate.stream._tree import flatten


class CodedTensor(NamedTuple):
    """One tensor of a state. Bits are per sequence. An error is the energy of the change of the
    layer's later outputs, as a share of the energy that the state adds to them.

    Attributes:
        tensor: its name in the state.
        numbers: how many numbers it holds.
        active: how many of them reverse water-filling gives bits to. None: the tensor is only
            rounded.
        shannon: the rate-distortion bound, in bits, for the error that the codec is made for, of a
            Gaussian tensor with the same covariance. No other distribution with this covariance
            needs more.
        shannon_kind: "exact" under white Gaussian input, otherwise "estimate", since the covariance
            comes from data.
        fixed: bits in fixed lengths, without outliers.
        coded: bits of an ideal entropy coder on the data; an estimate for other data.
        predicted: the error that the codec is made for.
        predicted_kind: "exact" under white Gaussian input, otherwise "estimate".
        measured: the error on the data; exact for this data.
    """

    tensor: str
    numbers: int
    active: int | None
    shannon: float | None
    shannon_kind: Kind
    fixed: float
    coded: float
    predicted: float | None
    predicted_kind: Kind
    measured: float | None


@dataclass(frozen=True, eq=False, kw_only=True)
class CodecReport(Result):
    """Size and error of parked states on some data.

    Args:
        tensors: one row for each tensor of the state.
        bits: of one parked sequence in fixed lengths, outliers included; mean over the data,
            without the header.
        coded_bits: of one sequence with an ideal entropy coder.
        state_bits: of one sequence before encoding.
    """

    tensors: tuple[CodedTensor, ...]
    bits: float
    coded_bits: float
    state_bits: int

    def rows(self) -> tuple[list[str], list[list[str]]]:
        body = [
            [
                t.tensor, str(t.numbers), cell(t.active), cell(t.shannon, t.shannon_kind),
                cell(t.fixed), cell(t.coded), cell(t.predicted, t.predicted_kind),
                cell(t.measured, "exact"),
            ]
            for t in self.tensors
        ]  # fmt: skip
        head = ["tensor", "numbers", "active", "Shannon bits", "fixed bits", "entropy bits"]
        return [*head, "error, predicted", "error, measured"], body

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        named = [dict(zip(CodedTensor._fields, t, strict=True)) for t in plain["tensors"]]
        return {**plain, "tensors": named}


def measure_codec(
    model: nn.Module, codec: StateCodec, data: Data, *, at: int | None = None
) -> CodecReport:
    """Park the states of a model on data, and measure bits and errors.

    Args:
        model: whose states the codec is for.
        codec: of `fit_codec` or `plain_codec`.
        data: (b, t, ...), or several such batches; use other data than for `fit_codec`.
        at: samples after which the state is parked. None: half of each batch.

    Raises:
        InputError: the codec is for other states, or `at` is not inside the data.
    """
    found = sources(model)
    energy = [[0.0, 0.0] for _ in found]
    lengths = dict.fromkeys((p.place.name for p in codec.rotated), 0.0)
    size, rows = 0.0, 0
    for batch in batches(data):
        (place,) = positions(batch, at or max(1, batch.shape[1] // 2))
        state = next(iter(states_at(model, batch, [place])))
        size += parked_bits(codec, state) * len(batch)
        rows += len(batch)
        for name, length in coded_bits(codec, state).items():
            lengths[name] += length
        sums = future_energy(model, found, batch, place, codec.round_trip)
        for total, (whole_energy, lost) in zip(energy, sums, strict=True):
            total[0] += whole_energy * len(batch)
            total[1] += lost * len(batch)
    measured = {
        s.place.name: lost / whole if whole else 0.0
        for s, (whole, lost) in zip(found, energy, strict=True)
    }
    lines = tuple(
        _line(part, lengths.get(part.place.name, 0.0) / rows, measured) for part in codec.parts
    )
    bits, coded = size / rows, sum(t.coded for t in lines)
    worst = max(measured.values())
    return CodecReport(
        kind="estimate",
        scope=THIS_DATA,
        sentence=f"A state of {codec.state_bits:,} bits is parked in {number(bits)} "
        f"({bits / codec.state_bits:.2%}), or in {number(coded)} by an entropy coder; what the "
        f"layers put out later changes by a share of {number(worst)} of the energy that the state "
        "adds, in the layer where that is most.",
        tensors=lines,
        bits=bits,
        coded_bits=coded,
        state_bits=codec.state_bits,
    )


def parked_bits(codec: StateCodec, state: State) -> float:
    """Bits of one sequence in fixed lengths, outliers included, without a header."""
    none = codec.state_of({name: t[:0] for name, t in flatten(state).items()})
    return 8 * (len(park(state, codec)) - len(park(none, codec))) / rows_of(state)


def coded_bits(codec: StateCodec, state: State) -> dict[str, float]:
    """Bits of an ideal entropy coder for each fitted tensor, for all sequences together."""
    tensors = codec.tensors_of(state)
    lengths = {}
    for part in codec.rotated:
        whole = torch.from_numpy(part.whole(tensors[part.place.name]))
        lengths[part.place.name] = float(code_length(whole, part.deviation).sum())
    return lengths


def plain_bits(codec: StateCodec) -> float:
    """Bits of the tensors of one sequence that are only rounded."""
    return float(sum(_plain_bits(p) for p in codec.rounded))


def rows_of(state: State) -> int:
    """Number of sequences in a state."""
    return len(next(iter(flatten(state).values())))


def _plain_bits(part: Rounded) -> int:
    return 8 * part.row_bytes + len(part.levels) * part.integers


def _line(part: Rotated | Rounded, length: float, measured: dict[str, float]) -> CodedTensor:
    name = part.place.name
    if isinstance(part, Rounded):
        count = int(torch.Size(part.place.shape).numel())
        bits = float(_plain_bits(part))
        return CodedTensor(
            name, count, None, None, "estimate", bits, bits, None, "estimate", measured.get(name)
        )
    kind: Kind = "exact" if part.gaussian else "estimate"
    fixed = float(torch.log2(part.levels.double()).sum())
    return CodedTensor(
        name, part.numbers, part.active, part.shannon, kind, fixed, length, part.target, kind,
        measured[name],
    )  # fmt: skip
