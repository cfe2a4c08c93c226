"""The engine of scans that are steered by their input: a kernel forward and one back.

    h = advance(w_t, v_t, key_t, h)            state (n, d)
    y_t = (query_t h + D v_t) * silu(z_t)

One program per sequence and block of channels; the state stays in registers, time is the loop
inside. On the way back a program computes the states of 32 steps again, from the kept one, into a
scratch area of its own, then walks back through them. Sums over channels are written for each block
and added up afterwards in a fixed order: no atomic additions, so the result is the same every time.

A rule is a NamedTuple of what its equation reads. Its functions are in a `Functions`:

    constants(rule, at) -> c                what does not change with time
    weigh(rule, now, w) -> w, slope         the weight of a sample from w_t + bias, and its slope
    advance(rule, c, x, h) -> h             one step
    retreat(rule, at, now, c, x, before, g, own, total) -> g, to_w, to_v, to_key, total
        one step back from `g`, the gradient of the state after the step, to that of the state
        before it and those of the inputs; `total` is a sum over time
    finish(rule, at, own, total)            writes the sum

`at` is the place of a block, `now` a step, `x` what drives it, `own` the rule's NamedTuple of
gradients that others have not. Masks, resets, D and the gate are the engine's.
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import CHUNK, dense
from longstate.ops._triton import Pointer, flags, sigmoid

_LANES = 32  # channels per program: one warp


class Functions(NamedTuple):
    constants: Any
    weigh: Any
    advance: Any
    retreat: Any
    finish: Any


class Frame(NamedTuple):
    """What a scan has whatever its rule."""

    steps: Any
    d: Any
    n: Any
    v: Pointer  # b, t, d: the input
    w: Pointer  # b, t, d: the weight of a sample, before its bias
    bias: Pointer  # d
    key: Pointer  # b, t, groups, n
    query: Pointer
    D: Pointer  # d
    z: Pointer  # b, t, d; None: no gate
    mask: Pointer  # b, t; None: all samples exist
    reset: Pointer
    kept: Pointer  # b, chunks, n, d; None: states are not kept
    GROUPS: Any
    LANES: Any
    STATES: Any  # n, rounded up to a power of 2


class Gradients(NamedTuple):
    y: Pointer
    v: Pointer
    w: Pointer
    key: Pointer  # blocks of a group, b, t, groups, n
    query: Pointer
    D: Pointer  # b, d
    bias: Pointer
    z: Pointer
    scratch: Pointer  # b, CHUNK, n, d


class Place(NamedTuple):
    """A block of channels."""

    b: Any
    g: Any
    rows: Any  # before those of this block, where each block has (b, t) of its own
    lane: tl.tensor
    inside: tl.tensor  # channels
    state: tl.tensor
    exists: tl.tensor  # states
    both: tl.tensor  # states by channels
    pair: tl.tensor  # where they are in (d, n)
    tile: tl.tensor  # where they are in (n, d)


class Drive(NamedTuple):
    """What drives a step."""

    w: tl.tensor  # d
    v: tl.tensor  # d
    key: tl.tensor  # n, 1


class Step(NamedTuple):
    """A step of a block."""

    row: Any  # b * steps + t
    at: tl.tensor  # of (b, t, d)
    here: tl.tensor  # channels that have a sample: all or none of a sequence's


@triton.jit
def _place(f: Frame) -> Place:
    b = tl.program_id(0).to(tl.int64)
    per = tl.num_programs(1) // f.GROUPS
    g, size = tl.program_id(1) // per, f.d // f.GROUPS
    within = (tl.program_id(1) % per) * f.LANES + tl.arange(0, f.LANES)
    lane, inside = g * size + within, within < size
    state = tl.arange(0, f.STATES)
    exists = state < f.n
    rows = (tl.program_id(1) % per).to(tl.int64) * tl.num_programs(0) * f.steps
    return Place(
        b, g, rows, lane, inside, state, exists, exists[:, None] & inside[None, :],
        lane[None, :] * f.n + state[:, None], state[:, None] * f.d + lane[None, :],
    )  # fmt: skip


@triton.jit
def _step(f: Frame, at: Place, t: tl.tensor) -> Step:
    row = at.b * f.steps + t
    here = at.inside
    if f.mask is not None:
        here = here & (tl.load(f.mask + row) != 0)
    return Step(row, row * f.d + at.lane, here)


@triton.jit
def _row(x: tl.tensor, now: Step, like: tl.tensor) -> tl.tensor:
    """Channels of x (b, t, d), in the type of `like`; 0 where there is no sample."""
    return tl.load(x + now.at, mask=now.here, other=0.0).to(like.dtype)


@triton.jit
def _vector(x: tl.tensor, at: Place) -> tl.tensor:
    return tl.load(x + at.lane, mask=at.inside, other=0.0)


@triton.jit
def _column(f: Frame, x: tl.tensor, at: Place, row: tl.tensor) -> tl.tensor:
    """Where the states of x (b, t, groups, n) are."""
    return x + (row * f.GROUPS + at.g) * f.n + at.state


@triton.jit
def _forget(f: Frame, now: Step, h: tl.tensor) -> tl.tensor:
    if f.reset is not None:
        h = tl.where(tl.load(f.reset + now.row) != 0, 0.0, h)
    return h


@triton.jit
def _drive(
    r: Functions, rule: tl.tuple, f: Frame, at: Place, now: Step, bias: tl.tensor
) -> tl.tuple:
    """What drives a step, and the slope of its weight."""
    w, slope = r.weigh(rule, now, _row(f.w, now, bias) + bias)
    key = tl.load(_column(f, f.key, at, now.row), mask=at.exists, other=0.0)[:, None]
    return Drive(tl.where(now.here, w, 0.0), _row(f.v, now, bias), key), slope


@triton.jit
def _query(f: Frame, at: Place, now: Step) -> tl.tensor:
    return tl.load(_column(f, f.query, at, now.row), mask=at.exists, other=0.0)[:, None]


@triton.jit
def _forward(
    r: Functions,
    rule: tl.tuple,
    f: Frame,
    h0: tl.tensor,
    y: tl.tensor,
    last: tl.tensor,
    CHUNK: tl.constexpr,
) -> None:
    at = _place(f)
    c = r.constants(rule, at)
    D, bias = _vector(f.D, at), _vector(f.bias, at)
    h = tl.load(h0 + at.b * f.d * f.n + at.pair, mask=at.both, other=0.0)
    chunks = tl.cdiv(f.steps, CHUNK)
    for t in range(f.steps):
        if f.kept is not None:  # noqa: SIM102 (apart, so that nothing is compiled where it is off)
            if t % CHUNK == 0:
                kept = f.kept + (at.b * chunks + t // CHUNK) * f.n * f.d
                tl.store(kept + at.tile, h, mask=at.both)
        now = _step(f, at, t)
        x, _ = _drive(r, rule, f, at, now, bias)
        h = r.advance(rule, c, x, _forget(f, now, h))
        out = tl.sum(h * _query(f, at, now), axis=0) + D * x.v
        if f.z is not None:
            gate = _row(f.z, now, bias)
            out = out * gate * sigmoid(gate)
        out = tl.where(now.here, out, 0.0)
        tl.store(y + now.at, out.to(y.dtype.element_ty), mask=at.inside)
    tl.store(last + at.b * f.d * f.n + at.pair, h, mask=at.both)


@triton.jit
def _again(
    r: Functions, rule: tl.tuple, f: Frame, at: Place, c: tl.tensor, bias: tl.tensor,
    scratch: tl.tensor, first: tl.tensor, size: tl.tensor, CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    """The states before each step of a chunk, from the kept one."""
    chunk = at.b * tl.cdiv(f.steps, CHUNK) + first // CHUNK
    h = tl.load(f.kept + chunk * f.n * f.d + at.tile, mask=at.both, other=0.0)
    for i in range(size):
        now = _step(f, at, first + i)
        h = _forget(f, now, h)
        tl.store(scratch + i * f.n * f.d, h, mask=at.both)
        x, _ = _drive(r, rule, f, at, now, bias)
        h = r.advance(rule, c, x, h)


@triton.jit
def _backward(
    r: Functions,
    rule: tl.tuple,
    f: Frame,
    grads: Gradients,
    own: tl.tuple,
    grad_h: tl.tensor,
    CHUNK: tl.constexpr,
) -> None:
    at = _place(f)
    c = r.constants(rule, at)
    D, bias = _vector(f.D, at), _vector(f.bias, at)
    carry = grad_h + at.b * f.d * f.n + at.pair
    g = tl.load(carry, mask=at.both, other=0.0)
    total, sum_D, sum_bias = tl.zeros_like(g), tl.zeros_like(D), tl.zeros_like(bias)
    scratch = grads.scratch + at.b * CHUNK * f.n * f.d + at.tile
    chunks = tl.cdiv(f.steps, CHUNK)
    for back in range(chunks):
        first = (chunks - 1 - back) * CHUNK
        size = tl.minimum(CHUNK, f.steps - first)
        _again(r, rule, f, at, c, bias, scratch, first, size, CHUNK)
        tl.debug_barrier()
        for j in range(size):
            i = size - 1 - j
            now = _step(f, at, first + i)
            x, slope = _drive(r, rule, f, at, now, bias)
            query = _query(f, at, now)
            before = tl.load(scratch + i * f.n * f.d, mask=at.both, other=0.0)
            h = r.advance(rule, c, x, before)
            g_y = _row(grads.y, now, bias)
            if f.z is not None:
                gate = _row(f.z, now, bias)
                s = sigmoid(gate)
                out = tl.sum(h * query, axis=0) + D * x.v
                to_gate = tl.where(now.here, g_y * out * (s + gate * (s - s * s)), 0.0)
                tl.store(grads.z + now.at, to_gate.to(grads.z.dtype.element_ty), mask=at.inside)
                g_y = g_y * gate * s
            g += g_y[None, :] * query
            g, to_w, to_v, to_key, total = r.retreat(rule, at, now, c, x, before, g, own, total)
            to_query, row = tl.sum(g_y[None, :] * h, axis=1), at.rows + now.row
            tl.store(_column(f, grads.key, at, row), tl.sum(to_key, axis=1), mask=at.exists)
            tl.store(_column(f, grads.query, at, row), to_query, mask=at.exists)
            to_w = tl.where(now.here, to_w * slope, 0.0)
            to_v = tl.where(now.here, to_v + g_y * D, 0.0)
            tl.store(grads.w + now.at, to_w.to(grads.w.dtype.element_ty), mask=at.inside)
            tl.store(grads.v + now.at, to_v.to(grads.v.dtype.element_ty), mask=at.inside)
            sum_D += g_y * x.v
            sum_bias += to_w
            g = _forget(f, now, g)
        tl.debug_barrier()
    tl.store(carry, g, mask=at.both)
    tl.store(grads.D + at.b * f.d + at.lane, sum_D, mask=at.inside)
    tl.store(grads.bias + at.b * f.d + at.lane, sum_bias, mask=at.inside)
    r.finish(rule, at, own, total)


class Operands(NamedTuple):
    """What an op gives a scan, and its gradients."""

    v: Tensor  # b, t, d
    w: Tensor
    key: Tensor  # b, t, n, or b, t, groups, n
    query: Tensor
    D: Tensor | None  # d
    bias: Tensor | None
    z: Tensor | None
    h0: Tensor  # b, d, n


def scan(
    r: Functions, rule: Any, x: Operands, mask: Tensor | None, reset: Tensor | None, keep: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Run a rule forward.

    Returns:
        y (b, t, d), the last state (b, d, n), and if `keep` the states (b, chunks, n, d) at every
        32nd step.
    """
    (b, t, d), n = x.v.shape, x.key.shape[-1]
    y, last = x.v.new_empty(b, t, d), x.key.new_empty(b, d, n)
    kept = x.key.new_empty(b, triton.cdiv(t, CHUNK) if keep else 0, n, d)
    grid, frame = _launch(x, mask, reset, kept if keep else None)
    _forward[grid](_known(r), rule, frame, dense(x.h0), y, last, CHUNK=CHUNK, num_warps=1)
    return y, last, kept


