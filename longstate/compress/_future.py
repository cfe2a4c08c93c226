"""What a state is read for: the energy of all later outputs that an error of it adds to.

    Q = sum over l >= 1 of (what l more samples leave of the state)' C' C (...)      e' Q e

The output of the sample that made the state is already there, so the sum begins with the next one.
For a linear layer Q is a closed form; the Hankel singular values are of P and this Q. For a
selective one it is the mean over data, by the recursion backwards in time

    Q_{t-1} = A_t' (g_t^2 C_t' C_t + Q_t) A_t         g: the gate and the norm behind the scan

for each head where all rows of a head decay alike, for each channel elsewhere. One sequence and one
layer is held at a time.

Axes: b rows (sequences), t time, g groups of coordinates, r rows of a group, m numbers of a row.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from longstate.compress._codec import place_of, state_places
from longstate.compress._parts import Place
from longstate.errors import InputError
from longstate.layers._base import State
from longstate.memory import widened
from longstate.memory._gramians import gramians, real_matrices
from longstate.memory._recording import run_once
from longstate.stream._tree import flatten, init_state
from longstate.systems import DenseSystem, Trace

_ENDLESS = 4096  # samples that count where nothing is ever forgotten
_LOADED = 1e-9  # share of the mean of Q that is added to it, so that it has an inverse


class Source(NamedTuple):
    """A layer of a model, and the tensor of the state that its recurrence keeps.

    Attributes:
        layer: itself.
        place: of that tensor.
        shape: g, r, m.
        observe (g, m, m): Q. None until data was read.
        reach (g, m, m): P under white input of variance 1. None where the layer is selective.
    """

    layer: nn.Module
    place: Place
    shape: tuple[int, int, int]
    observe: Tensor | None = None
    reach: Tensor | None = None


def sources(module: nn.Module) -> list[Source]:
    """The layers of a model whose states can be coded by what is read of them.

    Raises:
        InputError: there are none.
    """
    tensors = state_places(module)
    found = [_source(layer, name, tensors) for name, layer in _layers(module)]
    kept = [s for s in found if s is not None]
    if not kept:
        raise InputError(
            f"no layer of this {type(module).__name__} says what its state is read for (system or "
            "trace); plain_codec rounds any state"
        )
    return kept


def _layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """The name of its state, and each layer with a state of its own."""
    if hasattr(module, "each_block"):
        for i, block in enumerate(module.each_block()):  # type: ignore[operator]
            yield f"state/{i}", block.mixer
    else:
        yield "state", module


def _source(layer: Any, name: str, tensors: dict[str, Tensor]) -> Source | None:
    if hasattr(layer, "trace"):
        name = f"{name}/ssm"
        shape = tuple(tensors[name].shape[1:])
        groups = shape if len(shape) == 3 else (shape[0], 1, shape[1])
        return Source(layer, place_of(name, tensors[name]), groups)
    if not hasattr(layer, "system") or name not in tensors:
        return None
    with torch.no_grad():
        system = widened(layer).system()
        A, _, _ = real_matrices(system)
        try:
            P, Q = gramians(system)
        except InputError:
            P, Q = gramians(system, _ENDLESS)
        Q = (A.mT @ Q @ A).reshape(-1, *Q.shape[-2:])
    paired = tensors[name].is_complex() and isinstance(system, DenseSystem)
    place = place_of(name, tensors[name], "pairs" if paired else "halves")
    return Source(layer, place, (len(Q), 1, Q.shape[-1]), Q, P.reshape(Q.shape))


def observed(module: nn.Module, found: list[Source], data: Tensor, at: Sequence[int]) -> list[Any]:
    """Sums over sequences and positions, for each source: Q (g, m, m) and the weights of the rows
    (g, r); None for a linear layer."""
    selective = [s for s in found if s.observe is None]
    inputs = _inputs(module, [s.layer for s in selective], data)
    sums = {id(s): _of_layer(s, inputs[id(s.layer)], at) for s in selective}
    return [sums.get(id(s)) for s in found]


def _inputs(module: nn.Module, layers: list[nn.Module], data: Tensor) -> dict[int, Tensor]:
    got: dict[int, Tensor] = {}

    def keep(layer: nn.Module, args: Any, kwargs: Any) -> None:
        got[id(layer)] = (args[0] if args else kwargs["u"]).detach()

    hooks = [layer.register_forward_pre_hook(keep, with_kwargs=True) for layer in layers]
    run_once(module, data, hooks)
    return got


def traces(layer: nn.Module, u: Tensor) -> Iterator[Trace]:
    """What a layer did with each sequence of u (b, t, d) by itself, in float64."""
    wide = widened(layer)
    for row in u.split(1):
        with torch.no_grad():
            yield wide.trace(row.double().cpu()).double()


def _of_layer(s: Source, u: Tensor, at: Sequence[int]) -> tuple[Tensor, Tensor]:
    g, r, m = s.shape
    Q, weight = torch.zeros(g, m, m).double(), torch.zeros(g, r).double()
    for trace in traces(s.layer, u):
        gate = torch.ones_like(trace.gain) if trace.gate is None else trace.gate
        power = gate[0].square().reshape(-1, g, r)
        weight += len(at) * power.mean(0)
        Q += _backward(trace, power.mean(2), g, r, set(at))
    return Q, weight


def _backward(trace: Trace, power: Tensor, g: int, r: int, at: set[int]) -> Tensor:
    """Sum of Q over the states after so many samples. power (t, g): of the gate."""
    part = trace.part(channels=slice(None, None, r))  # rows of a head decay and read alike
    total = trace.x.new_zeros(g, trace.start.shape[-1], trace.start.shape[-1])
    Q = torch.zeros_like(total)
    for t in range(trace.length - 1, min(at) - 1, -1):
        read = part.read[0, t]
        Q = Q + power[t, :, None, None] * read[:, :, None] * read[:, None, :]
        # a step's matrix is symmetric, so that A' Q A is what it leaves of both sides
        Q = part.carry(t, part.carry(t, Q[None]).mT)[0]
        if t in at:  # the state before sample t, after t samples
            total += Q
    return total


def states_at(module: nn.Module, data: Tensor, at: Sequence[int]) -> Iterator[State]:
    """The states of a model after so many samples of data (b, t, ...), one position after another.

    Raises:
        InputError: the model cannot read the data.
    """
    training, state, done = module.training, init_state(module, len(data)), 0
    try:
        module.eval()
        for end in at:
            with torch.no_grad():
                _, state = module(data[:, done:end], state)
            yield state
            done = end
    except ValueError as e:
        raise InputError(f"the model cannot read this data: {e}") from e
    finally:
        module.train(training)


def loaded(Q: Tensor) -> Tensor:
    """Q (g, m, m) with an inverse: what is never read is kept, too, but at no cost."""
    mean = Q.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    whole = float(Q.diagonal(dim1=-2, dim2=-1).mean())
    if not whole > 0:
        raise InputError("nothing is read of this state on this data: its readout is zero")
    return Q + _LOADED * mean.clamp(min=_LOADED * whole) * torch.eye(Q.shape[-1]).double()


def future_energy(
    module: nn.Module, found: list[Source], data: Tensor, at: int, change: Callable[[State], State]
) -> list[tuple[float, float]]:
    """For each source, the energy of the later outputs of its layer that follow from the state
    after `at` samples, and from the error that `change` makes of it.

    Selective layers by their own recurrence on the rest of the data, gate included, and with the
    inputs that they had: what an error does to the layers behind is in a task's metric, not here.
    """
    state = next(iter(states_at(module, data, [at])))
    before, after = flatten(state), flatten(change(state))
    selective = [s for s in found if s.observe is None]
    inputs = _inputs(module, [s.layer for s in selective], data)
    out = []
    for s in found:
        real = [s.place.real(v[s.place.name]).reshape(len(data), *s.shape) for v in (before, after)]
        pair = [real[0], real[1] - real[0]]
        if s.observe is not None:
            Q = s.observe
            energy = [float(torch.einsum("bgri,gij,bgrj->", e, Q, e)) for e in pair]
        else:
            energy = _carried(s, inputs[id(s.layer)], at, torch.stack(pair, -1))
        out.append((energy[0] / len(data), energy[1] / len(data)))
    return out


def _carried(s: Source, u: Tensor, at: int, h: Tensor) -> list[float]:
    """Energy of the outputs after `at` samples of states h (b, g, r, m, 2)."""
    total = torch.zeros(h.shape[-1]).double()
    for trace, row in zip(traces(s.layer, u), h.split(1), strict=True):
        now = row.flatten(1, 2)
        for t in range(at, trace.length):
            now = trace.carry(t, now)
            y = (trace.read[:, t, :, :, None] * now).sum(2)
            if trace.gate is not None:
                y = y * trace.gate[:, t, :, None]
            total += y.square().sum((0, 1))
    return [float(v) for v in total]
