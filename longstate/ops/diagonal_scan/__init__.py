"""A first-order linear recurrence, elementwise.

    h_t = a_t * h_{t-1} + x_t            h_{-1} = h0, or 0 where reset_t

`a` may be any number: 0, negative, |a| = 1 and |a| > 1 are all exact, because no logarithm is
taken. Real or complex.

Axes: b batch, t time, n state.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import check_flags, common_type, implementation, where_kept
from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._op import register


def diagonal_scan(
    x: Tensor,
    a: Tensor,
    h0: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Every state of the recurrence, and the last one.

    Args:
        x (b, t, n): what is added.
        a (b, t, n) or (n): decay. (n) is constant over batch and time, and is not expanded
            in memory unless there is a mask.
        h0 (b, n): state before the first step. Zero when None.
        mask (b, t): bool. False leaves the state as it is and gives output 0. `x` and `a` are not
            read there.
        reset (b, t): bool. True forgets the state before that step, masked or not.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        h (b, t, n) and the state after the last step (b, n), float32 at least. Differentiable in
        `x`, `a`, `h0`.

    Raises:
        ValueError: shapes do not fit, t is 0, or `impl` cannot run here.
    """
    expect(x.dim() == 3, f"x must be (batch, time, state); got {shape_of(x)}")
    b, t, n = x.shape
    expect(t > 0, "x has no time steps; diagonal_scan needs at least one")
    expect(a.shape in ((n,), (b, t, n)), f"a must be ({n},) or {(b, t, n)}; got {shape_of(a)}")
    expect(h0 is None or h0.shape == (b, n), "h0 must be " + str((b, n)))
    check_flags(b, t, mask=mask, reset=reset)
    dtype = common_type(x, a, h0)
    x, a, h0 = x.to(dtype), a.to(dtype), None if h0 is None else h0.to(dtype)
    if mask is not None:
        x, a = where_kept(mask, x), where_kept(mask, a.expand(b, t, n), 1)
    h, last = _scan(Inputs(x, a, h0, reset, choose(impl, x)))
    return where_kept(mask, h), last


class Inputs(NamedTuple):
    """As for `diagonal_scan`, all of one type."""

    x: Tensor
    a: Tensor
    h0: Tensor | None
    reset: Tensor | None
    impl: str


def _forward(s: Inputs) -> tuple[Tensor, Tensor]:
    return implementation("diagonal_scan", s.impl).forward(s)


def _fake(s: Inputs) -> tuple[Tensor, Tensor]:
    return s.x.new_empty(s.x.shape), s.x.new_empty(s.x.shape[0], s.x.shape[2])


def _backward(
    s: Inputs, h: Tensor, grad_h: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor]:
    start = torch.zeros_like(h[:, 0]) if s.h0 is None else s.h0
    grad_h = torch.zeros_like(h) if grad_h is None else grad_h
    carry = torch.zeros_like(start) if grad_last is None else grad_last.clone()
    return implementation("diagonal_scan", s.impl).backward(s, start, h, grad_h, carry)


def _reference(s: Inputs) -> tuple[Tensor, Tensor]:
    from longstate.ops.diagonal_scan import reference

    return reference.forward(s)


def _restore(s: Inputs, h: Tensor) -> dict[str, Tensor]:
    start = torch.zeros_like(h[:, 0]) if s.h0 is None else s.h0
    before = torch.cat([start[:, None], h[:, :-1]], dim=1)
    if s.reset is not None:
        before = torch.where(s.reset[..., None], 0, before)
    return {"x": h - s.a * before}


_scan = register(
    "diagonal_scan", Inputs, _forward, _fake, _backward, _reference,
    returns="h last", saves="h", unsaved="x", restore=_restore,
)  # fmt: skip
