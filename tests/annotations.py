"""How annotations are checked while tests run: at the first calls of each function in each test.

A check takes longer than many of the functions that it checks, and a loop calls them alike.
"""

import inspect
from collections import Counter
from collections.abc import Callable
from functools import wraps
from typing import Any

import jaxtyping
from beartype import BeartypeConf, beartype

CALLS = 20

# an int is fine where a float is asked for
check = beartype(conf=BeartypeConf(is_pep484_tower=True))
calls: Counter[Callable[..., Any]] = Counter()
_jaxtyped = jaxtyping.jaxtyped


def _at_first(typechecker: Any) -> Callable[[Any], Any]:
    """In place of `jaxtyping.jaxtyped`, which the import hook looks up by this name."""
    decorate = _jaxtyped(typechecker=typechecker)

    def decorated(what: Any) -> Any:
        if not inspect.isfunction(what):
            return decorate(what)
        checked = decorate(what)

        @wraps(what)
        def run(*args: Any, **options: Any) -> Any:
            if jaxtyping.config.jaxtyping_disable or calls[what] >= CALLS:
                return what(*args, **options)
            calls[what] += 1
            return checked(*args, **options)

        return run

    return decorated


jaxtyping.jaxtyped = _at_first
