"""Convert the identity in a saved state to current names.

Earlier versions used other names. A layer that was prepared for decoding has the same states as the
original layer. Settings that do not affect a state are left out.
"""

import dataclasses
import json
from typing import Any

from longstate.errors import InputError
from longstate.layers._renamed import option_today
from longstate.models import LanguageSpec

_CLASSES = {
    "Backbone": "Stack",
    "MixerBlock": "Block",
    "DecodingBlock": "Block",
    "DecodingMamba": "Mamba",
}

_NO_LIMIT: dict[str, Any] = {"dt_limit": [0.0, None]}
_ADDED = {"Mamba": _NO_LIMIT, "FalconMamba": _NO_LIMIT, "Mamba2": _NO_LIMIT}
"""Settings that earlier versions did not have, and the values that these versions used."""


def today(identity: dict[str, Any]) -> dict[str, Any]:
    """An identity (see `longstate.stream._identity`) with current names.

    Args:
        identity: of this or an earlier version. It is not changed.
    """
    settings = identity["settings"]
    classes = {
        path.removesuffix("class").removesuffix("."): name
        for path, name in settings.items()
        if path.split(".")[-1] == "class"
    }
    renamed = {}
    for key, value in settings.items():
        path, _, name = key.rpartition(".")
        owner = classes.get(path, "")
        if owner == "Dropout":  # has no effect outside training
            continue
        if name == "class":
            value = _CLASSES.get(value, value)
        elif name == "spec" and owner == "LanguageModel":
            value = _spec(value)
        name = option_today(owner, name)
        renamed[f"{path}.{name}".removeprefix(".")] = value
    for path, owner in classes.items():
        for name, value in _ADDED.get(owner, {}).items():
            renamed.setdefault(f"{path}.{name}".removeprefix("."), value)
    return {**identity, "settings": renamed}


def _spec(value: Any) -> Any:
    """The description of a language model with all current fields."""
    try:
        return json.loads(json.dumps(dataclasses.asdict(LanguageSpec.from_facts(value))))
    except (InputError, TypeError):
        return value  # then it differs, and the comparison says so
