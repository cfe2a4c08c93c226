"""A codec for the states of one model: how each tensor of a state is encoded.

`fit_codec` makes a codec from a model and data. `plain_codec` makes one that rounds every tensor in
the same way. A codec holds shapes and numbers but no model. It has a file of its own, because it is
larger than a parked state.

Axes: b rows (sequences), k whole numbers of a row, of all tensors together.
"""

import hashlib
import json
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from longstate import _tensorfile as tensorfile
from longstate._facts import read as read_facts
from longstate.compress._codec_file import NUMBERS, Facts, read_parts
from longstate.compress._digits import Ints, Packing
from longstate.compress._parts import Form, Place, Rotated, Rounded
from longstate.errors import InputError
from longstate.layers._base import State
from longstate.stream._tree import flatten, init_state

_KIND = "codec"


@dataclass(frozen=True, eq=False)
class StateCodec:
    """Converts states to bytes and back; see `park`.

    Args:
        parts: one for each tensor, in the order of the state.
        structure: the nesting of the state: lists and dicts of the tensors' names.
    """

    parts: tuple[Rotated | Rounded, ...]
    structure: Any

    @cached_property
    def identity(self) -> str:
        """A hash of everything that decoding depends on, 16 hexadecimal digits."""
        facts, tensors = _facts(self), _tensors(self)
        total = hashlib.blake2b(json.dumps(facts, sort_keys=True).encode(), digest_size=8)
        for name in sorted(tensors):
            total.update(f"{name} {tuple(tensors[name].shape)}".encode())
            total.update(tensors[name].contiguous().numpy().tobytes())
        return total.hexdigest()

    @property
    def rotated(self) -> tuple[Rotated, ...]:
        """The parts that were fitted."""
        return tuple(p for p in self.parts if isinstance(p, Rotated))

    @property
    def rounded(self) -> tuple[Rounded, ...]:
        """The parts that are only rounded."""
        return tuple(p for p in self.parts if isinstance(p, Rounded))

    @property
    def state_bits(self) -> int:
        """Bits of the state of one sequence before encoding."""
        return sum(p.place.bits for p in self.parts)

    @property
    def fixed_bits(self) -> int:
        """Bits of one encoded sequence in fixed lengths, without outliers and without a header."""
        return 8 * (self.packing.row_bytes + sum(p.row_bytes for p in self.rounded))

    @cached_property
    def low(self) -> Ints:
        """Smallest whole number (k) of the fitted parts."""
        return _joined([p.low for p in self.rotated])

    @cached_property
    def levels(self) -> Ints:
        """Number of different whole numbers (k)."""
        return _joined([p.levels for p in self.rotated])

    @cached_property
    def packing(self) -> Packing:
        """The packing of all digits: fitted parts with more than one value, then the others."""
        fitted = self.levels[self.levels > 1]
        return Packing(np.concatenate([fitted, *(p.levels for p in self.rounded)]))

    def tensors_of(self, state: State) -> dict[str, Tensor]:
        """The tensors of a state by name.

        Raises:
            InputError: they are not those that the codec is for.
        """
        tensors = flatten(state)
        wanted = {p.place.name: p.place for p in self.parts}
        if tensors.keys() != wanted.keys():
            here, there = ", ".join(sorted(tensors)), ", ".join(sorted(wanted))
            raise InputError(f"the state holds {here}; the codec is for one of {there}")
        rows = {len(t) for t in tensors.values()}
        if len(rows) > 1:
            raise InputError(f"tensors of the state have different batches: {sorted(rows)}")
        for name, t in tensors.items():
            place = wanted[name]
            if t.shape[1:] != place.shape or t.dtype != place.type:
                raise InputError(
                    f"{name} is {tuple(t.shape[1:])} {t.dtype} for each sequence; the codec is for "
                    f"{place.shape} {place.type}"
                )
        return tensors

    def state_of(self, tensors: dict[str, Tensor]) -> State:
        """Tensors by name as a state."""
        return _built(self.structure, tensors)

    def park(self, state: State) -> bytes:
        """Encode a state in fixed lengths; see `longstate.compress.park`."""
        from longstate.compress._park import park  # it imports this file

        return park(state, self)

    def unpark(self, data: bytes) -> State:
        """The state that `park` was given; see `longstate.compress.unpark`."""
        from longstate.compress._park import unpark

        return unpark(data, self)

    def round_trip(self, state: State) -> State:
        """The same as `unpark(park(state, codec), codec)`, but makes no bytes."""
        tensors = self.tensors_of(state)
        out: dict[str, Tensor] = {}
        for part in self.parts:
            x = tensors[part.place.name]
            if isinstance(part, Rotated):
                out[part.place.name] = part.restore(part.whole(x))
            else:
                out[part.place.name] = part.decode(*part.encode(x))
        return self.state_of(out)

    def save(self, path: str | Path) -> None:
        """Write the codec to a file, atomically.

        Raises:
            InputError: it cannot be written.
        """
        tensorfile.save(path, _KIND, _tensors(self), {**_facts(self), "identity": self.identity})

    @classmethod
    def load(cls, path: str | Path) -> "StateCodec":
        """Read what `save` wrote.

        Raises:
            InputError: the file is missing, damaged, or no codec.
        """
        tensors, raw = tensorfile.load(path, _KIND)
        facts = read_facts(Facts, raw, f"the description in {path}")
        codec = cls(read_parts(facts, tensors, str(path)), facts.structure)
        if codec.identity != facts.identity:
            raise InputError(f"{path} is damaged: its contents are not what was written")
        return codec


