"""Triton. One program per sequence and block of oscillators; time is the loop inside.

Real and imaginary parts are lanes of their own. Positions overwrite the drive in place. The
velocities of one chunk at a time are made again in the backward pass, into a buffer of `chunk` rows
for each sequence that stays in the second-level cache.
"""

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import flags, reals

_LANES = 32  # one warp; small, so that a small batch still gives many programs


@triton.jit
def _stiffness(A, m, limit, IMPLICIT: tl.constexpr):
    """The velocity's factor, the pull towards the origin, and whether the rule had to be cut."""
    pull = m * A
    if IMPLICIT:
        return 1.0 / (1.0 + m * pull), pull, pull < 0.0
    too_fast = m * pull > limit
    return pull * 0.0 + 1.0, tl.where(too_fast, limit / tl.where(too_fast, m, 1.0), pull), too_fast


@triton.jit
def _forward(
    A, dt, x, state, reset, kept, limit, steps, n, chunk,
    IMPLICIT: tl.constexpr, HAS_RESET: tl.constexpr, LANES: tl.constexpr,
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
        damping, pull, _ = _stiffness(a, m, limit, IMPLICIT)
        z = damping * (z - pull * y + m * tl.load(here, mask=inside, other=0.0))
        y = y + m * z
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
    A, dt, x, h0, reset, y, kept, grad_y, carry, tile, grad_A, grad_dt, limit, steps, n, chunk,
    IMPLICIT: tl.constexpr, HAS_RESET: tl.constexpr, LANES: tl.constexpr,
):  # fmt: skip
    b = tl.program_id(0).to(tl.int64)
    lane = tl.program_id(1) * LANES + tl.arange(0, LANES)
    inside = lane < n
    a = tl.load(A + lane, mask=inside, other=0.0)
    at_z, at_y = carry + 2 * b * n + lane, carry + (2 * b + 1) * n + lane
    # what the later steps add to the gradients of this velocity and position
    carry_z = tl.load(at_z, mask=inside, other=0.0)
    carry_y = tl.load(at_y, mask=inside, other=0.0)
    sum_A = tl.zeros_like(carry_z)
    per_row = (steps + chunk - 1) // chunk
    for back in range(per_row):
        first = (per_row - 1 - back) * chunk
        size = tl.minimum(chunk, steps - first)
        z = tl.load(kept + (b * per_row + first // chunk) * n + lane, mask=inside, other=0.0)
        for i in range(size):
            t = first + i
            before = _position(y, h0, b, t, steps, n, lane)
            if HAS_RESET:
                forget = tl.load(reset + b * steps + t) != 0
                z, before = tl.where(forget, 0.0, z), tl.where(forget, 0.0, before)
            m = tl.load(dt + b * steps + t)
            drive = tl.load(x + (b * steps + t) * n + lane, mask=inside, other=0.0)
            damping, pull, _ = _stiffness(a, m, limit, IMPLICIT)
            z = damping * (z - pull * before + m * drive)
            tl.store(tile + (b * chunk + i) * n + lane, z, mask=inside)
        tl.debug_barrier()
        for j in range(size):
            i = size - 1 - j
            t = first + i
            at = (b * steps + t) * n + lane
            before = _position(y, h0, b, t, steps, n, lane)
            if HAS_RESET:
                forget = tl.load(reset + b * steps + t) != 0
                before = tl.where(forget, 0.0, before)
            m = tl.load(dt + b * steps + t)
            drive = tl.load(x + at, mask=inside, other=0.0)
            z = tl.load(tile + (b * chunk + i) * n + lane, mask=inside, other=0.0)
            damping, pull, cut = _stiffness(a, m, limit, IMPLICIT)
            g = carry_y + tl.load(grad_y + at, mask=inside, other=0.0)
            w = damping * (carry_z + m * g)
            tl.store(x + at, m * w, mask=inside)
            carry_z, carry_y = w, g - pull * w
            # dL/dpull = -w before; the implicit rule's damping adds the rest of y to it
            if IMPLICIT:
                w_y = w * tl.load(y + at, mask=inside, other=0.0)
                by_step = -a * (w_y + m * w * z)
            else:
                w_y = w * before
                by_step = tl.where(cut, pull / tl.where(cut, m, 1.0), -a) * w_y
            sum_A -= tl.where(cut, 0.0, m * w_y)
            to_dt = tl.where(inside, w * drive + g * z + by_step, 0.0)
            where_dt = (b * steps + t) * tl.num_programs(1) + tl.program_id(1)
            tl.store(grad_dt + where_dt, tl.sum(to_dt, axis=0))
            if HAS_RESET:
                carry_z = tl.where(forget, 0.0, carry_z)
                carry_y = tl.where(forget, 0.0, carry_y)
        tl.debug_barrier()
    tl.store(at_z, carry_z, mask=inside)
    tl.store(at_y, carry_y, mask=inside)
    tl.store(grad_A + b * n + lane, sum_A, mask=inside)


def _grid(b: int, n: int) -> tuple[int, int]:
    return b, triton.cdiv(n, _LANES)


def forward_(
    A: Tensor,
    dt: Tensor,
    x: Tensor,
    state: Tensor,
    reset: Tensor | None,
    implicit: bool,
    limit: float,
    chunk: int,
) -> Tensor:
    """Overwrites the drive `x` with positions and `state` with the last; returns velocities."""
    b, t, n = *x.shape[:2], A.shape[0]
    kept = A.new_empty(b, -(-t // chunk), n)
    _forward[_grid(b, n)](
        A, dt, reals(x), reals(state), flags(reset, x), kept, limit, t, n, chunk,
        IMPLICIT=implicit, HAS_RESET=reset is not None, LANES=_LANES, num_warps=1,
    )  # fmt: skip
    return kept


def backward_(
    A: Tensor,
    dt: Tensor,
    x: Tensor,
    h0: Tensor,
    reset: Tensor | None,
    y: Tensor,
    kept: Tensor,
    grad_y: Tensor,
    carry: Tensor,
    implicit: bool,
    limit: float,
    chunk: int,
) -> tuple[Tensor, Tensor]:
    """Gradients of `A` and `dt`.

    Overwrites the drive `x` with its own gradient, and `carry`, the gradient of the last state,
    with that of `h0`.
    """
    b, t, n = *x.shape[:2], A.shape[0]
    grid = _grid(b, n)
    # One row for each sequence and one column for each program, added up below in a fixed order.
    grad_A, grad_dt = A.new_empty(b, n), dt.new_empty(b, t, grid[1])
    tile = A.new_empty(b, chunk, n)
    _backward[grid](
        A, dt, reals(x), reals(h0), flags(reset, x), reals(y), kept, reals(grad_y), reals(carry),
        tile, grad_A, grad_dt, limit, t, n, chunk,
        IMPLICIT=implicit, HAS_RESET=reset is not None, LANES=_LANES, num_warps=1,
    )  # fmt: skip
    return grad_A.sum(0), grad_dt.sum(-1)
