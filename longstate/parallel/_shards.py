"""One sequence cut along time: every rank has a piece, and the ranks pass states.

A layer is exact from any state, so that a rank only needs the state before its first sample. There
are four ways to it, by kind of layer; a fifth brings the whole sequence to every rank.

Axes: b batch, t time (of this rank's piece), d channels.
"""

from collections.abc import Callable, Iterator
from types import MethodType
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from longstate.errors import InputError
from longstate.layers import Attention, Layer
from longstate.layers._base import State, as_options, check_call
from longstate.layers._wrapper import Wrapper
from longstate.models._stack import Blocks
from longstate.parallel._line import Line
from longstate.parallel._prefix import LINEAR, state_before
from longstate.parallel._scans import sharded

M = TypeVar("M", bound=nn.Module)
Run = Callable[..., tuple[Tensor, State]]


def shard_time(model: M, mesh: DeviceMesh, *, micro_batches: int = 1) -> M:
    """Cut sequences along time over the ranks of a mesh, exactly, forward and backward.

        mesh = init_device_mesh("cpu", (4,))
        model = shard_time(model, mesh)
        y, state = model(piece)           # the rank's own samples, in the order of the ranks
        loss(y).backward()
        sum_gradients(model, mesh)

    The model is changed in place; names and values of its parameters stay. Every rank calls it with
    its piece of the same rows. Pieces may have any lengths of at least 1. All ranks give the same
    options (`mask`, `reset`, `dt`, `rate`) and run backward from a loss of their own outputs. The
    state that is given counts on rank 0; the one that is returned is that after the rank's own last
    sample, so that of the last rank is the state after the sequence. `Layer.step`, `torch.func` and
    second derivatives are not for a sharded model.

    What a rank sends to another in each layer, and as much for the gradients; R is the number of
    ranks, b that of rows:

    - S4, HOPE, S4D, DSS, S5, LinOSS: all ranks work at once. log2(R) messages (rounded up) of a
      state and the product of the steps of a piece, and one message of a state. The product has as
      many numbers as the state of a row if the layer is diagonal, four for each oscillator, and
      d_model d_state^2 in S4 and HOPE. It is sent once for all rows, or for each row with a mask,
      reset or dt. The layer runs twice, and three times with dt (LinOSS: four).
    - Mamba, FalconMamba, Longhorn ("diagonal"), Mamba2, Mamba3, GatedSSM, LinearCDE ("diagonal"),
      ConvS5: the same, with a product for each row. It is of the size of the state; one number
      for each head in Mamba2 and Mamba3. Before, the past inputs of the convolution come in as
      many messages: b times (d_conv - 1) rows and (d_conv - 1)^2 numbers; in Mamba3 twice as many,
      of an angle and of a sample. Projections run once, the scan twice; that of Longhorn,
      GatedSSM, LinearCDE and ConvS5 three times.
    - Attention: an all-gather of the keys and values of all samples, or of `window - 1` from each
      rank. The backward pass sums the gradients of all ranks.
    - SMR, Timed, Spiking: what the layer inside sends; SMR its past inputs as well, like those of a
      convolution.
    - Layers with `bidirectional=True`: an all-gather of the input; every rank runs the layer on
      the whole sequence.
    - All other layers: one message of a state for each micro-batch, from the left neighbour to the
      right one. A rank is at work as soon as its left neighbour has left the layer, so that layers
      and micro-batches form a pipeline.

    Args:
        model: a layer, or a model of blocks.
        mesh: one axis of ranks; rank 0 has the first samples.
        micro_batches: parts of the batch in a layer that passes its state on. The pipeline needs
            about as many layers times parts as there are ranks.

    Returns:
        The model.

    Raises:
        InputError: the mesh has several axes, there is no layer, a layer is sharded already, the
            model runs in segments, or `micro_batches` is below 1.
    """
    if micro_batches < 1:
        raise InputError(f"micro_batches must be at least 1; got {micro_batches}")
    found = list(_layers(model))
    if not found:
        raise InputError(f"{type(model).__name__} has no layer that mixes along time")
    if any(isinstance(m, Blocks) and m.segment is not None for m in model.modules()):
        raise InputError("a model with segment= cannot be sharded along time: set segment to None")
    line = Line(mesh)
    for layer in found:
        if "forward" in vars(layer):
            raise InputError(f"this {type(layer).__name__} is sharded along time already")
        run = _way(layer, line, micro_batches)  # and puts sharded scans in the place of its own
        layer.forward = MethodType(run, layer)  # type: ignore[method-assign]
    return model


