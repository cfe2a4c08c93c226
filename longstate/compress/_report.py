"""The report of a reduction: sizes and errors of each layer, with the kind of each error."""

from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from longstate._numbers import cell, number
from longstate.errors import InputError
from longstate.memory import Kind, Result
from longstate.memory._result import THIS_DATA, plain

Method = Literal["auto", "balanced", "energy", "ghost", "last", "aire", "magnitude", "random"]
METHODS: dict[Method, str] = {
    "auto": "the best method for each layer: balanced truncation and refinement for linear layers, "
    "a balanced projection for heads with one decay, otherwise as energy",
    "balanced": "as auto, without the refinement by gradients",
    "energy": "the columns with the most energy in the layer's output, with gate and cancellation",
    "ghost": "columns by E h^2 C^2, the score reported for GHOST (a reconstruction: arXiv "
    "2602.11408 was not available)",
    "last": "modes by |C|^2 |B|^2 / (1 - |A|)^2, the score of LAST; sizes as for other methods",
    "aire": "modes by |C|^2 |B|^2 / (1 - |A|^2), the score of AIRE-Prune; sizes as for last",
    "magnitude": "modes by |C| |B|, columns by the norms of their weights",
    "random": "random modes or columns, for comparison",
}
"""Ways to choose the states that are kept."""


class MethodError(InputError):
    """The method is for another kind of layer."""


FULL = 0.1  # a layer is full if its error with nine tenths of its states is above this share


class ReducedLayer(NamedTuple):
    """One layer. Errors are shares of the layer's gain, or of the norm of its output on data.

    Attributes:
        layer, type: its name in the model, and its class.
        before, after: its `d_state`; equal if it was not reduced.
        method: how its states were chosen.
        predicted: error that is known without running the layer. None: there is no such number.
        kind, scope: kind of that number, and the inputs for which it holds.
        measured: error of the returned layer.
        measured_kind, measured_scope: kind and scope of that error.
        least: lower bound of the error of every layer with so few states. None: not known.
        condition: of the change of coordinates to the form of the layer's parameters.
        bytes_before, bytes_after: of its state, for one sequence.
        full: whether the layer needs more than nine tenths of its states.
        note: a remark.
        spectrum: what each unit of the state adds to the layer's output, as a share of it, in the
            order in which units are kept. Empty for a layer that cannot be reduced.
    """

    layer: str
    type: str
    before: int
    after: int
    method: str
    predicted: float | None = None
    kind: Kind = "estimate"
    scope: str = THIS_DATA
    measured: float | None = None
    measured_kind: Kind = "exact"
    measured_scope: str = THIS_DATA
    least: float | None = None
    condition: float | None = None
    bytes_before: int = 0
    bytes_after: int = 0
    full: bool = False
    note: str = ""
    spectrum: tuple[float, ...] = ()


class Healing(NamedTuple):
    """What training towards the whole model's outputs did, on the part of the data held out.

    Attributes:
        metric: what the next three are; less is better.
        before, reduced, healed: of the whole model, of the reduced one, and of what came of it.
        held_out: sequences of that part.
        steps, seconds: of the training.
        ended: "no progress", "out of time", "finished", "interrupted" or "not finite".
        why: what was not finite; empty if nothing was.
    """

    metric: str
    before: float
    reduced: float
    healed: float
    held_out: int
    steps: int
    seconds: float
    ended: str
    why: str = ""

    @property
    def sentence(self) -> str:
        found = (
            f"On the {self.held_out} sequences held out, {self.metric}: {number(self.before)} "
            f"before the reduction, {number(self.reduced)} after it, {number(self.healed)} healed."
        )
        if not self.why:
            return f"Healing took {self.seconds:.0f} s and {self.steps:,} steps. {found}"
        stopped = f"Healing stopped at step {self.steps:,}, because {self.why}"
        if self.healed < self.reduced:
            return f"{stopped}; the model has its best weights up to then. {found}"
        return f"{stopped}; the model is the reduced one, not healed."


@dataclass(frozen=True, eq=False, kw_only=True)
class Reduction(Result):
    """The report of `reduce`.

    Args:
        layers: one row for each layer that mixes along time.
        changed: norm of the change of the model's output on the data, as a share of its norm. None:
            there was no data.
        nats: mean loss of a language model before and after, in nats per token.
        healing: what healing did; None: there was none. All other numbers are measured before it;
            the errors of the layers do not hold after it.
    """

    layers: tuple[ReducedLayer, ...]
    changed: float | None = None
    nats: tuple[float, float] | None = None
    healing: Healing | None = None

    def healed(self, healing: Healing) -> "Reduction":
        """The report with that of a healing after the reduction."""
        sentence = f"{self.sentence} {healing.sentence}"
        return replace(self, healing=healing, sentence=sentence)

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
                    cell(row.predicted, row.kind), cell(row.measured, row.measured_kind),
                    cell(row.least), sizes, note,
                ]
            )  # fmt: skip
        return head, body

    def to_dict(self) -> dict[str, Any]:
        found = super().to_dict()
        rows = [dict(zip(ReducedLayer._fields, row, strict=True)) for row in found["layers"]]
        healing = None if self.healing is None else plain(self.healing._asdict())
        return {**found, "layers": rows, "healing": healing}


class Reduced(NamedTuple):
    """The result of `reduce`: the smaller model, of the kind that was given, and the report."""

    model: Any
    report: Reduction
