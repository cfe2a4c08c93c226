"""The engine of scans over independent lanes: a forward and a backward loop for every rule.

Lanes run along the state, which is contiguous; time is the outer loop. A rule is a NamedTuple of
the arrays that its equation reads, with these functions as its attributes:

    scratch(rule)                        -> rows that a thread works in
    advance(rule, at, x, work)           one step of a block, driven by x (b, t, n)
    again(rule, at, x, work)             the same step once more, for the way back, of rules that
                                         keep a part of their state every `chunk` steps only
    retreat(rule, at, x, grads, work)    one step back: the gradient of the drive, into x, and of
                                         what else `grads`, a NamedTuple of the rule's own, holds

`at` is the place of a block at a step. Numba picks the functions by the type of the rule, and
compiles them into the loops; each rule has compiled loops of its own. A step makes no arrays but
views, whose references are not counted: counting takes longer than a short row. So rows are copied
with `copy` and cleared with `clear`, and not by assignment.
"""

from typing import Any, NamedTuple

import numpy as np
from numba.extending import overload
from torch import Tensor

from longstate.ops._numba.compiled import FAST, apart, kernel
from longstate.ops._numba.threads import parallel_for
from longstate.ops._numba.tiles import flags

_OPTIONS: Any = {"forceinline": True, "_nrt": False, "error_model": "numpy", "fastmath": FAST}


class Frame(NamedTuple):
    """What scans of all rules have."""

    steps: int
    n: int
    lanes: int
    chunk: int
    reset: np.ndarray  # b, t
    has_reset: bool


class Place(NamedTuple):
    """A block of lanes at a step."""

    b: int
    part: int  # block within the sequence
    lo: int  # lanes from lo to hi
    hi: int
    t: int
    fresh: bool  # whether the state before is forgotten


@apart
def copy(x: np.ndarray, into: np.ndarray) -> None:
    for j in range(into.shape[0]):
        into[j] = x[j]


@apart
def clear(x: np.ndarray) -> None:
    for j in range(x.shape[0]):
        x[j] = 0


def _scratch(rule): ...
def _advance(rule, at, x, work): ...
def _again(rule, at, x, work): ...
def _retreat(rule, at, x, grads, work): ...
def _nothing(rule, at, x, work): ...


@overload(_scratch, strict=False)
def _(rule):
    return rule.instance_class.scratch


@overload(_advance, jit_options=_OPTIONS, strict=False)
def _(rule, at, x, work):
    return rule.instance_class.advance


@overload(_again, jit_options=_OPTIONS, strict=False)
def _(rule, at, x, work):
    return getattr(rule.instance_class, "again", _nothing)


@overload(_retreat, jit_options=_OPTIONS, strict=False)
def _(rule, at, x, grads, work):
    return rule.instance_class.retreat


@kernel
def _forward(start: int, stop: int, rule: Any, frame: Frame, x: np.ndarray) -> None:
    work = _scratch(rule)
    parts = (frame.n + frame.lanes - 1) // frame.lanes
    for block in range(start, stop):
        b, part = block // parts, block % parts
        lo, hi = part * frame.lanes, min((part + 1) * frame.lanes, frame.n)
        for t in range(frame.steps):
            fresh = frame.has_reset and frame.reset[b, t]
            _advance(rule, Place(b, part, lo, hi, t, fresh), x, work)


@kernel
def _backward(start: int, stop: int, rule: Any, frame: Frame, x: np.ndarray, grads: Any) -> None:
    work = _scratch(rule)
    parts = (frame.n + frame.lanes - 1) // frame.lanes
    for block in range(start, stop):
        b, part = block // parts, block % parts
        lo, hi = part * frame.lanes, min((part + 1) * frame.lanes, frame.n)
        for first in range((frame.steps - 1) // frame.chunk * frame.chunk, -1, -frame.chunk):
            last = min(first + frame.chunk, frame.steps)
            for t in range(first, last):
                fresh = frame.has_reset and frame.reset[b, t]
                _again(rule, Place(b, part, lo, hi, t, fresh), x, work)
            for t in range(last - 1, first - 1, -1):
                fresh = frame.has_reset and frame.reset[b, t]
                _retreat(rule, Place(b, part, lo, hi, t, fresh), x, grads, work)


def parts(n: int, lanes: int) -> int:
    """Blocks of one sequence."""
    return -(-n // lanes)


def scan(
    rule: Any,
    x: np.ndarray,
    n: int,
    reset: Tensor | None,
    work: int,
    grads: Any = None,
    *,
    lanes: int,
    chunk: int | None = None,
) -> None:
    """Run a rule over the drive, forward, or back with `grads`.

    Args:
        x (b, t, ...): the drive, of `n` lanes.
        reset (b, t): where the state before is forgotten.
        work: approximate number of scalar updates.
        lanes: size of a block.
        chunk: steps between two kept states, for rules that have `again`.
    """
    b, steps = x.shape[:2]
    frame = Frame(steps, n, lanes, chunk or steps, flags(reset), reset is not None)
    if grads is None:
        parallel_for(_forward, b * parts(n, lanes), work, rule, frame, x)
    else:
        parallel_for(_backward, b * parts(n, lanes), work, rule, frame, x, grads)
