"""Triton. One program per sequence and block of oscillators; time is the loop inside.

Real and imaginary parts are lanes of their own. Positions overwrite the drive in place. The states
of one chunk at a time are made again in the backward pass, into a buffer of `chunk` rows of
velocities and as many of positions for each sequence, which stays in the second-level cache. Why
positions too, though they are stored, is said in `cpu.py`.
"""

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense, flags, reals
from longstate.ops.oscillator_scan import CHUNK, Inputs
from longstate.ops.oscillator_scan.step import STABLE

_LANES = 32  # one warp; small, so that a small batch still gives many programs


@triton.jit
def _step(A, m, LIMIT: tl.constexpr, IMPLICIT: tl.constexpr):
    """(z, y) -> (f0 z - f1 y + f4 x, f2 z + f3 y + f5 x)."""
    if IMPLICIT:
        s = 1.0 / (1.0 + m * m * A)
        return s, m * s * A, m * s, s, m * s, m * m * s
    cut = A * m * m > LIMIT
    dt = tl.where(cut, tl.sqrt(LIMIT / tl.where(cut, A, 1.0)), m)
    half = A * dt * dt * 0.5
    sine = dt * tl.sqrt((1.0 - 0.5 * half) / (1.0 - 0.25 * A))
    cosine, tilt = 1.0 - half, 0.5 * sine * A
    return cosine + tilt, sine * A, sine, cosine - tilt, sine, 0.5 * (dt * dt + sine)


@triton.jit
def _slopes_turning(A, m, LIMIT: tl.constexpr, g_z, g_y, z, y, x):
    """Of A and of the step; (z, y) is the state before it."""
    cut = A * m * m > LIMIT
    dt = tl.where(cut, tl.sqrt(LIMIT / tl.where(cut, A, 1.0)), m)
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
    # the step cut to sqrt(LIMIT / A): the cosine does not move
    moved = by_sine * sine * near * (A - 2.0) * 0.25 - by_square * dt * dt
    to_A = explicit + tl.where(cut, moved / tl.where(cut, A, 1.0), given)
    return to_A, tl.where(cut, 0.0, by_dt)


