"""Options of layers that were called otherwise before, for files of earlier versions.

What an earlier version wrote is put into today's words as it is read, by whoever reads it. Python
calls use today's words only.
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
    """Today's word for an option of a layer, whose name may be in any case."""
    return _RENAMED.get(layer.lower(), {}).get(option, option)


def options_today(layer: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """A layer's options in today's words."""
    return {option_today(layer, name): value for name, value in options.items()}
