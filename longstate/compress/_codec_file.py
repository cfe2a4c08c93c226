"""The parts of a codec from its file. What the file says is not trusted.

Every field has its type, every tensor the shape that its part needs, and every number a range in
which decoding works, so that a codec that loads can park and unpark.
"""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from longstate._facts import read, shortened
from longstate.compress._parts import Form, Place, Rotated, Rounded
from longstate.errors import InputError, expect

Number = Literal["int2", "int3", "int4", "int8", "float16", "bfloat16", "exact"]
NUMBERS: tuple[Number, ...] = get_args(Number)
"""How a plain codec may encode a tensor."""

_WIDTHS = ("float16", "bfloat16", "float32", "float64", "complex32", "complex64", "complex128")
_WHOLE = ("bool", "uint8", "int8", "int16", "int32", "int64")
_MOST = 2**31  # numbers of one tensor of a state of one sequence
_DEEPEST = 50  # levels of a structure


@dataclass(frozen=True)
class Facts:
    """What a file says of its codec: fields of each part, the structure of a state, the hash."""

    parts: tuple[dict[str, Any], ...]
    structure: Any
    identity: str


@dataclass(frozen=True)
class _Rounded:
    place: tuple[str, tuple[int, ...], str, Form]
    number: Number


@dataclass(frozen=True)
class _Rotated:
    place: tuple[str, tuple[int, ...], str, Form]
    step: float
    target: float
    total: float
    shannon: float
    active: int
    gaussian: bool


def read_parts(
    facts: Facts, tensors: dict[str, Tensor], path: str
) -> tuple[Rotated | Rounded, ...]:
    """The parts of a codec.

    Args:
        facts: of the file.
        tensors: of the file, "2.right" for `right` of part 2.
        path: of the file, for messages.

    Raises:
        InputError: a part is not one that a codec can have. Says which and why.
    """
    owned: dict[str, dict[str, Tensor]] = {}
    for name, t in tensors.items():
        number, _, field = name.partition(".")
        owned.setdefault(number, {})[field] = t
    parts: list[Rotated | Rounded] = []
    for i, raw in enumerate(facts.parts):
        what = f"{path}: part {i}"
        mine = owned.pop(str(i), {})
        parts.append(_rounded(raw, mine, what) if "number" in raw else _rotated(raw, mine, what))
    expect(not owned, f"{path} is damaged: it has tensors of no part: {', '.join(sorted(owned))}")
    names = [p.place.name for p in parts]
    found: list[str] = []
    _names(facts.structure, found, f"{path}: its structure")
    if not names or sorted(found) != sorted(names) or len(set(names)) < len(names):
        raise InputError(f"{path} is damaged: its structure is not that of its parts")
    return tuple(parts)


def _rounded(raw: dict[str, Any], tensors: dict[str, Tensor], what: str) -> Rounded:
    facts = read(_Rounded, raw, what)
    place = _place(facts.place, what)
    if tensors or (facts.number != "exact" and place.dtype in _WHOLE):
        raise InputError(f"{what} is damaged: {place.dtype} as {facts.number} has no such tensors")
    return Rounded(place=place, number=facts.number)


def _rotated(raw: dict[str, Any], tensors: dict[str, Tensor], what: str) -> Rotated:
    facts = read(_Rotated, raw, what)
    place = _place(facts.place, what)
    optional = {"left": None, "left_back": None}
    names = {f.name for f in dataclasses.fields(Rotated) if Tensor in get_args(f.type)}
    names |= {f.name for f in dataclasses.fields(Rotated) if f.type is Tensor}
    if not names - optional.keys() <= tensors.keys() <= names:
        raise InputError(f"{what} is damaged: it has the tensors {', '.join(sorted(tensors))}")
    g, r, m = _three(tensors["mean"], f"{what}: mean")
    k = (g * r * m,)
    shapes = {
        "mean": (g, r, m), "right": (g, m, m), "right_back": (g, m, m), "left": (g, r, r),
        "left_back": (g, r, r), "low": k, "levels": k, "deviation": k,
    }  # fmt: skip
    for name, t in tensors.items():
        kind = torch.int32 if name in ("low", "levels") else torch.float64
        if tuple(t.shape) != shapes[name] or t.dtype != kind or not bool(t.isfinite().all()):
            raise InputError(
                f"{what}: {name} must be finite {kind} of shape {shapes[name]}; got {t.dtype} of "
                f"shape {tuple(t.shape)}"
            )
    good = math.isfinite(facts.step) and facts.step > 0 and k[0] == _numbers(place)
    good = good and ("left" in tensors) == ("left_back" in tensors)
    good = good and bool((tensors["levels"] >= 1).all() and (tensors["deviation"] >= 0).all())
    expect(good, f"{what} is damaged: its step, levels or sizes cannot be those of a codec")
    values = {f.name: getattr(facts, f.name) for f in dataclasses.fields(facts)}
    return Rotated(**{**optional, **values, **tensors, "place": place})


def _place(facts: tuple[str, tuple[int, ...], str, Form], what: str) -> Place:
    place = Place(*facts)
    known = place.dtype in (*_WIDTHS, *_WHOLE)
    if not known or not all(0 <= n <= _MOST for n in place.shape) or _numbers(place) > _MOST:
        raise InputError(f"{what} is damaged: no state holds {shortened(facts)}")
    return place


def _numbers(place: Place) -> int:
    """Real numbers of one sequence; in whole numbers of any size."""
    return math.prod(place.shape) * (2 if place.dtype.startswith("complex") else 1)


def _three(t: Tensor, what: str) -> tuple[int, int, int]:
    expect(t.dim() == 3, f"{what} must have three axes; got shape {tuple(t.shape)}")
    g, r, m = t.shape
    return g, r, m


def _names(structure: Any, found: list[str], what: str, depth: int = 0) -> None:
    """Collect the names of tensors in a structure."""
    if structure is None:
        return
    if isinstance(structure, str):
        found.append(structure)
        return
    kinds = {"dict": dict, "list": list, "tuple": list}
    single = isinstance(structure, dict) and len(structure) == 1 and depth <= _DEEPEST
    kind, inner = next(iter(structure.items())) if single else ("", None)
    if type(inner) is not kinds.get(kind):
        raise InputError(f"{what} is damaged: it holds {shortened(structure)}")
    for part in inner.values() if isinstance(inner, dict) else inner or ():
        _names(part, found, what, depth + 1)