@triton.jit
def _forward(
    A, dt, x, state, reset, kept, steps, n, chunk,
    LIMIT: tl.constexpr, IMPLICIT: tl.constexpr, HAS_RESET: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = lane < n
    a = tl.load(A + lane, mask=inside, other=0.0)
    at_z, at_y = state + 2 * b * n + lane, state + (2 * b + 1) * n + lane
    z = tl.load(at_z, mask=inside, other=0.0)
    y = tl.load(at_y, mask=inside, other=0.0)
    per_row = (steps + chunk - 1) // chunk
    for t in range(steps):
        if t % chunk == 0:
            tl.store(kept + (b * per_row + t // chunk) * n + lane, z, mask=inside)
        if HAS_RESET:
            forget = tl.load(reset + b * steps + t) != 0
            z, y = tl.where(forget, 0.0, z), tl.where(forget, 0.0, y)
        m = tl.load(dt + b * steps + t)
        here = x + (b * steps + t) * n + lane
        drive = tl.load(here, mask=inside, other=0.0)
        f0, f1, f2, f3, f4, f5 = _step(a, m, LIMIT, IMPLICIT)
        z, y = f0 * z - f1 * y + f4 * drive, f2 * z + f3 * y + f5 * drive
        tl.store(here, y, mask=inside)
    tl.store(at_z, z, mask=inside)
    tl.store(at_y, y, mask=inside)


@triton.jit
def _position(y, h0, b, t, steps, n, lane):
    """y before step t."""
    before = tl.load(y + (b * steps + t - 1) * n + lane, mask=lane < tl.where(t > 0, n, 0), other=0)
    first = tl.load(h0 + (2 * b + 1) * n + lane, mask=lane < tl.where(t > 0, 0, n), other=0)
    return before + first


@triton.jit
def _backward(
    A, dt, x, h0, reset, y, kept, grad_y, carry, tile, grad_A, grad_dt, steps, n, chunk,
    LIMIT: tl.constexpr, IMPLICIT: tl.constexpr, HAS_RESET: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = lane < n
    a = tl.load(A + lane, mask=inside, other=0.0)
    at_z, at_y = carry + 2 * b * n + lane, carry + (2 * b + 1) * n + lane
    # gradients of the state, all later steps included
    g_z = tl.load(at_z, mask=inside, other=0.0)
    g_y = tl.load(at_y, mask=inside, other=0.0)
    sum_A = tl.zeros_like(g_z)
    per_row = (steps + chunk - 1) // chunk
    # velocities, then positions: before the chunk, then after each step
    rows = (chunk + 1) * n
    row = tile + 2 * b * rows + lane
    for back in range(per_row):
        first = (per_row - 1 - back) * chunk
        size = tl.minimum(chunk, steps - first)
        z = tl.load(kept + (b * per_row + first // chunk) * n + lane, mask=inside, other=0.0)
        here = _position(y, h0, b, first, steps, n, lane)
        tl.store(row, z, mask=inside)
        tl.store(row + rows, here, mask=inside)
        for i in range(size):
            t = first + i
            if HAS_RESET:
                forget = tl.load(reset + b * steps + t) != 0
                z, here = tl.where(forget, 0.0, z), tl.where(forget, 0.0, here)
            drive = tl.load(x + (b * steps + t) * n + lane, mask=inside, other=0.0)
            m = tl.load(dt + b * steps + t)
            f0, f1, f2, f3, f4, f5 = _step(a, m, LIMIT, IMPLICIT)
            z, here = f0 * z - f1 * here + f4 * drive, f2 * z + f3 * here + f5 * drive
            tl.store(row + (i + 1) * n, z, mask=inside)
            tl.store(row + rows + (i + 1) * n, here, mask=inside)
        tl.debug_barrier()
        for j in range(size):
            i = size - 1 - j
            t = first + i
            at = (b * steps + t) * n + lane
            m = tl.load(dt + b * steps + t)
            drive = tl.load(x + at, mask=inside, other=0.0)
            g_y += tl.load(grad_y + at, mask=inside, other=0.0)
            if HAS_RESET:
                forget = tl.load(reset + b * steps + t) != 0
            if IMPLICIT:
                after = tl.load(row + (i + 1) * n, mask=inside, other=0.0)
                here = tl.load(row + rows + (i + 1) * n, mask=inside, other=0.0)
                w = (g_z + m * g_y) / (1.0 + m * m * a)
                to_A, to_dt = -m * w * here, w * drive + g_y * after - a * w * (here + m * after)
            else:
                before = tl.load(row + rows + i * n, mask=inside, other=0.0)
                z = tl.load(row + i * n, mask=inside, other=0.0)
                if HAS_RESET:
                    z, before = tl.where(forget, 0.0, z), tl.where(forget, 0.0, before)
                to_A, to_dt = _slopes_turning(a, m, LIMIT, g_z, g_y, z, before, drive)
            sum_A += to_A
            where_dt = (b * steps + t) * tl.num_programs(1) + tl.program_id(1)
            tl.store(grad_dt + where_dt, tl.sum(tl.where(inside, to_dt, 0.0), axis=0))
            f0, f1, f2, f3, f4, f5 = _step(a, m, LIMIT, IMPLICIT)
            tl.store(x + at, f4 * g_z + f5 * g_y, mask=inside)
            g_z, g_y = f0 * g_z + f2 * g_y, f3 * g_y - f1 * g_z
            if HAS_RESET:
                g_z, g_y = tl.where(forget, 0.0, g_z), tl.where(forget, 0.0, g_y)
        tl.debug_barrier()
    tl.store(at_z, g_z, mask=inside)
    tl.store(at_y, g_y, mask=inside)
    tl.store(grad_A + b * n + lane, sum_A, mask=inside)


def _grid(b: int, n: int) -> tuple[int, int]:
    return b, triton.cdiv(n, _LANES)


def forward_(s: Inputs, A: Tensor, x: Tensor, state: Tensor, kept: Tensor) -> None:
    """Overwrites the drive `x` with positions, `state` with the last, and fills `kept`."""
    b, t, n = *x.shape[:2], A.shape[0]
    _forward[_grid(b, n)](
        A, dense(s.dt), reals(x), reals(state), flags(s.reset, x), kept, t, n, CHUNK,
        LIMIT=STABLE, IMPLICIT=s.implicit, HAS_RESET=s.reset is not None, LANES=_LANES,
        num_warps=1,
    )  # fmt: skip


def backward_(
    s: Inputs, A: Tensor, x: Tensor, y: Tensor, kept: Tensor, grad_y: Tensor, carry: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the lanes of A, and of `dt`.

    Overwrites the drive `x` with its own gradient, and `carry`, the gradient of the last state,
    with that of `h0`.
    """
    b, t, n = *x.shape[:2], A.shape[0]
    grid = _grid(b, n)
    # One row for each sequence and one column for each program, added up below in a fixed order.
    grad_A, grad_dt = A.new_empty(b, n), A.new_empty(b, t, grid[1])
    tile = A.new_empty(b, 2, CHUNK + 1, n)
    _backward[grid](
        A, dense(s.dt), reals(x), reals(s.h0), flags(s.reset, x), reals(y), kept, reals(grad_y),
        reals(carry), tile, grad_A, grad_dt, t, n, CHUNK,
        LIMIT=STABLE, IMPLICIT=s.implicit, HAS_RESET=s.reset is not None, LANES=_LANES,
        num_warps=1,
    )  # fmt: skip
    return grad_A.sum(0), grad_dt.sum(-1)
