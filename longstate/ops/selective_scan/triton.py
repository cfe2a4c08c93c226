"""Triton: the rule of the selective scan, for the engine in `ops/_triton/scan.py`.

h = exp(dt A) h + (dt u) B
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense
from longstate.ops._triton import Pointer, sigmoid, softplus
from longstate.ops._triton.scan import scan, scan_back
from longstate.ops._triton.tiles import Drive, Functions, Operands, Place, Step
from longstate.ops.selective_scan import Inputs


class Selective(NamedTuple):
    A: Pointer  # d, n
    d: Any
    n: Any
    SMOOTH: Any


class Gradients(NamedTuple):
    A: Pointer  # b, d, n


@triton.jit
def _constants(rule: Selective, at: Place) -> tl.tensor:
    return tl.load(rule.A + at.pair, mask=at.both, other=0.0)


@triton.jit
def _weigh(rule: Selective, now: Step, dt: tl.tensor) -> tl.tuple:
    slope = tl.full(dt.shape, 1.0, dt.dtype)
    if rule.SMOOTH:
        slope = sigmoid(dt)
        dt = softplus(dt)
    return dt, slope


@triton.jit
def _advance(rule: Selective, A: tl.tensor, x: Drive, h: tl.tensor) -> tl.tensor:
    return tl.exp(x.w[None, :] * A) * h + (x.w * x.v)[None, :] * x.key


@triton.jit
def _retreat(
    rule: Selective, at: Place, now: Step, A: tl.tensor, x: Drive, before: tl.tensor, g: tl.tensor,
    own: Gradients, total: tl.tensor,
) -> tl.tuple:  # fmt: skip
    decay = tl.exp(x.w[None, :] * A)
    through_decay = g * (decay * before)
    to_product = tl.sum(g * x.key, axis=0)  # of dt u
    to_dt = tl.sum(through_decay * A, axis=0) + to_product * x.v
    to_B = g * (x.w * x.v)[None, :]
    return g * decay, to_dt, to_product * x.w, to_B, total + through_decay * x.w[None, :]


@triton.jit
def _finish(rule: Selective, at: Place, own: Gradients, total: tl.tensor) -> None:
    tl.store(own.A + at.b * rule.d * rule.n + at.pair, total, mask=at.both)


_FUNCTIONS = Functions(_constants, _weigh, _advance, _retreat, _finish)


def _parts(s: Inputs) -> tuple[Selective, Operands]:
    rule = Selective(dense(s.A), s.A.shape[0], s.A.shape[1], tl.constexpr(s.dt_softplus))
    return rule, Operands(s.u, s.dt, s.B, s.C, s.D, s.dt_bias, s.z, s.h0, s.mask, s.reset)


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    return scan(_FUNCTIONS, *_parts(s), s.keep)


def backward(
    s: Inputs, states: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor | None]:
    grads = Gradients(s.A.new_empty(len(s.u), *s.A.shape))
    found = scan_back(_FUNCTIONS, *_parts(s), states, grad_y, grad_last, grads)
    return {
        "u": found.v, "dt": found.w, "A": grads.A.sum(0), "B": found.key, "C": found.query,
        "D": found.D, "z": found.z, "h0": found.h0, "dt_bias": found.bias,
    }  # fmt: skip