def sum_gradients(model: nn.Module, mesh: DeviceMesh) -> None:
    """Add up the gradients of all ranks. Each has the part of its own samples before.

    Call it between backward and the optimiser's step. Every rank then takes the same step.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad, group=mesh.get_group())


def _layers(module: nn.Module) -> Iterator[Layer]:
    """The layers of a model that have a state of their own, and those around them."""
    if isinstance(module, Layer) and not isinstance(module, Blocks):
        yield module
        if not isinstance(module, Wrapper):
            return
    for child in module.children():
        yield from _layers(child)


def _way(layer: Layer, line: Line, micro_batches: int) -> Run:
    if getattr(layer, "bidirectional", False):
        way: Run = _gathered
    elif isinstance(layer, Attention):
        way = _attention
    elif isinstance(layer, LINEAR):
        way = _linear
    elif _by_scans(layer, line):
        way = _unchanged
    else:
        return _pipeline(line, micro_batches)

    def forward(self, u, state=None, *, dt=None, mask=None, reset=None, rate=1.0):
        given = check_call(self, u, state, dt, mask, reset, rate)
        if line.rank > 0:
            given = tree_map(torch.zeros_like, self.init_state(len(u)))
        return way(self, line, u, given, as_options(dt, mask, reset, rate))

    return forward


def _by_scans(layer: Layer, line: Line) -> bool:
    """Put sharded scans in the place of those of the layer, if all that depends on its state is
    scans, or is in a layer inside."""
    pairs = [(name, sharded(op, line)) for name, op in layer.scans.items()]
    found = {name: op for name, op in pairs if op is not None}
    if len(found) < len(pairs) or not (found or isinstance(layer, Wrapper)):
        return False
    layer.scans = found
    return True


def _unchanged(
    layer: Layer, line: Line, u: Tensor, given: State, options: dict[str, Any]
) -> tuple[Tensor, State]:
    return type(layer).forward(layer, u, given, **options)


def _linear(
    layer: Layer, line: Line, u: Tensor, given: State, options: dict[str, Any]
) -> tuple[Tensor, State]:
    state = state_before(layer, line, u, given, options)
    return type(layer).forward(layer, u, state, **options)


def _attention(
    layer: Attention, line: Line, u: Tensor, given: State, options: dict[str, Any]
) -> tuple[Tensor, State]:
    mask, reset = options.get("mask"), options.get("reset")
    own = layer.state_after(u, given, mask=mask, reset=reset)
    k, v = line.gather(own["k"]), line.gather(own["v"])
    length = own["length"].detach()
    lengths = [n[:, 0] for n in line.gather(length[:, None])]
    clears = torch.zeros_like(length) if reset is None else reset.any(1).to(length)
    cleared = [c[:, 0] > 0 for c in line.gather(clears[:, None])]
    parts = list(zip([given["k"], *k], [given["v"], *v], [given["length"], *lengths], strict=True))
    seen = []
    for at, (keys, _, length) in enumerate(parts):
        slots = torch.arange(keys.shape[1], device=u.device)
        there = slots >= keys.shape[1] - length[:, None]
        # parts[at] is followed by the pieces of ranks at, at + 1, ... up to this one
        gone = torch.stack([*cleared[at : line.rank], torch.zeros_like(cleared[0])]).any(0)
        before = line.rank == 0 if at == 0 else at - 1 < line.rank
        seen.append(there & ~gone[:, None] & before)
    state = layer.joined(
        torch.cat([p[0] for p in parts], 1), torch.cat([p[1] for p in parts], 1), torch.cat(seen, 1)
    )
    return type(layer).forward(layer, u, state, **options)


def _gathered(
    layer: Layer, line: Line, u: Tensor, given: State, options: dict[str, Any]
) -> tuple[Tensor, State]:
    def everywhere(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        sent = x.byte() if x.dtype == torch.bool else x
        return torch.cat(line.gather(sent), 1).to(x.dtype)

    pieces = line.gather(u)
    whole = {name: everywhere(x) for name, x in options.items()}
    y, state = type(layer).forward(layer, torch.cat(pieces, 1), given, **whole)
    start = sum(piece.shape[1] for piece in pieces[: line.rank])
    return y[:, start : start + u.shape[1]], state


def _pipeline(line: Line, micro_batches: int) -> Run:
    def forward(self, u, state=None, *, dt=None, mask=None, reset=None, rate=1.0):
        given = check_call(self, u, state, dt, mask, reset, rate)
        outputs, states = [], []
        for rows in torch.arange(len(u)).tensor_split(min(micro_batches, max(1, len(u)))):
            at = slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)
            now = [None if x is None else x[at] for x in (dt, mask, reset)]
            leaves, form = tree_flatten(tree_map(lambda s, at=at: s[at], given))
            start = tree_unflatten(list(line.receive(leaves)), form)
            options = as_options(now[0], now[1], now[2], rate)
            y, after = type(self).forward(self, u[at], start, **options)
            leaves, form = tree_flatten(after)
            y, *leaves = line.send(y, leaves)
            outputs.append(y)
            states.append(tree_unflatten(leaves, form))
        return torch.cat(outputs), tree_map(lambda *s: torch.cat(s), *states)

    return forward
