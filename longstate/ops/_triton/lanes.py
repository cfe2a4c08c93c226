"""The engine of scans over independent lanes: a forward and a backward kernel for every rule.

One program per sequence and block of lanes; time is the loop inside. The inputs of the next step
are loaded while the present one is computed. A rule is a NamedTuple of what its equation reads. Its
functions are in a `Functions`:

    constants(rule, at) -> c                      what does not change with time
    read(rule, at) -> x                           what a step reads
    advance(rule, at, c, x, h) -> h               one step; writes its output
    retreat(rule, at, c, grads, g, total) -> g, total
        one step back: `g` is the gradient of the state after the step, then of that before it,
        `total` a sum over time, and `grads` the rule's NamedTuple of other gradients
    recall(rule, at) -> h                         the state before a chunk, and
    again(rule, at, c, h) -> h                    a step once more, for the way back, of rules that
                                                  keep a part of their state every chunk only

`at` is the place of a block at a step. A reset is the engine's: `h` and `g` are zeros there.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._triton import Pointer, add, flags, load, store, zero_where, zeros

_LANES = 32  # one warp; small, so that a batch of 8 with 256 states still gives 64 programs


class Functions(NamedTuple):
    constants: Any
    read: Any
    advance: Any
    retreat: Any
    recall: Any = None
    again: Any = None


class Frame(NamedTuple):
    """A rule, and what scans of all rules have."""

    call: Functions
    rule: Any
    steps: Any
    n: Any
    chunk: Any  # steps from one `recall` to the next
    reset: Pointer  # b, t
    PARTS: Any  # of a state: 1, or 2 side by side
    PLANAR: Any  # whether states are (b, 2, n) instead
    LANES: Any


class Place(NamedTuple):
    """A block of lanes at a step."""

    b: Any
    t: Any
    row: Any  # b * steps + t
    lane: tl.tensor
    inside: tl.tensor
    steps: Any
    n: Any
    at: tl.tensor  # of (b, t, n)
    fresh: Any  # whether the state before is forgotten; None: never


@triton.jit
def _place(f: Frame, t: tl.tensor) -> Place:
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * f.LANES + tl.arange(0, f.LANES)
    row = b * f.steps + t
    fresh = None
    if f.reset is not None:
        fresh = tl.load(f.reset + row) != 0
    return Place(b, t, row, lane, lane < f.n, f.steps, f.n, row * f.n + lane, fresh)


@triton.jit
def _load_state(x: tl.tensor, f: Frame, at: Place) -> tl.tuple:
    if f.PLANAR:
        first = x + 2 * at.b * at.n + at.lane
        z = tl.load(first, mask=at.inside, other=0.0)
        return z, tl.load(first + at.n, mask=at.inside, other=0.0)
    else:
        return load(x, at.b * at.n + at.lane, at.inside, f.PARTS)


@triton.jit
def _store_state(x: tl.tensor, f: Frame, at: Place, h: tl.tuple) -> None:
    if f.PLANAR:
        first = x + 2 * at.b * at.n + at.lane
        tl.store(first, h[0], mask=at.inside)
        tl.store(first + at.n, h[1], mask=at.inside)
    else:
        store(x, at.b * at.n + at.lane, h, at.inside)


@triton.jit
def forget(at: Place, x: tl.tuple) -> tl.tuple:
    """Zeros at a reset."""
    if at.fresh is not None:
        x = zero_where(at.fresh, x)
    return x


@triton.jit
def before(h: tl.tensor, first: tl.tensor, at: Place, PARTS: tl.constexpr) -> tl.tuple:
    """What was before a step, from h (b, t, n) and from `first`, (b, n) and t = 0's."""
    earlier = load(h, at.at - at.n, at.inside & (at.t > 0), PARTS)
    start = load(first, at.b * at.n + at.lane, at.inside & (at.t == 0), PARTS)
    return forget(at, add(earlier, start))


