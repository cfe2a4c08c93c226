"""The engine of input-dependent scans: a forward and a backward kernel for every rule.

    h = advance(w_t, v_t, key_t, h)            state (n, d)
    y_t = (query_t h + D v_t) * silu(z_t)

One program per sequence and block of channels; the state stays in registers, time is the loop
inside. In the backward a program recomputes the states of 32 steps, from the kept one, into its own
scratch memory, then goes back through them. Sums over channels are written for each block
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
gradients that other rules do not have. The engine applies masks, resets, D and the gate.
"""

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import CHUNK, dense
from longstate.ops._triton import flags, sigmoid
from longstate.ops._triton.tiles import (
    LANES,
    Drive,
    Frame,
    Functions,
    Operands,
    Place,
    Step,
    column,
    forget,
    place,
    row,
    step,
    vector,
)  # fmt: skip


@triton.jit
def _drive(f: Frame, at: Place, now: Step, bias: tl.tensor) -> tl.tuple:
    """What drives a step, and the slope of its weight."""
    w, slope = f.call.weigh(f.rule, now, row(f.x.w, now, bias) + bias)
    key = tl.load(column(f, f.x.key, at, now.row), mask=at.exists, other=0.0)[:, None]
    return Drive(tl.where(now.here, w, 0.0), row(f.x.v, now, bias), key), slope


@triton.jit
def _query(f: Frame, at: Place, now: Step) -> tl.tensor:
    return tl.load(column(f, f.x.query, at, now.row), mask=at.exists, other=0.0)[:, None]


