"""What selective layers did on data, and what smaller ones do with the same inputs.

Data is read batch by batch; of each only sums are kept.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from longstate.compress._data import Batch
from longstate.compress._selective import SelectivePlan, groups_of
from longstate.errors import InputError
from longstate.layers import Layer
from longstate.memory import widened
from longstate.memory._readout import Readout, projected_error, readout, stretches
from longstate.memory._recording import record_inputs
from longstate.systems import Trace


class Errors(NamedTuple):
    """Of one layer's recurrence on data, as shares of its output.

    Attributes:
        static: by the identity, from the states of the layer as it was. None: not computed here.
        measured: by running both.
    """

    static: float | None
    measured: float


def collect(model: nn.Module, batches: Sequence[Batch]) -> dict[str, Readout]:
    """Sums of every selective layer, by its name."""
    found: dict[str, Readout] = {}
    for batch in batches:
        for name, seen in record_inputs(model, batch).items():
            sums = readout(seen.trace, groups_of(_at(model, name)))
            found[name] = found[name].plus(sums) if name in found else sums
    return found


def errors(
    model: nn.Module,
    batches: Sequence[Batch],
    plans: Mapping[str, tuple[SelectivePlan, int, Layer]],
) -> dict[str, Errors]:
    """What the smaller layers do on the inputs that the layers got before.

    Args:
        model: as it was.
        batches: the data.
        plans: by name of a layer, its plan, units and the layer that was made.
    """
    lost, size = dict.fromkeys(plans, 0.0), dict.fromkeys(plans, 0.0)
    static: dict[str, float] = {}
    with torch.no_grad():
        wide = {name: widened(layer) for name, (_, _, layer) in plans.items()}
        for batch in batches:
            seen = record_inputs(model, batch)
            for name, (plan, r, _) in plans.items():
                if name not in seen:
                    continue
                true, near = seen[name].trace, wide[name].trace(seen[name].inputs).double()
                for y, z in zip(_outputs(true), _outputs(near), strict=True):
                    lost[name] += float((y - z).square().sum())
                    size[name] += float(y.square().sum())
                if plan.projects:
                    static[name] = static.get(name, 0.0) + float(
                        projected_error(true, *plan.projection(r))[0]
                    )
    return {
        name: Errors(
            (static[name] / size[name]) ** 0.5 if name in static and size[name] else None,
            (lost[name] / size[name]) ** 0.5 if size[name] else 0.0,
        )
        for name in plans
    }


def _outputs(trace: Trace) -> list[Tensor]:
    """y of each row (t, c): rows are few numbers, states are many."""
    rows = []
    for i in range(len(trace.x)):
        one = trace.part(rows=slice(i, i + 1))
        parts = [(p.read * z).sum(-1) + p.skip * p.x for p, z in stretches(one)]
        rows.append(torch.cat(parts, 1)[0])
    return rows


def _at(model: nn.Module, name: str) -> nn.Module:
    """The layer of that name; the model itself where that is all there is."""
    return model if name == type(model).__name__ else model.get_submodule(name)


def need_data(name: str) -> InputError:
    """For a selective layer without data."""
    return InputError(
        f"{name} depends on its input: give data, what the model usually reads, so that what its "
        "states do can be measured"
    )
