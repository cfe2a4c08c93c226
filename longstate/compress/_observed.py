"""Statistics of selective layers on data, and the errors of reduced layers on the same inputs.

Data is read batch by batch. Only sums are kept.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longstate.compress._data import Batch
from longstate.compress._report import Method, ReducedLayer
from longstate.compress._selective import SelectivePlan, groups_of, projects
from longstate.errors import InputError
from longstate.layers import Layer
from longstate.memory import Kind, widened
from longstate.memory._readout import (
    Readout,
    projected_error,
    readout,
    samples,
    spacing,
    stretches,
)
from longstate.memory._recording import inputs_of
from longstate.systems import Trace


class Errors(NamedTuple):
    """Errors of one reduced layer on data, as shares of the norm of the recurrence's output.

    Attributes:
        static: computed from the states of the original layer alone. None: not computed here.
        measured: by running both layers.
        kind: "exact" for this data; an estimate for it if some samples stand for all.
    """

    static: float | None
    measured: float
    kind: Kind = "exact"

    def put_into(self, row: ReducedLayer) -> ReducedLayer:
        """The row of that layer, with these errors."""
        predicted = row.predicted if self.static is None else self.static
        kind: Kind = "estimate" if "estimate" in (row.kind, self.kind) else row.kind
        return row._replace(
            predicted=predicted, kind=kind, measured=self.measured, measured_kind=self.kind
        )


def collect(model: nn.Module, batches: Sequence[Batch], method: Method) -> dict[str, Readout]:
    """The sums for every selective layer, by name."""
    found: dict[str, Readout] = {}
    for batch in batches:
        for f, u, _ in inputs_of(model, batch):
            layer, groups = widened(f.layer), groups_of(f.layer)
            columns = not projects(f.layer, method)
            for trace in samples(layer, u, spacing(layer, u)):
                sums = readout(trace, groups, columns=columns)
                found[f.name] = found[f.name].plus(sums) if f.name in found else sums
    return found


def errors(
    model: nn.Module,
    batches: Sequence[Batch],
    plans: Mapping[str, tuple[SelectivePlan, int, Layer]],
) -> dict[str, Errors]:
    """Errors of reduced layers, given the inputs of the original layers.

    Args:
        model: the original model.
        batches: the data.
        plans: for each layer's name its plan, its number of units and the reduced layer.
    """
    lost, size = dict.fromkeys(plans, 0.0), dict.fromkeys(plans, 0.0)
    static: dict[str, float] = {}
    kinds: dict[str, Kind] = dict.fromkeys(plans, "exact")
    reduced = {name: widened(layer) for name, (_, _, layer) in plans.items()}
    for batch in batches if plans else ():
        for f, u, _ in inputs_of(model, batch):
            if f.name not in plans:
                continue
            plan, r, _ = plans[f.name]
            whole = widened(f.layer)
            every = spacing(whole, u)
            if every > 1:
                kinds[f.name] = "estimate"
            pairs = zip(samples(whole, u, every), samples(reduced[f.name], u, every), strict=True)
            for true, near in pairs:
                y = _outputs(true)
                lost[f.name] += float((y - _outputs(near)).square().sum())
                size[f.name] += float(y.square().sum())
                if plan.projects:
                    more = float(projected_error(true, *plan.projection(r))[0])
                    static[f.name] = static.get(f.name, 0.0) + more
    return {
        name: Errors(
            (static[name] / size[name]) ** 0.5 if name in static and size[name] else None,
            (lost[name] / size[name]) ** 0.5 if size[name] else 0.0,
            kinds[name],
        )
        for name in plans
    }


def _outputs(trace: Trace) -> Tensor:
    """y (b, t, c), piece by piece, because the states take much memory."""
    return torch.cat([(p.read * z).sum(-1) + p.skip * p.x for p, z in stretches(trace)], 1)


def need_data(name: str) -> InputError:
    """The error for a selective layer without data."""
    return InputError(
        f"the states of {name} depend on its input, so give data: what the model usually reads"
    )
