"""Triton: the rules of the oscillators, for the engine in `ops/_triton/lanes.py`.

Real and imaginary parts are separate lanes. Positions overwrite the drive in place. The backward
pass recomputes the states of one chunk at a time, into a tile of velocities and positions for each
sequence, which stays in the second-level cache. `cpu.py` explains why positions are recomputed.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense, reals
from longstate.ops._triton import Pointer, add
from longstate.ops._triton.lanes import (
    Functions,
    Place,
    before,
    blocks,
    forget,
    scan,
    scan_back,
    sum_lanes,
)  # fmt: skip
from longstate.ops.oscillator_scan import CHUNK, Inputs
from longstate.ops.oscillator_scan.step import STABLE

_LIMIT = tl.constexpr(STABLE)


class Oscillators(NamedTuple):
    A: Pointer  # n
    dt: Pointer
    x: Pointer  # the drive; forward: then the positions
    kept: Pointer  # b, chunks, n: velocities before each chunk
    # on the way back
    y: Pointer = None  # b, t, n: positions
    h0: Pointer = None  # b, 2, n
    tile: Pointer = None  # b, 2, CHUNK + 1, n: states before a chunk and after each of its steps
    IMPLICIT: Any = None
    chunk: Any = CHUNK


class Gradients(NamedTuple):
    y: Pointer
    dt: Pointer  # b, t, blocks


@triton.jit
def _row(x: tl.tensor, at: tl.tensor, lanes: Place) -> tl.tensor:
    return tl.load(x + at, mask=lanes.inside, other=0.0)


@triton.jit
def _constants(rule: Oscillators, at: Place) -> tl.tensor:
    return _row(rule.A, at.lane, at)


@triton.jit
def _read(rule: Oscillators, at: Place) -> tl.tuple:
    return _row(rule.x, at.at, at), tl.load(rule.dt + at.row)


@triton.jit
def _shortened(A: tl.tensor, m: tl.tensor) -> tl.tuple:
    """The step, limited to the stable range, and whether this made it shorter."""
    limit = tl.full(A.shape, _LIMIT, A.dtype)
    cut = A * m * m > limit
    return tl.where(cut, tl.sqrt(limit / tl.where(cut, A, 1.0)), m), cut


@triton.jit
def _step(A: tl.tensor, m: tl.tensor, IMPLICIT: tl.constexpr) -> tl.tuple:
    """(z, y) -> (f0 z - f1 y + f4 x, f2 z + f3 y + f5 x)."""
    if IMPLICIT:
        s = 1.0 / (1.0 + m * m * A)
        return s, m * s * A, m * s, s, m * s, m * m * s
    dt, _ = _shortened(A, m)
    half = A * dt * dt * 0.5
    sine = dt * tl.sqrt((1.0 - 0.5 * half) / (1.0 - 0.25 * A))
    cosine, tilt = 1.0 - half, 0.5 * sine * A
    return cosine + tilt, sine * A, sine, cosine - tilt, sine, 0.5 * (dt * dt + sine)


@triton.jit
def _slopes_turning(
    A: tl.tensor, m: tl.tensor, g: tl.tuple, z: tl.tensor, y: tl.tensor, x: tl.tensor
) -> tl.tuple:
    """Of A and of the step; (z, y) is the state before it."""
    g_z, g_y = g
    dt, cut = _shortened(A, m)
    half = A * dt * dt * 0.5
    near = 1.0 / (1.0 - 0.25 * A)
    root = tl.sqrt(near / (1.0 - 0.5 * half))
    sine = dt * near / root
    by_cosine = g_z * z + g_y * y
    by_sine = g_z * (0.5 * A * z - A * y + x) + g_y * (z - 0.5 * A * y + 0.5 * x)
    by_square = 0.5 * g_y * x  # of dt
    explicit = sine * (g_z * (0.5 * z - y) - 0.5 * g_y * y)
    # the step given: d sine / dA and d sine / d dt, written so that nothing cancels at dt = 1
    given = by_sine * near * root * dt * (1.0 - dt * dt) * 0.125 - 0.5 * by_cosine * dt * dt
    by_dt = by_sine * root * (1.0 - half) + (2.0 * by_square - by_cosine * A) * dt
    # the step limited to sqrt(STABLE / A): the cosine is constant
    moved = by_sine * sine * near * (A - 2.0) * 0.25 - by_square * dt * dt
    to_A = explicit + tl.where(cut, moved / tl.where(cut, A, 1.0), given)
    return to_A, tl.where(cut, 0.0, by_dt)


@triton.jit
def _kept(rule: Oscillators, at: Place) -> tl.tensor:
    """Where the velocity before a chunk is kept."""
    chunk = tl.cdiv(at.steps, rule.chunk) * at.b + at.t // rule.chunk
    return rule.kept + chunk * at.n + at.lane


@triton.jit
def _advanced(rule: Oscillators, A: tl.tensor, given: tl.tuple, h: tl.tuple) -> tl.tuple:
    x, m = given
    f0, f1, f2, f3, f4, f5 = _step(A, m, rule.IMPLICIT)
    return f0 * h[0] - f1 * h[1] + f4 * x, f2 * h[0] + f3 * h[1] + f5 * x


@triton.jit
def _tile(rule: Oscillators, at: Place) -> tl.tuple:
    """Where the state before a step is. That after it is in the next rows."""
    rows = rule.chunk + 1
    z = rule.tile + (2 * at.b * rows + at.t % rule.chunk) * at.n + at.lane
    return z, z + rows * at.n


@triton.jit
def _advance(rule: Oscillators, at: Place, A: tl.tensor, given: tl.tuple, h: tl.tuple) -> tl.tuple:
    if at.t % rule.chunk == 0:
        tl.store(_kept(rule, at), h[0], mask=at.inside)
    z, y = _advanced(rule, A, given, h)
    tl.store(rule.x + at.at, y, mask=at.inside)
    return z, y


@triton.jit
def _recall(rule: Oscillators, at: Place) -> tl.tuple:
    at_z, at_y = _tile(rule, at)
    z = tl.load(_kept(rule, at), mask=at.inside, other=0.0)
    y = before(rule.y, rule.h0 + (at.b + 1) * at.n, at, 1)[0]
    tl.store(at_z, z, mask=at.inside)
    tl.store(at_y, y, mask=at.inside)
    return z, y


@triton.jit
def _again(rule: Oscillators, at: Place, A: tl.tensor, h: tl.tuple) -> tl.tuple:
    at_z, at_y = _tile(rule, at)
    z, y = _advanced(rule, A, _read(rule, at), h)
    tl.store(at_z + at.n, z, mask=at.inside)
    tl.store(at_y + at.n, y, mask=at.inside)
    return z, y


@triton.jit
def _retreat(
    rule: Oscillators, at: Place, A: tl.tensor, grads: Gradients, g: tl.tuple, total: tl.tuple
) -> tl.tuple:
    x, m = _read(rule, at)
    g_z, g_y = g[0], g[1] + _row(grads.y, at.at, at)
    at_z, at_y = _tile(rule, at)
    if rule.IMPLICIT:
        after, y = _row(at_z, at.n, at), _row(at_y, at.n, at)
        w = (g_z + m * g_y) / (1.0 + m * m * A)
        to_A, to_dt = -m * w * y, w * x + g_y * after - A * w * (y + m * after)
    else:
        z, y = forget(at, (_row(at_z, 0, at), _row(at_y, 0, at)))
        to_A, to_dt = _slopes_turning(A, m, (g_z, g_y), z, y, x)
    sum_lanes(to_dt, grads.dt, at)
    f0, f1, f2, f3, f4, f5 = _step(A, m, rule.IMPLICIT)
    tl.store(rule.x + at.at, f4 * g_z + f5 * g_y, mask=at.inside)
    return (f0 * g_z + f2 * g_y, f3 * g_y - f1 * g_z), add(total, (to_A,))


_FUNCTIONS = Functions(_constants, _read, _advance, _retreat, _recall, _again)


def forward_(s: Inputs, A: Tensor, x: Tensor, state: Tensor, kept: Tensor) -> None:
    """Overwrites the drive `x` with positions, `state` with the last, and fills `kept`."""
    shape, h0 = (*x.shape[:2], A.shape[0]), reals(state)
    rule = Oscillators(A, dense(s.dt), reals(x), kept, IMPLICIT=tl.constexpr(s.implicit))
    scan(_FUNCTIONS, rule, shape, s.reset, h0, h0, planar=True)


def backward_(
    s: Inputs, A: Tensor, x: Tensor, y: Tensor, kept: Tensor, grad_y: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the lanes of A, and of `dt`.

    Overwrites the drive `x` with its own gradient, and `carry`, the gradient of the last state,
    with that of `h0`.
    """
    b, t, n = *x.shape[:2], A.shape[0]
    # One row for each sequence and one column for each program, added up below in a fixed order.
    grad_A, grad_dt = A.new_empty(b, n), A.new_empty(b, t, blocks(n))
    rule = Oscillators(
        A, dense(s.dt), reals(x), kept, reals(y), reals(s.h0), A.new_empty(b, 2, CHUNK + 1, n),
        tl.constexpr(s.implicit),
    )  # fmt: skip
    grads = Gradients(reals(grad_y), grad_dt)
    scan_back(
        _FUNCTIONS, rule, (b, t, n), s.reset, grads, reals(carry), grad_A, planar=True, chunk=CHUNK
    )
    return grad_A.sum(0), grad_dt.sum(-1)
