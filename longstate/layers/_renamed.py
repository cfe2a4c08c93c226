"""Options of layers that earlier versions named differently.

Names in files of earlier versions are translated when the files are read. Python calls accept the
current names only.
"""

from collections.abc import Mapping
from typing import Any

_RENAMED = {
    "s4d": {"discretization": "variant"},
    "s5": {"discretization": "variant"},
    "dss": {"kernel": "variant"},
    "linoss": {"rule": "variant"},
    "longhorn": {"update": "variant"},
    "mamba2": {"headdim": "d_head"},
    "mamba3": {"headdim": "d_head", "activation": "variant"},
}


def option_today(layer: str, option: str) -> str:
    """The current name of an option of a layer. The layer's name may be in any case."""
    return _RENAMED.get(layer.lower(), {}).get(option, option)


def options_today(layer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's options under their current names."""
    return {option_today(layer, name): value for name, value in options.items()}
