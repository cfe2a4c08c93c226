"""What a reduction did, layer by layer, and what kind of number each of its errors is."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from longstate._numbers import number
from longstate.errors import InputError
from longstate.memory import Kind, Result

Method = Literal["auto", "balanced", "energy", "ghost", "last", "aire", "magnitude", "random"]
METHODS: dict[Method, str] = {
    "auto": "the best for each layer: balanced and refined where the layer is linear, a balanced "
    "projection where a state has one decay, and the columns missed least elsewhere",
    "balanced": "as auto, without the refinement by gradient",
    "energy": "columns by what leaves the layer of them, cancellation included, gate included",
    "ghost": "columns by E h^2 C^2, the score reported for GHOST (a reconstruction: arXiv "
    "2602.11408 was not available)",
    "last": "modes by |C|^2 |B|^2 / (1 - |A|)^2, the score of LAST; sizes as for other methods",
    "aire": "modes by |C|^2 |B|^2 / (1 - |A|^2), the score of AIRE-Prune; sizes likewise",
    "magnitude": "modes by |C| |B|, columns by the weights that write and read them",
    "random": "modes or columns drawn at random: what a method has to beat",
}
"""Ways to choose what is kept."""


class MethodError(InputError):
    """A method that is not for a kind of layer."""


FULL = 0.1  # error, of a layer's own size, at nine tenths of its states: nothing is spare


class ReducedLayer(NamedTuple):
    """One layer. Errors are shares of the layer's own size: of its gain, or of its output on data.

    Attributes:
        layer, type: its name in the model, and its class.
        before, after: its `d_state`. Equal where it was left as it was.
        method: how its states were chosen.
        predicted: error that was known before anything was run; None: there is no such number.
        kind, scope: what sort of number that is, and for which inputs it holds.
        measured: error that was found afterwards, of the layer that is returned.
        measured_kind, measured_scope: likewise.
        least: what no layer with so few states can do better than. None: not known.
        condition: of the change of coordinates by which the layer kept its kind.
        bytes_before, bytes_after: of its state, for one sequence.
        full: whether even nine tenths of its states are not enough for it.
        note: what else there is to know.
    """

    layer: str
    type: str
    before: int
    after: int
    method: str
    predicted: float | None = None
    kind: Kind = "estimate"
    scope: str = "this data"
    measured: float | None = None
    measured_kind: Kind = "exact"
    measured_scope: str = "this data"
    least: float | None = None
    condition: float | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    full: bool = False
    note: str = ""


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduction(Result):
    """A report.

    Args:
        layers: one row for each layer that mixes along time.
        changed: how much the model's output changed on the data, as a share of its size. None:
            there was no data.
        nats: of a language model, what the next token costs before and after, in nats per token.
    """

    layers: tuple[ReducedLayer, ...]
    changed: float | None = None
    nats: tuple[float, float] | None = None

    @property
    def bytes_before(self) -> int:
        return sum(row.bytes_before for row in self.layers)

    @property
    def bytes_after(self) -> int:
        return sum(row.bytes_after for row in self.layers)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        head = ["layer", "type", "states", "predicted", "measured", "at least", "bytes", ""]
        body = []
        for row in self.layers:
            note = f"full. {row.note}".strip() if row.full else row.note
            sizes = f"{row.bytes_before:,} to {row.bytes_after:,}"
            body.append(
                [
                    row.layer, row.type, f"{row.before} to {row.after}",
                    _share(row.predicted, row.kind), _share(row.measured, row.measured_kind),
                    _share(row.least), sizes, note,
                ]
            )  # fmt: skip
        return head, body

    def to_dict(self) -> dict[str, Any]:
        plain = super().to_dict()
        rows = [dict(zip(ReducedLayer._fields, row, strict=True)) for row in plain["layers"]]
        return {**plain, "layers": rows}


class Reduced(NamedTuple):
    """What `reduce` returns: something of the kind that it was given, and the report."""

    model: Any
    report: Reduction


def _share(x: float | None, kind: str = "") -> str:
    return "-" if x is None else f"{number(x)} {kind.replace('_', ' ')}".strip()
