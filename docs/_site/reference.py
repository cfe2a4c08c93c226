"""Pages of the reference list some names; the other public names are added automatically."""

import importlib
import re

_REST = re.compile(r"^<!-- the rest of ([\w.]+) -->$", flags=re.M)
_NAMED = re.compile(r"^::: ([\w.]+)$", flags=re.M)
# Public for other packages of longstate, not for users.
INTERNAL = {"Blocks", "layer_class", "layers_of", "repeat", "widened"}


def with_rest(markdown: str) -> str:
    """Replace a line `<!-- the rest of PACKAGE -->` by the names that are not listed."""
    named = set(_NAMED.findall(markdown))
    return _REST.sub(lambda match: "\n".join(_rest(match[1], named)), markdown)


def _rest(package: str, named: set[str]) -> list[str]:
    module = importlib.import_module(package)
    lines = []
    for name in dir(module):
        value = getattr(module, name)
        home = getattr(value, "__module__", "")
        if name.startswith("_") or name in INTERNAL or named & {f"{package}.{name}", home}:
            continue
        if home.startswith(f"{package}.") and "._" not in home:  # a public file of its own
            lines += [f"## {name}", "", f"::: {home}"]
            lines += ["    options: { show_root_heading: false, show_root_toc_entry: false }", ""]
        else:
            lines += [f"::: {package}.{name}", ""]
    return lines
