"""Public names of a package, imported on first use.

The stub `__init__.pyi` beside a package's `__init__.py` is the table: type checkers read it, and so
does `lazy`.
"""

import ast
import pkgutil
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


def lazy(package: str) -> tuple[Callable[[str], Any], Callable[[], list[str]], list[str]]:
    """The `__getattr__`, the `__dir__` and the `__all__` of a package, given its `__name__`."""
    stub = ast.parse(pkgutil.get_data(package, "__init__.pyi") or b"")  # works in a zip file too
    home = {
        alias.name: node.module
        for node in stub.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }

    def get(name: str) -> Any:
        if name not in home:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if home[name] == package:
            return import_module(f"{package}.{name}")
        return getattr(import_module(home[name]), name)

    return get, lambda: sorted(home), sorted(home)


def public(namespace: Mapping[str, Any]) -> list[str]:
    """The public names of a namespace, for a package's `__dir__`: no modules, and no names that
    begin with an underscore."""
    return sorted(
        name
        for name, value in namespace.items()
        if not (name.startswith("_") or name == "TYPE_CHECKING" or isinstance(value, ModuleType))
    )