def plain_codec(module: nn.Module, number: str, *, rest: str | None = None) -> StateCodec:
    """A codec that rounds every number in the same way and needs no data.

    Args:
        module: the layer or model whose states are to be parked; anything with `init_state`.
        number: "int8", "int4", "int3" or "int2", to nearest with a scale (float16) for each row of
            a tensor, its last axis; "float16" or "bfloat16"; or "exact".
        rest: the same for tensors that are not the state of a recurrence, such as the past inputs
            of a short convolution. None: as `number`.

    Raises:
        InputError: there is no such number, the module has no state, or one that grows.
    """
    for name, value in (("number", number), ("rest", rest or number)):
        if value not in NUMBERS:
            raise InputError(f"{name} must be one of {', '.join(NUMBERS)}; got {value!r}")
    parts = []
    for name, t in state_places(module).items():
        own = name.rpartition("/")[2]
        chosen = number if own == "ssm" or own.isdigit() or own == "state" else rest or number
        floats = t.dtype.is_floating_point or t.dtype.is_complex
        parts.append(Rounded(place=place_of(name, t), number=chosen if floats else "exact"))
    return StateCodec(tuple(parts), structure_of(init_state(module, 1)))


def state_places(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of an empty state of one sequence.

    Raises:
        InputError: there are none, or they grow with every sample.
    """
    if getattr(module, "grows", False):
        raise InputError(
            f"the state of this {type(module).__name__} gets longer with every sample (attention); "
            "a codec is for states of one size"
        )
    tensors = flatten(init_state(module, 1))
    if not tensors:
        raise InputError(f"this {type(module).__name__} carries no state, so none can be parked")
    return tensors


def place_of(name: str, t: Tensor, form: Form = "halves") -> Place:
    """The place of a tensor (1, *shape) in the state."""
    form = form if t.is_complex() else "real"
    return Place(name, tuple(t.shape[1:]), str(t.dtype).removeprefix("torch."), form)


def structure_of(state: State, path: str = "state") -> Any:
    """The nesting of a state as JSON values, with a name in place of each tensor."""
    if state is None:
        return None
    if isinstance(state, Tensor):
        return path
    if isinstance(state, dict):
        return {"dict": {k: structure_of(v, f"{path}/{k}") for k, v in state.items()}}
    if type(state) in (list, tuple):
        items = [structure_of(v, f"{path}/{i}") for i, v in enumerate(state)]
        return {type(state).__name__: items}
    raise InputError(f"{path} is a {type(state).__name__}; states of lists, tuples and dicts only")


def _built(structure: Any, tensors: dict[str, Tensor]) -> State:
    if structure is None:
        return None
    if isinstance(structure, str):
        return tensors[structure]
    (kind, items), *_ = structure.items()
    if kind == "dict":
        return {k: _built(v, tensors) for k, v in items.items()}
    built = [_built(v, tensors) for v in items]
    return built if kind == "list" else tuple(built)


def _joined(arrays: list[Tensor]) -> Ints:
    return np.concatenate([np.zeros(0, np.int64), *(a.numpy().astype(np.int64) for a in arrays)])


def _facts(codec: StateCodec) -> dict[str, Any]:
    parts = []
    for part in codec.parts:
        values = {f.name: getattr(part, f.name) for f in fields(part)}
        kept = {k: v for k, v in values.items() if isinstance(v, int | float | bool | str)}
        parts.append({**kept, "place": list(part.place)})
    return {"parts": parts, "structure": codec.structure}


def _tensors(codec: StateCodec) -> dict[str, Tensor]:
    return {
        f"{i}.{f.name}": getattr(part, f.name)
        for i, part in enumerate(codec.parts)
        for f in fields(part)
        if isinstance(getattr(part, f.name), Tensor)
    }
