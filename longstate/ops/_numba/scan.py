"""The engine of input-dependent scans: a forward and a backward loop for every rule.

A rule is a NamedTuple of what its equation reads, with these functions as its attributes. `at` is
the place of a tile, `x` the tiles that are computed once from the inputs, `y` the tile of outputs.

    tiles(rule)                                    -> x: empty tiles, and again for gradients
    begin(rule, at, x, y)                          fill x and y from the inputs, before the scan
    keep(rule)                                     -> arrays from `advance` to `retreat`
    advance(rule, at, i, start, stop, x, h, y, kept)
        take state i through steps start to stop, and add to y. `kept`: None on the way forward
    retreat(rule, at, i, start, stop, x, kept, grad_y, grad_h, grad_x, grads)
        back through the same steps
    finish(rule, at, x, kept, grad_y, grad_x, grads)
        gradients of the inputs from those of the tiles

`h` and `grad_h` are one state of the 64 channels, or the tile (n, 64) of all where `coupled` is
True. `grads` is a NamedTuple of the rule's own, for the gradients.

Numba picks the functions by the type of the rule. Each rule has a compiled loop of its own.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from numba.extending import overload
from torch import Tensor

from longstate.ops._layout import CHUNK, Rows, on_large_pages, rows
from longstate.ops._numba.compiled import kernel
from longstate.ops._numba.rows import copy_row
from longstate.ops._numba.threads import parallel_for
from longstate.ops._numba.tiles import (
    LANES,
    Frame,
    blocks_per_group,
    find_segments,
    finish_gated_tile,
    finish_product_tile,
    finish_tile,
    flags,
    place,
    read_gated_tile,
    read_tile,
    tile,
    untile,
    workspace,
    zeros_like_rows,
)

_T = TypeVar("_T", bound=type)
_INLINE: Any = {"forceinline": True}
_FUNCTIONS = ("tiles", "begin", "keep", "advance", "retreat", "finish")


def rule(*, coupled: bool = False, **functions: Any) -> Callable[[_T], _T]:
    """Make a NamedTuple class a rule; `functions` are those that it does not define itself.

    Args:
        coupled: whether a state depends on the others, so that a step takes all of them at once.

    Raises:
        TypeError: a function is missing.
    """

    def decorate(kind: _T) -> _T:
        for name, function in functions.items():
            setattr(kind, name, function)
        kind.coupled = coupled  # type: ignore[attr-defined]
        missing = [name for name in _FUNCTIONS if not hasattr(kind, name)]
        if missing:
            raise TypeError(f"the rule {kind.__name__} lacks {', '.join(missing)}")
        return kind

    return decorate


def _tiles(rule): ...
def _begin(rule, at, x, y): ...
def _keep(rule): ...
def _advance(rule, at, i, start, stop, x, h, y, kept): ...
def _retreat(rule, at, i, start, stop, x, kept, grad_y, grad_h, grad_x, grads): ...
def _finish(rule, at, x, kept, grad_y, grad_x, grads): ...
def _parts(rule, h): ...
def _part(rule, h, i): ...


@overload(_tiles)
def _(rule):
    form = rule.instance_class.tiles
    return lambda rule: form(rule)


@overload(_keep)
def _(rule):
    form = rule.instance_class.keep
    return lambda rule: form(rule)


@overload(_begin, jit_options=_INLINE)
def _(rule, at, x, y):
    form = rule.instance_class.begin
    return lambda rule, at, x, y: form(rule, at, x, y)


@overload(_advance, jit_options=_INLINE)
def _(rule, at, i, start, stop, x, h, y, kept):
    form = rule.instance_class.advance
    return lambda rule, at, i, start, stop, x, h, y, kept: form(
        rule, at, i, start, stop, x, h, y, kept
    )


@overload(_retreat, jit_options=_INLINE)
def _(rule, at, i, start, stop, x, kept, grad_y, grad_h, grad_x, grads):
    form = rule.instance_class.retreat
    return lambda rule, at, i, start, stop, x, kept, grad_y, grad_h, grad_x, grads: form(
        rule, at, i, start, stop, x, kept, grad_y, grad_h, grad_x, grads
    )


@overload(_finish, jit_options=_INLINE)
def _(rule, at, x, kept, grad_y, grad_x, grads):
    form = rule.instance_class.finish
    return lambda rule, at, x, kept, grad_y, grad_x, grads: form(
        rule, at, x, kept, grad_y, grad_x, grads
    )


@overload(_parts)
def _(rule, h):
    if rule.instance_class.coupled:
        return lambda rule, h: 1
    return lambda rule, h: h.shape[0]


@overload(_part)
def _(rule, h, i):
    if rule.instance_class.coupled:
        return lambda rule, h, i: h
    return lambda rule, h, i: h[i]


@kernel
def _forward(
    start: int,
    stop: int,
    rule: Any,
    frame: Frame,
    state: np.ndarray,
    kept: np.ndarray,
    keep: bool,
    out: Rows,
) -> None:
    x, y = _tiles(rule), workspace(1, CHUNK, state)[0]
    always, fresh = np.ones(CHUNK, np.bool_), np.empty(CHUNK, np.bool_)
    edges = np.empty(CHUNK + 1, np.int64)
    for chunk in range((frame.steps + CHUNK - 1) // CHUNK):
        for block in range(start, stop):
            at, h = place(frame, block, chunk, always), state[block]
            _begin(rule, at, x, y)
            if keep:
                for i in range(h.shape[0]):
                    copy_row(h[i], kept[at.b, chunk, i, at.lo : at.hi])
            segments = find_segments(frame, at, edges, fresh)
            for i in range(_parts(rule, h)):
                for s in range(segments):
                    if fresh[s]:
                        _part(rule, h, i)[:] = 0
                    _advance(rule, at, i, edges[s], edges[s + 1], x, _part(rule, h, i), y, None)
            if frame.has_z:
                finish_gated_tile(at, y, frame.z, out)
            else:
                finish_tile(at, y, out)


@kernel
def _backward(
    start: int,
    stop: int,
    rule: Any,
    frame: Frame,
    states: np.ndarray,
    grad_out: Rows,
    grad_state: np.ndarray,
    grads: Any,
    grad_z: Rows,
) -> None:
    x, grad_x, kept = _tiles(rule), _tiles(rule), _keep(rule)
    tiles = workspace(3, CHUNK, grad_state)
    y, grad_y, to_gate = tiles[0], tiles[1], tiles[2]
    h = workspace(1, grad_state.shape[1], grad_state)[0]
    always, fresh = np.ones(CHUNK, np.bool_), np.empty(CHUNK, np.bool_)
    edges = np.empty(CHUNK + 1, np.int64)
    for chunk in range((frame.steps - 1) // CHUNK, -1, -1):
        for block in range(start, stop):
            at, grad_h = place(frame, block, chunk, always), grad_state[block]
            _begin(rule, at, x, y)
            for grad in grad_x:
                grad[:] = 0
            if at.hi - at.lo < LANES:  # other lanes hold values of an earlier block
                grad_y[:] = 0
            if frame.has_z:
                read_gated_tile(at, grad_out, frame.z, grad_y, to_gate)
            else:
                read_tile(at, grad_out, grad_y)
            for i in range(h.shape[0]):
                copy_row(states[at.b, chunk, i, at.lo : at.hi], h[i, : at.hi - at.lo])
            h[:, at.hi - at.lo :] = 0
            segments = find_segments(frame, at, edges, fresh)
            for i in range(_parts(rule, h)):
                for s in range(segments):
                    if fresh[s]:
                        _part(rule, h, i)[:] = 0
                    _advance(rule, at, i, edges[s], edges[s + 1], x, _part(rule, h, i), y, kept)
                for s in range(segments - 1, -1, -1):
                    _retreat(
                        rule, at, i, edges[s], edges[s + 1], x, kept, grad_y,
                        _part(rule, grad_h, i), grad_x, grads,
                    )  # fmt: skip
                    if fresh[s]:
                        _part(rule, grad_h, i)[:] = 0
            _finish(rule, at, x, kept, grad_y, grad_x, grads)
            if frame.has_z:
                finish_product_tile(at, y, to_gate, grad_z)


def frame_of(
    u: Tensor, z: Tensor | None, mask: Tensor | None, reset: Tensor | None, groups: int = 1
) -> Frame:
    """What scans over `u` (b, t, d) of all rules have."""
    _, t, d = u.shape
    return Frame(
        t, d, groups, blocks_per_group(d, groups), rows(u if z is None else z), z is not None,
        flags(mask), mask is not None, flags(reset), reset is not None,
    )  # fmt: skip


def scan(
    rule: tuple[Any, ...], frame: Frame, u: Tensor, h0: Tensor, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a rule over `u` (b, t, d) from `h0` (b, d, n).

    Returns:
        y (b, t, d), the last state (b, d, n), and if `keep` the states (b, chunks, n, d) at every
        32nd step.
    """
    (b, t, d), n = u.shape, h0.shape[2]
    y = on_large_pages(u.new_empty(b, t, d))
    kept = on_large_pages(h0.new_empty(b, -(-t // CHUNK) if keep else 0, n, d))
    h = tile(h0, frame.groups).flatten(0, 1)
    parallel_for(
        _forward, len(h), u.numel() * n, rule, frame, h.numpy(), kept.numpy(), keep,
        rows(y),
    )  # fmt: skip
    return y, untile(h.unflatten(0, (b, frame.blocks)), d, frame.groups), kept


def scan_back(
    rule: tuple[Any, ...],
    frame: Frame,
    u: Tensor,
    z: Tensor | None,
    kept: Tensor,
    grad_y: Tensor | None,
    grad_last: Tensor | None,
    grads: Any,
) -> tuple[Tensor, Tensor]:
    """Fill `grads`, the rule's NamedTuple of gradients; returns those of z and of h0."""
    (b, t, d), n = u.shape, kept.shape[2]
    grad_y = zeros_like_rows((b, t, d), u.dtype) if grad_y is None else grad_y
    grad_last = kept.new_zeros(b, d, n) if grad_last is None else grad_last.to(kept.dtype)
    grad_h = tile(grad_last, frame.groups).flatten(0, 1)
    grad_z = u.new_empty(0, 0, 0) if z is None else on_large_pages(z.new_empty(b, t, d))
    parallel_for(
        _backward, len(grad_h), 3 * u.numel() * n, rule, frame, kept.numpy(),
        rows(grad_y), grad_h.numpy(), grads, rows(grad_z),
    )  # fmt: skip
    return grad_z, untile(grad_h.unflatten(0, (b, frame.blocks)), d, frame.groups)


def sums(frame: Frame, b: int, *n: int) -> Tensor:
    """Zeros (b blocks, ..., 64) for a gradient that is summed over time: in the working type
    within a tile, in float64 from tile to tile."""
    return torch.zeros(b * frame.blocks, *n, LANES, dtype=torch.float64)


def over_batch(x: Tensor, frame: Frame, b: int, like: Tensor) -> Tensor:
    """Tiles of sums as the gradient of a parameter (d) or (d, n)."""
    x = x.unflatten(0, (b, frame.blocks)).sum(0)
    if x.dim() == 3:
        return untile(x, frame.d, frame.groups).to(like.dtype)
    return x.view(frame.groups, -1)[:, : frame.d // frame.groups].reshape(-1).to(like.dtype)
