"""Errors about input from outside: a file, a column, a setting."""

import difflib
import numbers
from collections.abc import Iterable


class InputError(ValueError):
    """The caller's data, folder or settings cannot be used. The message is one clear sentence."""


def near(name: str, names: Iterable[str]) -> str:
    """The names most similar to `name`, as the end of a sentence: "did you mean 'OT'?"."""
    names = [str(n) for n in names]
    lower = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name.lower(), list(lower), n=2, cutoff=0.5)
    if close:
        return "did you mean " + " or ".join(repr(lower[c]) for c in close) + "?"
    short = [n if len(n) <= 60 else n[:60] + "..." for n in names[:8]]
    shown = ", ".join(map(repr, short)) + (", ..." if len(names) > 8 else "")
    return f"there is {shown}"


def needs(what: str, package: str, extra: str) -> "InputError":
    """For an optional package that is not installed.

    Args:
        what: needs it.
        package: its name. extra: of longstate, that brings it.
    """
    return InputError(f"{what} needs {package}: pip install 'longstate[{extra}]'")


def expect(condition: bool, message: str) -> None:
    """Raise `InputError(message)`, which is a ValueError, unless `condition`."""
    if not condition:
        raise InputError(message)


SEEDS = 2**63
"""All seeds are below this number."""


def expect_whole(name: str, value: object, least: int = 1, most: int = 10**9) -> None:
    """Raise `InputError` unless `value` is a whole number from `least` to `most`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or not least <= value <= most:  # type: ignore[operator]
        range_ = f"of at least {least}" if whole and value < least else f"from {least} to {most:,}"  # type: ignore[operator]
        raise InputError(f"{name} must be a whole number {range_}; got {value!r}")
