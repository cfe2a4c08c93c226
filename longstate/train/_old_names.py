"""Names of settings in files of older versions; converted when a file is read."""

from collections.abc import Mapping
from typing import Any

ADDED = {
    "weight_decay": "0.1", "dynamics_rate": "None", "gate": "glu", "state_budget": "0.0",
    "shrink_to": "None", "dtype": "float32",
}  # fmt: skip
"""Settings that an older version did not write into a run's checkpoint -> the value that it used,
as text."""

FREE = frozenset({"parallel", "accumulate", "segment"})
"""Settings that a continued run may change: a step is the same with any of them, to rounding."""

_RENAMED = {"layer": "layers", "batch": "batch_size", "shares": "split"}


def renamed(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings under the names of this version. Spaces become underscores."""
    names = {name: name.replace(" ", "_") for name in facts}
    return {_RENAMED.get(names[name], names[name]): value for name, value in facts.items()}
