"""How a layer was made."""

import functools
import inspect
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from torch import nn

from longstate.errors import InputError


def remembering(init: Callable[..., None]) -> Callable[..., None]:
    """Wrap a constructor: it keeps its arguments in `_made_with`, so that a saved layer can be
    built again. If a class calls its parent's constructor, the class's own arguments are kept.

    Options that cannot be used raise InputError, also where the class raises ValueError.
    """

    @functools.wraps(init)
    def wrapper(self: nn.Module, *args: Any, **options: Any) -> None:
        if "_made_with" not in vars(self):
            with suppress(TypeError):  # wrong arguments: `init` raises a better message
                given = inspect.signature(init).bind(self, *args, **options).arguments
                vars(self)["_made_with"] = dict(list(given.items())[1:])
        try:
            init(self, *args, **options)
        except ValueError as e:
            raise InputError(str(e)) from e

    return wrapper