def scan_back(
    r: Functions, rule: Any, x: Operands, mask: Tensor | None, reset: Tensor | None, kept: Tensor,
    grad_y: Tensor | None, grad_last: Tensor | None, own: Any,
) -> Operands:  # fmt: skip
    """Run a rule back; fills `own`, the rule's NamedTuple of gradients, and returns the others."""
    (b, t, d), n, wide = x.v.shape, x.key.shape[-1], x.key
    grid, frame = _launch(x, mask, reset, kept)
    groups = _groups(x)
    grad_y = x.v.new_zeros(b, t, d) if grad_y is None else dense(grad_y)
    grad_h = wide.new_zeros(b, d, n)
    if grad_last is not None:
        grad_h.copy_(grad_last)
    grad_v, grad_w = x.v.new_empty(b, t, d), x.w.new_empty(b, t, d)
    grad_z = None if x.z is None else x.z.new_empty(b, t, d)
    grad_key, grad_query = wide.new_empty(2, grid[1] // groups, b, t, groups, n)
    grad_D, grad_bias = wide.new_empty(2, b, d)
    grads = Gradients(
        grad_y, grad_v, grad_w, grad_key, grad_query, grad_D, grad_bias, grad_z,
        wide.new_empty(b, CHUNK, n, d),
    )  # fmt: skip
    _backward[grid](_known(r), rule, frame, grads, own, grad_h, CHUNK=CHUNK, num_warps=1)
    grad_D, grad_bias = (
        grad.sum(0).to((wide if given is None else given).dtype)
        for grad, given in ((grad_D, x.D), (grad_bias, x.bias))
    )
    grad_key, grad_query = _like(grad_key.sum(0), x.key), _like(grad_query.sum(0), x.query)
    return Operands(grad_v, grad_w, grad_key, grad_query, grad_D, grad_bias, grad_z, grad_h)


def blocks(x: Operands) -> int:
    """Programs for one group of a sequence."""
    return triton.cdiv(x.v.shape[2] // _groups(x), _LANES)


def _groups(x: Operands) -> int:
    return max(p.shape[2] if p.dim() == 4 else 1 for p in (x.key, x.query))


def _known(r: Functions) -> Functions:
    return Functions(*map(tl.constexpr, r))


def _launch(
    x: Operands, mask: Tensor | None, reset: Tensor | None, kept: Tensor | None
) -> tuple[tuple[int, int], Frame]:
    (b, t, d), n, groups = x.v.shape, x.key.shape[-1], _groups(x)
    D, bias = (x.key.new_zeros(d) if p is None else dense(p.to(x.key.dtype)) for p in (x.D, x.bias))
    key, query = (_by_group(p, groups) for p in (x.key, x.query))
    options = map(tl.constexpr, (groups, _LANES, triton.next_power_of_2(n)))
    frame = Frame(
        t, d, n, dense(x.v), dense(x.w), bias, key, query, D, None if x.z is None else dense(x.z),
        flags(mask), flags(reset), kept, *options,
    )  # fmt: skip
    return (b, groups * blocks(x)), frame


def _by_group(x: Tensor, groups: int) -> Tensor:
    x = x[:, :, None] if x.dim() == 3 else x
    return dense(x.expand(-1, -1, groups, -1))


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient in the form of `x`, from (b, t, g, n)."""
    if x.dim() == 3:
        return grad.sum(2)
    return grad.sum(2, keepdim=True) if x.shape[2] < grad.shape[2] else grad
