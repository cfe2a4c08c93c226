"""The base of all results: numbers with their kind and their scope.

A number about memory needs two more facts: how it was obtained (kind), and for which inputs it
holds (scope). Every result has both, and a sentence in words.
"""

import json
import math
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from torch import Tensor

from longstate.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["exact", "certified", "lower_bound", "upper_bound", "estimate", "heuristic"]

THIS_DATA = "this data"
"""The scope of a number that was computed from recorded data."""

KINDS: dict[Kind, str] = {
    "exact": "a closed form or an identity, evaluated in float64",
    "certified": "proved for the whole scope, rounding included or far below the margin",
    "lower_bound": "the true value is at least this",
    "upper_bound": "the true value is at most this",
    "estimate": "from data or an approximation; comes with an error where one is known",
    "heuristic": "useful to rank or to look at; proves nothing",
}
"""The meaning of each kind."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Result:
    """Base of every result. Frozen; subclasses add their numbers as fields.

    Args:
        kind: how the numbers were obtained; see `KINDS`.
        scope: the inputs for which it holds: "all inputs", "this data", "Gaussian input".
        sentence: the result in words.

    Raises:
        InputError: the kind is not one of `KINDS`, or the scope or the sentence is empty.
    """

    kind: Kind
    scope: str
    sentence: str

    def __post_init__(self):
        if self.kind not in KINDS:
            raise InputError(f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}")
        for name in ("scope", "sentence"):
            if not getattr(self, name).strip():
                raise InputError(f"{name} must not be empty")

    def to_dict(self) -> dict[str, Any]:
        """All fields as values that JSON can hold: tensors as lists; infinities and NaN as text."""
        values = {f.name: plain(getattr(self, f.name)) for f in fields(self)}
        return {"result": type(self).__name__, **values}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), allow_nan=False)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Heads of columns, and rows of text, for `table`."""
        raise NotImplementedError

    def table(self) -> str:
        """Columns of text, under the sentence, the kind and the scope."""
        head, body = self.rows()
        widths = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
        lines = [
            "  ".join(text.rjust(w) if i else text.ljust(w) for i, (text, w) in enumerate(cells))
            for cells in (list(zip(row, widths, strict=True)) for row in [head, *body])
        ]
        label = f"{self.kind.replace('_', ' ')}; {self.scope}"
        return "\n".join([self.sentence, f"[{label}]", "", *(line.rstrip() for line in lines)])

    def __str__(self) -> str:
        return self.table()

    def plot(self) -> "Figure":
        """A figure of the result."""
        raise NotImplementedError


def plain(value: Any) -> Any:
    """Convert `value` to values that JSON can hold."""
    if isinstance(value, Result):
        return value.to_dict()
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, complex):
        return [plain(value.real), plain(value.imag)]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value
