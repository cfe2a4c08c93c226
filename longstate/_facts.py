"""Make dataclasses from JSON values in files, with a check of every field.

Files may be damaged or wrong. No field may be missing, unknown or of another type. The dataclass
itself checks ranges. Errors are one sentence.
"""

import dataclasses
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from longstate.errors import InputError, near

T = TypeVar("T")
_LONGEST = 120  # characters of a wrong value in an error message


def read(kind: type[T], facts: object, what: str) -> T:
    """Make a dataclass from JSON values.

    Args:
        kind: the dataclass; its fields may be dataclasses, and sequences of them.
        facts: field -> value. Lists become tuples where the field is one.
        what: the beginning of an error message, such as "run/model.safetensors: its size".

    Raises:
        InputError: a field is missing, unknown, of another type, or out of its range.
    """
    hints = get_type_hints(kind)
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    given = mapping(facts, what)
    for name in given:
        if name not in fields:
            raise InputError(f"{what} has an unknown field {name!r}; {near(name, fields)}")
    for name, field in fields.items():
        absent = field.default is field.default_factory is dataclasses.MISSING
        if absent and name not in given:
            raise InputError(f"{what} lacks the field {name!r}")
    values = {name: value_of(value, hints[name], f"{what}.{name}") for name, value in given.items()}
    try:
        return kind(**values)
    except InputError as e:
        raise InputError(f"{what} is wrong: {e}") from None


def mapping(facts: object, what: str) -> dict[str, Any]:
    """Check that `facts` is a dict with texts as keys.

    Raises:
        InputError: it is not.
    """
    return value_of(facts, dict[str, Any], what)


def check_arguments(function: Callable[..., object], given: Mapping[str, Any], what: str) -> None:
    """Check that a function has these arguments, and their types.

    Raises:
        InputError: names the first argument that is wrong.
    """
    hints = get_type_hints(function)
    hints.pop("return", None)
    for name, value in given.items():
        if name not in hints:
            raise InputError(f"{what} has no option {name!r}; {near(str(name), hints)}")
        value_of(value, hints[name], f"{what}: {name}")


def value_of(value: object, hint: Any, what: str) -> Any:
    """`value` as the type `hint`: lists become tuples, and dicts become dataclasses.

    Raises:
        InputError: it is of another type.
    """
    origin, arguments = get_origin(hint), get_args(hint)
    if hint is Any or hint is object:
        return value
    if origin in (Union, types.UnionType):
        return _one_of(value, arguments, hint, what)
    if origin is Literal:
        good = any(type(value) is type(a) and value == a for a in arguments)
    elif origin in (tuple, list, Sequence):
        return _several(value, origin, arguments, hint, what)
    elif origin in (dict, Mapping):
        _expect(isinstance(value, Mapping), value, hint, what)
        return {
            value_of(k, arguments[0], f"a name in {what}"): value_of(v, arguments[1], f"{what}.{k}")
            for k, v in value.items()  # type: ignore[attr-defined]
        }
    elif dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else read(hint, value, what)  # type: ignore[arg-type]
    elif hint is float:
        good = isinstance(value, int | float) and not isinstance(value, bool)
        good = good and (isinstance(value, float) or abs(value) < 2**1000)  # type: ignore[arg-type]
        value = float(value) if good else value  # type: ignore[arg-type]
    elif hint is int:
        good = isinstance(value, int) and not isinstance(value, bool)
    else:
        good = isinstance(value, type(None) if hint is None else hint)
    _expect(good, value, hint, what)
    return value


def _one_of(value: object, kinds: tuple[Any, ...], hint: Any, what: str) -> Any:
    inner = [k for k in kinds if k is not type(None)]
    if value is None:
        _expect(len(inner) < len(kinds), value, hint, what)
        return None
    if len(inner) == 1:  # its error message is more specific
        return value_of(value, inner[0], what)
    for kind in inner:
        try:
            return value_of(value, kind, what)
        except InputError:
            continue
    return _expect(False, value, hint, what)


def _several(value: object, origin: Any, kinds: tuple[Any, ...], hint: Any, what: str) -> Any:
    _expect(isinstance(value, list | tuple), value, hint, what)
    assert isinstance(value, list | tuple)
    if origin is tuple and not (len(kinds) == 2 and kinds[1] is ...):
        _expect(len(value) == len(kinds), value, hint, what)
        inner = kinds
    else:
        inner = (kinds[0] if kinds else Any,) * len(value)
    found = [
        value_of(v, k, f"{what}[{i}]") for i, (v, k) in enumerate(zip(value, inner, strict=True))
    ]
    return found if origin is list else tuple(found)


def _expect(good: bool, value: object, hint: Any, what: str) -> None:
    if not good:
        raise InputError(f"{what} must be {_words(hint)}; got {shortened(value)}")


def shortened(value: object) -> str:
    """A value as text for an error message, shortened."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "..."


def _words(hint: Any) -> str:
    known = {
        int: "a whole number", float: "a number", str: "a text", bool: "true or false",
        type(None): "null",
    }  # fmt: skip
    origin, arguments = get_origin(hint), get_args(hint)
    if hint in known:
        return known[hint]
    if origin is Literal:
        return " or ".join(map(repr, arguments))
    if origin in (Union, types.UnionType):
        return " or ".join(map(_words, arguments))
    if origin in (tuple, list, Sequence):
        return "a list" if len(arguments) != 2 or ... in arguments else "a list of two"
    return "an object with named fields"