@triton.jit
def sum_lanes(x: tl.tensor, out: tl.tensor, at: Place) -> None:
    """Write the sum of a block to out (b, t, blocks)."""
    total = tl.sum(tl.where(at.inside, x, 0.0), axis=0)
    tl.store(out + at.row * tl.num_programs(1) + tl.program_id(1), total)


@triton.jit
def _forward(f: Frame, state: tl.tensor, last: tl.tensor) -> None:
    start = _place(f, 0)
    c = f.call.constants(f.rule, start)
    h = _load_state(state, f, start)
    x = f.call.read(f.rule, start)
    for t in range(f.steps):
        following = f.call.read(f.rule, _place(f, tl.minimum(t + 1, f.steps - 1)))
        at = _place(f, t)
        h = f.call.advance(f.rule, at, c, x, forget(at, h))
        x = following
    if last is not None:
        _store_state(last, f, start, h)


@triton.jit
def _backward(
    f: Frame, grads: tl.tuple, carry: tl.tensor, totals: tl.tensor, PARTS: tl.constexpr
) -> None:
    start = _place(f, 0)
    c = f.call.constants(f.rule, start)
    g = _load_state(carry, f, start)
    total = zeros(g[0], PARTS)
    chunks = tl.cdiv(f.steps, f.chunk)
    for back in range(chunks):
        first = (chunks - 1 - back) * f.chunk
        size = tl.minimum(f.chunk, f.steps - first)
        if f.call.again is not None:
            h = f.call.recall(f.rule, _place(f, first))
            for i in range(size):
                at = _place(f, first + i)
                h = f.call.again(f.rule, at, c, forget(at, h))
            tl.debug_barrier()
        for j in range(size):
            at = _place(f, first + size - 1 - j)
            g, total = f.call.retreat(f.rule, at, c, grads, g, total)
            g = forget(at, g)
        if f.call.again is not None:
            tl.debug_barrier()
    _store_state(carry, f, start, g)
    store(totals, start.b * f.n + start.lane, total, start.inside)


def blocks(n: int) -> int:
    """Programs for one sequence."""
    return triton.cdiv(n, _LANES)


def _launch(
    call: Functions, rule: Any, shape: Sequence[int], reset: Tensor | None, chunk: int,
    *options: Any,
) -> tuple[tuple[int, int], Frame]:  # fmt: skip
    b, t, n = shape
    known = Functions(*(None if x is None else tl.constexpr(x) for x in call))
    frame = Frame(known, rule, t, n, chunk, flags(reset), *map(tl.constexpr, (*options, _LANES)))
    return (b, blocks(n)), frame


def scan(
    call: Functions, rule: Any, shape: Sequence[int], reset: Tensor | None, state: Tensor,
    last: Tensor | None = None, *, parts: int = 1, planar: bool = False,
) -> None:  # fmt: skip
    """Run a rule forward.

    Args:
        shape: b, t, n.
        reset (b, t): where the state before is forgotten.
        state (b, n), or (b, 2, n) if `planar`: before the first step.
        last: after the last step; filled. May be `state` itself.
        parts: of a state; 2 if complex.
    """
    grid, frame = _launch(call, rule, shape, reset, shape[1], parts, planar)
    _forward[grid](frame, state, last, num_warps=1)


def scan_back(
    call: Functions, rule: Any, shape: Sequence[int], reset: Tensor | None, grads: Any,
    carry: Tensor, totals: Tensor, *, parts: int = 1, planar: bool = False, chunk: int = 0,
) -> None:  # fmt: skip
    """Run a rule back.

    Args:
        grads: the rule's NamedTuple of gradients, those of its outputs and those to be filled.
        carry: the gradient of the last state; overwritten with that of the first.
        totals (b, n): filled with the sums over time.
        chunk: steps between two kept states, for rules that have `again`.
    """
    grid, frame = _launch(call, rule, shape, reset, chunk or shape[1], parts, planar)
    size = totals.numel() // (shape[0] * shape[2])
    _backward[grid](frame, grads, carry, totals, PARTS=size, num_warps=1)
