"""How much an error of a state changes all later outputs: the observability Gramian Q.

    energy of the later outputs that an error e causes = e' Q e
    Q = sum over l >= 1 of (C A_{t+l} ... A_{t+1})' (C A_{t+l} ... A_{t+1})

The output at the sample of the state itself is known already, so the sum begins with the next one.
For a linear layer Q has a closed form. For a selective layer it is a mean over data, computed
backwards in time,

    Q_{t-1} = A_t' (g_t^2 C_t' C_t + Q_t) A_t         g: the gate and the norm after the scan

for each head if all rows of a head have the same decay, otherwise for each channel. Only one
sequence of one layer is in memory at a time.

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

_ENDLESS = 4096  # samples after which the sum ends if a state does not decay
_LOADED = 1e-9  # share of the mean of Q that is added to its diagonal, to make it invertible


class Source(NamedTuple):
    """A layer of a model, and the tensor that is the state of its recurrence.

    Attributes:
        layer: the layer.
        place: of that tensor.
        shape: g, r, m.
        observe (g, m, m): Q. None for a selective layer, which needs data.
        reach (g, m, m): covariance P under white input of variance 1. None for a selective layer.
    """

    layer: nn.Module
    place: Place
    shape: tuple[int, int, int]
    observe: Tensor | None = None
    reach: Tensor | None = None


def sources(module: nn.Module) -> list[Source]:
    """The layers of a model for which Q can be computed.

    Raises:
        InputError: there are none.
    """
    tensors = state_places(module)
    found = [_source(layer, name, tensors) for name, layer in _layers(module)]
    kept = [s for s in found if s is not None]
    if not kept:
        raise InputError(
            f"no layer of this {type(module).__name__} has a system or a trace, to which a codec "
            "could be fitted; use plain_codec, which rounds any state"
        )
    return kept


def _layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Each layer with a state, after the name of that state."""
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
    """For each selective layer, sums over sequences and positions of Q (g, m, m) and of the weights
    of the rows (g, r); None for a linear layer."""
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
    """The trace of a layer on each sequence of u (b, t, d), in float64."""
    wide = widened(layer)
    for row in u.split(1):
        with torch.no_grad():
            trace = wide.trace(row.double().cpu()).double()
        yield trace


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
    """Sum of Q over the states after `at` samples. power (t, g): mean square of the gate."""
    part = trace.part(
        channels=slice(None, None, r)
    )  # all rows of a head have the same decay and readout
    total = trace.x.new_zeros(g, trace.start.shape[-1], trace.start.shape[-1])
    Q = torch.zeros_like(total)
    for t in range(trace.length - 1, min(at) - 1, -1):
        read = part.read[0, t]
        Q = Q + power[t, :, None, None] * read[:, :, None] * read[:, None, :]
        # A is symmetric, so A' Q A applies it to both sides
        Q = part.carry(t, part.carry(t, Q[None]).mT)[0]
        if t in at:  # the state before sample t, after t samples
            total += Q
    return total


def states_at(module: nn.Module, data: Tensor, at: Sequence[int]) -> Iterator[State]:
    """The states of a model after each number of samples in `at`, on data (b, t, ...).

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
    """Q (g, m, m) made invertible: directions that are never read get a very small weight."""
    mean = Q.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None]
    whole = float(Q.diagonal(dim1=-2, dim2=-1).mean())
    if not whole > 0:
        raise InputError("the readout of this state is zero on this data")
    return Q + _LOADED * mean.clamp(min=_LOADED * whole) * torch.eye(Q.shape[-1]).double()


def future_energy(
    module: nn.Module, found: list[Source], data: Tensor, at: int, change: Callable[[State], State]
) -> list[tuple[float, float]]:
    """For each source, the energy that the state after `at` samples adds to the later outputs of
    its layer, and the energy that the error by `change` adds.

    Selective layers are run on the rest of the data, gate included, with their original inputs. The
    effect of an error on the later layers is not included; a task's metric shows it.
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
    """Energy that states h (b, g, r, m, 2) after `at` samples add to the outputs."""
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
