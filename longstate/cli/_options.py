"""Make the options of a command from the fields of a settings class, so that they agree."""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

from longstate.errors import InputError


def with_settings(**classes: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Decorator: replace an argument that is a settings object by one option for each field.

        @with_settings(size=Size)
        def train(data: Path, *, size: Size) -> None: ...

    Args:
        classes: argument -> a dataclass whose docstring describes every field under `Args:`.
    """
    fields = {f.name: name for name, c in classes.items() for f in dataclasses.fields(c)}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            parts: dict[str, dict[str, Any]] = {name: {} for name in classes}
            for option, name in fields.items():
                parts[name][option] = given.pop(option)
            command(**given, **{name: classes[name](**part) for name, part in parts.items()})

        own = inspect.signature(command).parameters.values()
        parameters = [p for p in own if p.name not in classes]
        last = next((i for i, p in enumerate(parameters) if p.name == "out"), len(parameters))
        parameters[last:last] = [
            p for name, c in classes.items() for p in _parameters(c, name.capitalize())
        ]
        parameters = [p.replace(kind=p.KEYWORD_ONLY) for p in parameters]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {p.name: p.annotation for p in parameters}
        return wrapper

    return decorate


def _parameters(settings: Any, panel: str) -> list[inspect.Parameter]:
    types, helps = get_type_hints(settings), descriptions(settings)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=Annotated[
                types[field.name],
                typer.Option(help=helps.get(field.name), rich_help_panel=panel),
            ],
        )
        for field in sorted(dataclasses.fields(settings), key=lambda f: f.kw_only is True)
    ]


def descriptions(settings: Any) -> dict[str, str]:
    """For each field its text under `Args:` in the docstring of the class or of one above it."""
    above = getattr(settings, "__base__", object)
    found = {} if above is object else descriptions(above)
    text = inspect.getdoc(settings) or ""
    _, _, listed = text.partition("Args:\n")
    listed = listed.partition("\n\n")[0]
    entries = re.split(r"^    (\w+): ", listed, flags=re.M)[1:]
    pairs = zip(entries[::2], entries[1::2], strict=True)
    return found | {name: " ".join(entry.split()) for name, entry in pairs}


def numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers of an option such as 0.7,0.1,0.2.

    Raises:
        InputError: the text is not a list of numbers separated by commas.
    """
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError:
        raise InputError(f"{option} must be numbers separated by commas; got {text!r}") from None