@triton.jit
def _forward(f: Frame, y: tl.tensor, last: tl.tensor, CHUNK: tl.constexpr) -> None:
    at = place(f)
    c = f.call.constants(f.rule, at)
    D, bias = vector(f.x.D, at), vector(f.x.bias, at)
    h = tl.load(f.x.h0 + at.b * f.d * f.n + at.pair, mask=at.both, other=0.0)
    chunks = tl.cdiv(f.steps, CHUNK)
    for t in range(f.steps):
        if f.kept is not None:  # noqa: SIM102 (apart, so that nothing is compiled where it is off)
            if t % CHUNK == 0:
                kept = f.kept + (at.b * chunks + t // CHUNK) * f.n * f.d
                tl.store(kept + at.tile, h, mask=at.both)
        now = step(f, at, t)
        x, _ = _drive(f, at, now, bias)
        h = f.call.advance(f.rule, c, x, forget(f, now, h))
        out = tl.sum(h * _query(f, at, now), axis=0) + D * x.v
        if f.x.z is not None:
            gate = row(f.x.z, now, bias)
            out = out * gate * sigmoid(gate)
        out = tl.where(now.here, out, 0.0)
        tl.store(y + now.at, out.to(y.dtype.element_ty), mask=at.inside)
    tl.store(last + at.b * f.d * f.n + at.pair, h, mask=at.both)


@triton.jit
def _again(
    f: Frame, at: Place, c: tl.tensor, bias: tl.tensor, scratch: tl.tensor, first: tl.tensor,
    size: tl.tensor, CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    """The states before each step of a chunk, from the kept one."""
    chunk = at.b * tl.cdiv(f.steps, CHUNK) + first // CHUNK
    h = tl.load(f.kept + chunk * f.n * f.d + at.tile, mask=at.both, other=0.0)
    for i in range(size):
        now = step(f, at, first + i)
        h = forget(f, now, h)
        tl.store(scratch + i * f.n * f.d, h, mask=at.both)
        x, _ = _drive(f, at, now, bias)
        h = f.call.advance(f.rule, c, x, h)


@triton.jit
def _backward(
    f: Frame, grads: Operands, own: tl.tuple, grad_y: tl.tensor, scratch: tl.tensor,
    CHUNK: tl.constexpr,
) -> None:  # fmt: skip
    at = place(f)
    c = f.call.constants(f.rule, at)
    D, bias = vector(f.x.D, at), vector(f.x.bias, at)
    carry = grads.h0 + at.b * f.d * f.n + at.pair
    g = tl.load(carry, mask=at.both, other=0.0)
    total, sum_D, sum_bias = tl.zeros_like(g), tl.zeros_like(D), tl.zeros_like(bias)
    scratch += at.b * CHUNK * f.n * f.d + at.tile
    chunks = tl.cdiv(f.steps, CHUNK)
    for back in range(chunks):
        first = (chunks - 1 - back) * CHUNK
        size = tl.minimum(CHUNK, f.steps - first)
        _again(f, at, c, bias, scratch, first, size, CHUNK)
        tl.debug_barrier()
        for j in range(size):
            i = size - 1 - j
            now = step(f, at, first + i)
            x, slope = _drive(f, at, now, bias)
            query = _query(f, at, now)
            before = tl.load(scratch + i * f.n * f.d, mask=at.both, other=0.0)
            h = f.call.advance(f.rule, c, x, before)
            g_y = row(grad_y, now, bias)
            if f.x.z is not None:
                gate = row(f.x.z, now, bias)
                s = sigmoid(gate)
                out = tl.sum(h * query, axis=0) + D * x.v
                to_gate = tl.where(now.here, g_y * out * (s + gate * (s - s * s)), 0.0)
                tl.store(grads.z + now.at, to_gate.to(grads.z.dtype.element_ty), mask=at.inside)
                g_y = g_y * gate * s
            g += g_y[None, :] * query
            g, to_w, to_v, to_key, total = f.call.retreat(
                f.rule, at, now, c, x, before, g, own, total
            )
            to_query, mine = tl.sum(g_y[None, :] * h, axis=1), at.rows + now.row
            tl.store(column(f, grads.key, at, mine), tl.sum(to_key, axis=1), mask=at.exists)
            tl.store(column(f, grads.query, at, mine), to_query, mask=at.exists)
            to_w = tl.where(now.here, to_w * slope, 0.0)
            to_v = tl.where(now.here, to_v + g_y * D, 0.0)
            tl.store(grads.w + now.at, to_w.to(grads.w.dtype.element_ty), mask=at.inside)
            tl.store(grads.v + now.at, to_v.to(grads.v.dtype.element_ty), mask=at.inside)
            sum_D += g_y * x.v
            sum_bias += to_w
            g = forget(f, now, g)
        tl.debug_barrier()
    tl.store(carry, g, mask=at.both)
    tl.store(grads.D + at.b * f.d + at.lane, sum_D, mask=at.inside)
    tl.store(grads.bias + at.b * f.d + at.lane, sum_bias, mask=at.inside)
    f.call.finish(f.rule, at, own, total)


def scan(call: Functions, rule: Any, x: Operands, keep: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Run a rule forward.

    Returns:
        y (b, t, d), the last state (b, d, n), and if `keep` the states (b, chunks, n, d) at every
        32nd step.
    """
    (b, t, d), n = x.v.shape, x.key.shape[-1]
    y, last = x.v.new_empty(b, t, d), x.key.new_empty(b, d, n)
    kept = x.key.new_empty(b, triton.cdiv(t, CHUNK) if keep else 0, n, d)
    frame = _frame(call, rule, x, kept if keep else None)
    _forward[_grid(x)](frame, y, last, CHUNK=CHUNK, num_warps=1)
    return y, last, kept


def scan_back(
    call: Functions, rule: Any, x: Operands, kept: Tensor, grad_y: Tensor | None,
    grad_last: Tensor | None, own: Any,
) -> Operands:  # fmt: skip
    """Run a rule back; fills `own`, the rule's NamedTuple of gradients, and returns the others."""
    (b, t, d), n, wide, groups = x.v.shape, x.key.shape[-1], x.key, _groups(x)
    grad_y = x.v.new_zeros(b, t, d) if grad_y is None else dense(grad_y)
    carry = wide.new_zeros(b, d, n)
    if grad_last is not None:
        carry.copy_(grad_last)
    grad_z = None if x.z is None else x.z.new_empty(b, t, d)
    key, query = wide.new_empty(2, blocks(x), b, t, groups, n)
    D, bias = wide.new_empty(2, b, d)
    grads = Operands(
        x.v.new_empty(b, t, d), x.w.new_empty(b, t, d), key, query, D, bias, grad_z, carry
    )
    scratch = wide.new_empty(b, CHUNK, n, d)
    _backward[_grid(x)](
        _frame(call, rule, x, kept), grads, own, grad_y, scratch, CHUNK=CHUNK, num_warps=1
    )
    D, bias = (
        grad.sum(0).to((wide if given is None else given).dtype)
        for grad, given in ((grads.D, x.D), (grads.bias, x.bias))
    )
    key, query = _like(grads.key.sum(0), x.key), _like(grads.query.sum(0), x.query)
    return grads._replace(key=key, query=query, D=D, bias=bias)


def blocks(x: Operands) -> int:
    """Programs for one group of a sequence."""
    return triton.cdiv(x.v.shape[2] // _groups(x), LANES)


def _groups(x: Operands) -> int:
    return max(p.shape[2] if p.dim() == 4 else 1 for p in (x.key, x.query))


def _grid(x: Operands) -> tuple[int, int]:
    return len(x.v), _groups(x) * blocks(x)


def _frame(call: Functions, rule: Any, x: Operands, kept: Tensor | None) -> Frame:
    (_, t, d), n, groups, kind = x.v.shape, x.key.shape[-1], _groups(x), x.key.dtype
    D, bias = (x.key.new_zeros(d) if p is None else dense(p.to(kind)) for p in (x.D, x.bias))
    key, query = (_by_group(p, groups) for p in (x.key, x.query))
    z = None if x.z is None else dense(x.z)
    given = Operands(
        dense(x.v), dense(x.w), key, query, D, bias, z, dense(x.h0), flags(x.mask), flags(x.reset)
    )
    options = map(tl.constexpr, (groups, LANES, triton.next_power_of_2(n)))
    return Frame(Functions(*map(tl.constexpr, call)), rule, given, t, d, n, kept, *options)


def _by_group(x: Tensor, groups: int) -> Tensor:
    x = x[:, :, None] if x.dim() == 3 else x
    return dense(x.expand(-1, -1, groups, -1))


def _like(grad: Tensor, x: Tensor) -> Tensor:
    """Gradient in the form of `x`, from (b, t, groups, n)."""
    if x.dim() == 3:
        return grad.sum(2)
    return grad.sum(2, keepdim=True) if x.shape[2] < grad.shape[2] else grad
