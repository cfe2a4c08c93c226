"""Triton: the two rules of Longhorn's scan, for the engine in `ops/_triton/scan.py`.

rate = beta / (1 + beta |k|^2)
diagonal:  h = (1 - rate k^2) h + (rate x) k
exact:     h = h + rate (x - k h) k
"""

from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from longstate.ops._layout import dense
from longstate.ops._triton import Pointer, sigmoid
from longstate.ops._triton.scan import blocks, scan, scan_back
from longstate.ops._triton.tiles import Drive, Functions, Operands, Place, Step
from longstate.ops.longhorn_scan import Inputs


class Longhorn(NamedTuple):
    size: Pointer  # b, t: |k|^2
    SQUASH: Any
    EXACT: Any


class Gradients(NamedTuple):
    size: Pointer  # blocks, b, t


@triton.jit
def _constants(rule: Longhorn, at: Place) -> tl.tensor:
    return at.lane  # none


@triton.jit
def _weigh(rule: Longhorn, now: Step, beta: tl.tensor) -> tl.tuple:
    slope = tl.full(beta.shape, 1.0, beta.dtype)
    if rule.SQUASH:
        beta = sigmoid(beta)
        slope = beta * (1.0 - beta)
    shrink = 1.0 / (1.0 + beta * tl.load(rule.size + now.row))
    return beta * shrink, slope * shrink * shrink


@triton.jit
def _advance(rule: Longhorn, c: tl.tensor, x: Drive, h: tl.tensor) -> tl.tensor:
    if rule.EXACT:
        return h + (x.w * (x.v - tl.sum(h * x.key, axis=0)))[None, :] * x.key
    else:
        return (1.0 - x.w[None, :] * x.key * x.key) * h + (x.w * x.v)[None, :] * x.key


@triton.jit
def _retreat(
    rule: Longhorn, at: Place, now: Step, c: tl.tensor, x: Drive, before: tl.tensor, g: tl.tensor,
    own: Gradients, total: tl.tensor,
) -> tl.tuple:  # fmt: skip
    rate, key = x.w, x.key
    through = tl.sum(g * key, axis=0)
    if rule.EXACT:
        miss = x.v - tl.sum(before * key, axis=0)
        to_rate = through * miss
        to_key = g * (rate * miss)[None, :] - before * (rate * through)[None, :]
        g = g - (rate * through)[None, :] * key
    else:
        to_decay = g * before
        to_rate = through * x.v - tl.sum(to_decay * key * key, axis=0)
        to_key = g * (rate * x.v)[None, :] - 2.0 * key * rate[None, :] * to_decay
        g = g * (1.0 - rate[None, :] * key * key)
    to_rate = tl.where(now.here, to_rate, 0.0)
    tl.store(own.size + at.rows + now.row, -tl.sum(to_rate * rate * rate, axis=0))
    return g, to_rate, through * rate, to_key, total


@triton.jit
def _finish(rule: Longhorn, at: Place, own: Gradients, total: tl.tensor) -> None:
    pass


_FUNCTIONS = Functions(_constants, _weigh, _advance, _retreat, _finish)


def _parts(s: Inputs) -> tuple[Longhorn, Operands]:
    rule = Longhorn(dense(s.size), tl.constexpr(s.beta_sigmoid), tl.constexpr(s.exact))
    return rule, Operands(s.x, s.beta, s.k, s.q, s.D, s.beta_bias, s.z, s.h0, s.mask, s.reset)


def forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    return scan(_FUNCTIONS, *_parts(s), s.keep)


def backward(
    s: Inputs, states: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor | None]:
    rule, operands = _parts(s)
    grads = Gradients(s.k.new_empty(blocks(operands), *s.size.shape))
    found = scan_back(_FUNCTIONS, rule, operands, states, grad_y, grad_last, grads)
    return {
        "x": found.v, "beta": found.w, "k": found.key, "q": found.query, "size": grads.size.sum(0),
        "D": found.D, "z": found.z, "h0": found.h0, "beta_bias": found.bias,
    }  # fmt: skip
