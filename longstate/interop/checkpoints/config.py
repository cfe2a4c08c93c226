"""Read config.json with a check of every value."""

from collections.abc import Mapping
from typing import Any

from longstate.errors import InputError

_MOST, _MOST_LAYERS = 10**9, 1000  # a file with larger values is damaged, and memory would run out


class Config:
    """A JSON object of settings.

    Args:
        values: the object.
        source: its name in errors.
    """

    def __init__(self, values: Mapping[str, Any], source: str):
        self.values, self.source = values, source

    def whole(self, name: str, default: int | None = None) -> int:
        """A size: from 1 to 10^9. Without a default it is required."""
        if name not in self.values and default is None:
            raise InputError(f"{self.source} lacks {name!r}")
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= _MOST:
            raise self.wrong(name, "a whole number from 1 to 10^9")
        return value

    def number(self, name: str, default: float) -> float:
        """A number above 0."""
        value = self.values.get(name, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self.wrong(name, "a number above 0")
        return float(value)

    def flag(self, name: str, default: bool) -> bool:
        """true or false."""
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise self.wrong(name, "true or false")
        return value

    def token(self, name: str, default: int | None) -> int | None:
        """A token, or None for null."""
        value = self.values.get(name, default)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self.wrong(name, "a whole number or null")
        return value

    def layers(self, name: str, layer: str) -> tuple[str, ...]:
        """The name `layer`, repeated as often as the setting `name` says."""
        count = self.whole(name)
        if count > _MOST_LAYERS:
            raise self.wrong(name, f"at most {_MOST_LAYERS}")
        return (layer,) * count

    def limits(self, name: str) -> list[float | None] | None:
        """Smallest and largest step, None for no largest; None if there is no limit."""
        pair = self.values.get(name)
        if pair is None:
            return None
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise self.wrong(name, "two numbers")
        # JSON has no infinity: transformers writes an object for it
        numbers = [float("inf") if v == {"__float__": "Infinity"} or v is None else v for v in pair]
        for value in numbers:
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                raise self.wrong(name, "two numbers of at least 0")
        least, most = map(float, numbers)
        if most < least or least == float("inf"):
            raise self.wrong(name, "a smallest step and a larger one")
        if most == float("inf"):
            return None if least == 0 else [least, None]
        return [least, most]

    def must_be(self, name: str, *allowed: object) -> None:
        """Refuse other values, which would change the results of the model."""
        if name in self.values and self.values[name] not in allowed:
            raise InputError(
                f"{self.source}: {name} = {self.values[name]!r} is not implemented, only "
                f"{' or '.join(map(repr, allowed))}"
            )

    def wrong(self, name: str, expected: str) -> InputError:
        return InputError(
            f"{self.source}: {name} must be {expected}; got {self.values.get(name)!r}"
        )
