"""A first-order linear recurrence, elementwise.

    h_t = a_t * h_{t-1} + x_t            h_{-1} = h0, or 0 where reset_t

Nothing is asked of `a`: 0, negative, |a| = 1 and |a| > 1 are all exact, because no logarithm is
taken. Real or complex.

Axes: b batch, t time, n state.
"""

import torch
from torch import Tensor

from longstate.ops._choice import choose, expect, shape_of


def diagonal_scan(
    a: Tensor,
    x: Tensor,
    h0: Tensor | None = None,
    *,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Every state of the recurrence, and the last one.

    Args:
        a (b, t, n) or (n): decay. The short form is constant over batch and time, and costs no
            memory for being so.
        x (b, t, n): what is added.
        h0 (b, n): state before the first step. Zero when None.
        reset (b, t): bool. True forgets the state before that step.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        h (b, t, n) and the state after the last step (b, n), float32 at least. Differentiable in
        `a`, `x`, `h0`.

    Raises:
        ValueError: shapes do not fit, t is 0, or `impl` cannot run here.
    """
    expect(x.dim() == 3, f"x must be (batch, time, state); got {shape_of(x)}")
    b, t, n = x.shape
    expect(t > 0, "x has no time steps; diagonal_scan needs at least one")
    expect(a.shape in ((n,), (b, t, n)), f"a must be ({n},) or {(b, t, n)}; got {shape_of(a)}")
    expect(h0 is None or h0.shape == (b, n), "h0 must be " + str((b, n)))
    expect(
        reset is None or (reset.shape == (b, t) and reset.dtype == torch.bool),
        f"reset must be a bool tensor {(b, t)}",
    )
    dtype = torch.promote_types(a.dtype, x.dtype)
    if h0 is not None:
        dtype = torch.promote_types(dtype, h0.dtype)
    if dtype in (torch.float16, torch.bfloat16):
        dtype = torch.float32
    h0 = None if h0 is None else h0.to(dtype)
    impl = choose(impl, x)
    if impl == "reference":
        from longstate.ops.diagonal_scan import reference

        return reference.forward(a.to(dtype), x.to(dtype), h0, reset)
    return _scan(a.to(dtype), x.to(dtype), h0, reset, impl)


def _implementation(impl: str):
    if impl == "cpu":
        from longstate.ops.diagonal_scan import cpu

        return cpu
    from longstate.ops.diagonal_scan import triton

    return triton


@torch.library.custom_op("longstate::diagonal_scan", mutates_args=())
def _scan(
    a: Tensor, x: Tensor, h0: Tensor | None, reset: Tensor | None, impl: str
) -> tuple[Tensor, Tensor]:
    return _implementation(impl).forward(a, x, h0, reset)


@_scan.register_fake
def _(a, x, h0, reset, impl):
    return torch.empty_like(x, memory_format=torch.contiguous_format), x.new_empty(
        x.shape[0], x.shape[2]
    )


@torch.library.custom_op("longstate::diagonal_scan_backward", mutates_args=())
def _scan_backward(
    a: Tensor,
    h0: Tensor | None,
    h: Tensor,
    reset: Tensor | None,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    return _implementation(impl).backward(a, h0, h, reset, grad_h, grad_last)


@_scan_backward.register_fake
def _(a, h0, h, reset, grad_h, grad_last, impl):
    return torch.empty_like(a), torch.empty_like(h), h.new_empty(h.shape[0], h.shape[2])


def _setup(ctx, inputs, output):
    a, _, h0, reset, ctx.impl = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(a, h0, output[0], reset)


def _backward(ctx, grad_h, grad_last):
    a, h0, h, reset = ctx.saved_tensors
    grad_a, grad_x, grad_h0 = _scan_backward(a, h0, h, reset, grad_h, grad_last, ctx.impl)
    return grad_a, grad_x, None if h0 is None else grad_h0, None, None


_scan.register_autograd(_backward, setup_context=_setup)
