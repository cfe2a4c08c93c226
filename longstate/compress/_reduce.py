"""Make the states of a trained model smaller, and report the errors."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from longstate._numbers import number
from longstate.compress import _models as models
from longstate.compress._allocate import Allocation, even, sensitivities, spend, within
from longstate.compress._data import Batch, Given, batches_of, exchanged, nats, outputs, share
from longstate.compress._heal import check_minutes, heal
from longstate.compress._linear import LinearPlan
from longstate.compress._observed import collect, errors, need_data
from longstate.compress._oscillators import OscillatorPlan
from longstate.compress._plan import Made, Plan, d_state_of, spectrum, state_bytes
from longstate.compress._report import (
    FULL,
    METHODS,
    Method,
    MethodError,
    Reduced,
    ReducedLayer,
    Reduction,
)
from longstate.compress._selective import SelectivePlan
from longstate.errors import InputError, near
from longstate.layers import LinOSS
from longstate.memory._recording import find_layers


def reduce(
    model: Any,
    data: Given | None = None,
    *,
    keep: float | None = None,
    tol: float | None = None,
    budget: int | None = None,
    method: Method = "auto",
    allocation: Allocation = "measured",
    progress: Callable[[str], None] | None = None,
    heal_minutes: float | None = None,
) -> Reduced:
    """A copy of a model whose layers have smaller states, and a report.

        small, report = reduce(model, tokens, keep=0.25)

    Linear time-invariant layers (S4, S4D, DSS, S5, LinOSS "im") need no data. Selective layers
    (Mamba, FalconMamba, Longhorn, Mamba-2, Mamba-3) need data to measure their states; only sums
    are kept, so it may have any length. The result can be saved, loaded, streamed and reduced again
    like the model.

    Args:
        model: a `Forecaster`, a `TextModel`, a `Classifier`, a `Regressor`, a model, a stack or a
            layer. It is not changed.
        data: input of the model: tokens (b, t), or u (b, t, d); a function without arguments that
            runs the model; or a list of these. For a classifier or a regressor series, as for
            `predict`.
        keep: share of the bytes of the recurrences' states to keep.
        tol: largest error of a layer, as a share of its gain or output; each layer becomes as small
            as that allows.
        budget: bytes of the states of all layers together, for one sequence. Give exactly one of
            keep, tol and budget.
        method: see `METHODS`.
        allocation: "measured": larger states for layers with more effect on the model's output,
            which needs data. "uniform": the same share for each layer; used if there is no data.
        progress: called with the name of each layer before it is reduced.
        heal_minutes: train the result towards the outputs of `model` on the data, for so long at
            most; see `longstate.compress.heal`. None: not at all.

    Raises:
        InputError: not exactly one of keep, tol and budget is given, or it is out of range; a
            selective layer has no data; or no layer can become smaller.
    """
    _check(keep, tol, budget, method, allocation)
    module = models.inner(model)
    batches = batches_of(models.input_of(model, data))
    if heal_minutes is not None:
        check_minutes(heal_minutes)
        if not batches:
            raise InputError("healing needs data, what the model usually reads; data is None")
    plans, rows = plans_of(module, batches, method)
    if not plans:
        raise InputError(_nothing(module, rows))
    single = plans[0].layer is module
    if tol is not None:
        made = {p.name: _within(p, tol, module, batches, progress) for p in plans}
    else:
        sizes = _sizes(module, plans, batches[:1], keep, budget, single, allocation)
        made = {}
        for plan, r in zip(plans, sizes, strict=True):
            if progress is not None:
                progress(plan.name)
            made[plan.name] = _made(plan, r)
        made = _measured(made, plans, module, batches)
    for plan in plans:
        rows[plan.name] = made[plan.name].row._replace(spectrum=spectrum(plan))
    layers = {name: m.layer for name, m in made.items()}
    small = layers[plans[0].name] if single else models.with_layers(module, layers)
    report = _report(module, small, layers, rows, batches, single)
    if heal_minutes is None:
        return Reduced(models.outer(model, small), report)
    if progress is not None:
        progress("healing")
    healed = heal(small, module, batches, minutes=heal_minutes)
    return Reduced(models.outer(model, healed.model), report.healed(healed.healing))


def plans_of(
    module: nn.Module, batches: Sequence[Batch], method: Method
) -> tuple[list[Plan], dict[str, ReducedLayer]]:
    """The layers that can be reduced, and a row for every layer with a note if it cannot."""
    found = find_layers(module)
    selective = [f for f in found if not hasattr(f.layer, "system")]
    if selective and not batches:
        raise need_data(selective[0].name)
    seen = collect(module, batches, method) if selective else {}
    plans: list[Plan] = []
    rows: dict[str, ReducedLayer] = {}
    for f in found:
        d_state = d_state_of(f.layer) if hasattr(f.layer, "d_state") else 0
        size = state_bytes(f.layer)
        rows[f.name] = ReducedLayer(
            f.name, type(f.layer).__name__, d_state, d_state, "none", bytes_before=size,
            bytes_after=size,
        )  # fmt: skip
        try:
            plans.append(_plan(f.name, f.layer, seen, method))
        except (InputError, ValueError) as e:
            if len(found) == 1 or isinstance(e, MethodError):
                raise InputError(str(e)) from e
            rows[f.name] = rows[f.name]._replace(note=f"Left as it is: {e}.")
    return plans, rows


def _plan(name: str, layer: Any, seen: dict[str, Any], method: Method) -> Plan:
    models.check_layer(name, layer)
    if isinstance(layer, LinOSS):
        return OscillatorPlan(name, layer, method)
    if hasattr(layer, "system"):
        return LinearPlan(name, layer, method)
    if name not in seen:
        raise InputError("it did not run on the data")
    return SelectivePlan(name, layer, seen[name], method)


def _sizes(
    module: nn.Module,
    plans: Sequence[Plan],
    sample: Sequence[Batch],
    keep: float | None,
    budget: int | None,
    single: bool,
    allocation: Allocation,
) -> list[int]:
    whole = sum(p.full * p.unit for p in plans)
    if keep is None:
        assert budget is not None
        fixed = sum(state_bytes(f.layer) for f in find_layers(module)) - whole
        room = budget - fixed
        if room < sum(p.unit for p in plans):
            least = fixed + sum(p.unit for p in plans)
            raise InputError(
                f"budget={budget:,} bytes is too small: one state in every layer, with what cannot "
                f"be reduced (past inputs of convolutions, other layers), takes {least:,}"
            )
        keep = min(1.0, room / whole)
    if single or len(plans) == 1 or not sample or allocation == "uniform":
        return even(plans, keep)
    weights = sensitivities(module, plans, sample[0])
    return spend(plans, weights, keep * whole)


def _made(plan: Plan, r: int) -> Made:
    """A layer with r units, or with more if that is not possible."""
    if r >= plan.full:
        size, d_state = state_bytes(plan.layer), d_state_of(plan.layer)
        row = ReducedLayer(
            plan.name, type(plan.layer).__name__, d_state, d_state, "none", predicted=0.0,
            kind="exact", scope="all inputs", measured=0.0, measured_kind="exact",
            measured_scope="all inputs", bytes_before=size, bytes_after=size,
            full=plan.tail(max(1, plan.full * 9 // 10)) > FULL**2,
        )  # fmt: skip
        return Made(copy.deepcopy(plan.layer), row)
    try:
        return plan.make(r)
    except InputError:
        return _made(plan, r + 1)


def _measured(
    made: dict[str, Made], plans: Sequence[Plan], module: nn.Module, batches: Sequence[Batch]
) -> dict[str, Made]:
    """The same, with the errors on data of those selective layers that became smaller."""
    smaller = {
        p.name: (p, made[p.name].row.after, made[p.name].layer)
        for p in plans
        if isinstance(p, SelectivePlan) and made[p.name].row.after < p.full
    }
    found = dict(made)
    for name, error in errors(module, batches, smaller).items():
        found[name] = made[name]._replace(row=error.put_into(made[name].row))
    return found


def _within(
    plan: Plan,
    tol: float,
    module: nn.Module,
    batches: Sequence[Batch],
    progress: Callable[[str], None] | None,
) -> Made:
    if progress is not None:
        progress(plan.name)
    r = within(plan, tol)
    while True:
        made = _measured({plan.name: _made(plan, r)}, [plan], module, batches)[plan.name]
        error = made.row.measured
        if r >= plan.full:
            half = plan.error(max(1, plan.full // 2))
            note = f"With half of its states, the error would be {number(half)}."
            return made._replace(row=made.row._replace(note=note, full=True))
        if error is not None and error <= tol:
            return made
        r = min(plan.full, r + max(1, plan.full // 16))


def _report(
    module: nn.Module,
    small: nn.Module,
    layers: dict[str, Any],
    rows: dict[str, ReducedLayer],
    batches: Sequence[Batch],
    single: bool,
) -> Reduction:
    changed, costs = 0.0, []
    for batch in batches:
        true = outputs(module, batch)
        if single:
            other = outputs(small, batch)
        else:
            with exchanged(module, layers):
                other = outputs(module, batch)
        changed = max(changed, share(true, other))
        one, two = nats(module, batch, true), nats(module, batch, other)
        if one is not None and two is not None:
            costs.append((one, two))
    cost = None
    if costs:
        cost = sum(c[0] for c in costs) / len(costs), sum(c[1] for c in costs) / len(costs)
    return Reduction(
        kind="estimate" if batches else "upper_bound",
        scope="each layer alone; see its row",
        sentence=_sentence(list(rows.values()), changed if batches else None, cost),
        layers=tuple(rows.values()),
        changed=changed if batches else None,
        nats=cost,
    )


def _sentence(rows: list[ReducedLayer], changed: float | None, cost: Any) -> str:
    before, after = sum(r.bytes_before for r in rows), sum(r.bytes_after for r in rows)
    said = f"The state of one sequence goes from {before:,} to {after:,} bytes"
    if cost is not None:
        said += f"; the loss per token is {cost[0]:.4f} nats before and {cost[1]:.4f} after"
    elif changed is not None:
        said += f"; outputs on the data change by up to {100 * changed:.2g} %"
    full = [r.layer for r in rows if r.full]
    if full:
        names = ", ".join(full[:4]) + (f" and {len(full) - 4} more" if len(full) > 4 else "")
        said += f". Layers that need all of their states: {names}"
    return said + "."


def _check(
    keep: float | None, tol: float | None, budget: int | None, method: str, allocation: str
) -> None:
    given = {"keep": keep, "tol": tol, "budget": budget}
    named = [name for name, value in given.items() if value is not None]
    if len(named) != 1:
        raise InputError(
            f"give one of keep, tol and budget; got {' and '.join(named) or 'none of them'}"
        )
    if keep is not None and not 0 < keep <= 1:
        raise InputError(f"keep must be a share above 0 and at most 1; got {keep}")
    if tol is not None and not 0 < tol < math.inf:
        raise InputError(f"tol must be an error above 0, as a share; got {tol}")
    if method not in METHODS:
        raise InputError(f"there is no method {method!r}; {near(method, list(METHODS))}")
    if allocation not in ("measured", "uniform"):
        raise InputError(f"allocation must be 'measured' or 'uniform'; got {allocation!r}")


def _nothing(module: nn.Module, rows: dict[str, ReducedLayer]) -> str:
    if rows:
        first = next(iter(rows.values()))
        return f"no layer can become smaller; first {first.layer}: {first.note}".rstrip(".")
    return f"this {type(module).__name__} has no layer whose state can become smaller"
