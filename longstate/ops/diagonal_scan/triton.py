"""Triton: the rule of the diagonal scan, for the engine in `ops/_triton/lanes.py`.

    h_t = a_t h_{t-1} + x_t

Bound by memory, like the CPU form. Sequential in time: the products of decays that a parallel scan
needs could overflow where the recurrence does not.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense, reals
from longstate.ops._triton import Pointer, add, load, store, times, times_conj
from longstate.ops._triton.lanes import Functions, Place, before, scan, scan_back
from longstate.ops.diagonal_scan import Inputs


class Diagonal(NamedTuple):
    a: Pointer  # b, t, n, or n
    x: Pointer
    h0: Pointer
    h: Pointer
    PARTS: Any
    VARYING: Any


class Gradients(NamedTuple):
    h: Pointer
    x: Pointer
    a: Pointer


@triton.jit
def _constants(rule: Diagonal, at: Place) -> tl.tuple:
    return load(rule.a, at.lane, at.inside, rule.PARTS)


@triton.jit
def _decay(rule: Diagonal, at: Place, constant: tl.tuple) -> tl.tuple:
    if rule.VARYING:
        constant = load(rule.a, at.at, at.inside, rule.PARTS)
    return constant


@triton.jit
def _read(rule: Diagonal, at: Place) -> tl.tuple:
    x = load(rule.x, at.at, at.inside, rule.PARTS)
    return x, _decay(rule, at, x)


@triton.jit
def _advance(rule: Diagonal, at: Place, c: tl.tuple, x: tl.tuple, h: tl.tuple) -> tl.tuple:
    a = c
    if rule.VARYING:
        a = x[1]
    h = add(times(a, h), x[0])
    store(rule.h, at.at, h, at.inside)
    return h


@triton.jit
def _retreat(
    rule: Diagonal, at: Place, c: tl.tuple, grads: Gradients, g: tl.tuple, total: tl.tuple
) -> tl.tuple:
    a = _decay(rule, at, c)
    g = add(g, load(grads.h, at.at, at.inside, rule.PARTS))
    store(grads.x, at.at, g, at.inside)
    to_a = times_conj(g, before(rule.h, rule.h0, at, rule.PARTS))
    if rule.VARYING:
        store(grads.a, at.at, to_a, at.inside)
    else:
        total = add(total, to_a)
    return times_conj(g, a), total


_FUNCTIONS = Functions(_constants, _read, _advance, _retreat)


def _rule(s: Inputs, h0: Tensor, h: Tensor) -> tuple[Diagonal, int]:
    parts, varying = 1 + s.a.is_complex(), s.a.dim() > 1
    options = tl.constexpr(parts), tl.constexpr(varying)
    return Diagonal(reals(s.a), reals(s.x), reals(h0), reals(h), *options), parts


def forward(s: Inputs) -> tuple[Tensor, Tensor]:
    x = s.x
    h0 = torch.zeros_like(x[:, 0]) if s.h0 is None else s.h0
    h = torch.empty_like(x, memory_format=torch.contiguous_format)
    rule, parts = _rule(s, h0, h)
    scan(_FUNCTIONS, rule, x.shape, s.reset, rule.h0, parts=parts)
    return h, h[:, -1].clone()


def backward(s: Inputs, h0: Tensor, h: Tensor, grad_h: Tensor, carry: Tensor) -> dict[str, Tensor]:
    """Overwrites `carry`, the gradient of the last state, with that of h0."""
    carry, grad_x = dense(carry), torch.empty_like(h)
    # Constant `a`: one row of sums for each sequence, added up below in a fixed order.
    totals, grad_a = torch.empty_like(carry), torch.empty_like(h if s.a.dim() > 1 else carry)
    rule, parts = _rule(s, h0, h)
    grads = Gradients(reals(grad_h), reals(grad_x), reals(grad_a))
    scan_back(_FUNCTIONS, rule, h.shape, s.reset, grads, reals(carry), reals(totals), parts=parts)
    return {"a": grad_a if s.a.dim() > 1 else totals.sum(0), "x": grad_x, "h0": carry}
