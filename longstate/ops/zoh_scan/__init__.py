"""A diagonal continuous-time system, driven by a held input over steps of any length.

    h_t = exp(A dt_t) h_{t-1} + ((exp(A dt_t) - 1) / A) x_t        x_t = B u_t

is the exact solution of h' = A h + x with x constant during each step (zero-order hold), so
cutting a step in two under the same input changes nothing, and a step of length 0 does nothing at
all. A may be 0, where the second factor is dt, and there is no cancellation near it, in values or
in gradients. h_{-1} = h0, or 0 where reset_t.

The step is a number for each sequence and time, the decay a number for each state, and their
product is never stored: memory is that of the states. B u is recomputed in the backward pass. A
learned step for each state is folded into A and B by the caller.

Smith, Warrington, Linderman, "Simplified State Space Layers for Sequence Modeling", ICLR 2023,
arXiv:2208.04933, with its per-sample steps. Differs from the paper: nothing.

Axes: b batch, t time, d channels, n state.
"""

import torch
from torch import Tensor

from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._drive import drive, drive_gradients, own_drive
from longstate.ops._layout import dense


def zoh_scan(
    A: Tensor,
    dt: Tensor,
    u: Tensor,
    h0: Tensor | None = None,
    *,
    B: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Every state of the system, and the last one.

    Args:
        A (n): complex, per unit of `dt`. The real part is negative for a stable system.
        dt (b, t): real and not negative; the time that each sample is held.
        u (b, t, d): real input. Without `B`: the drive x itself, (b, t, n) complex.
        h0 (b, n): complex state before the first step. Zero when None.
        B (n, d): complex. None when `u` is the drive.
        reset (b, t): bool. True forgets the state before that step.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        h (b, t, n) and the state after the last step (b, n), complex64 at least. Differentiable in
        `A`, `dt`, `u`, `h0` and `B`.

    Raises:
        ValueError: shapes do not fit, a dtype is real or complex where it should not be, t is 0,
            or `impl` cannot run here.
    """
    expect(A.dim() == 1 and A.is_complex(), f"A must be (n,) and complex; got {shape_of(A)}")
    expect(u.dim() == 3, f"u must be (batch, time, channels); got {shape_of(u)}")
    (b, t, d), n = u.shape, A.shape[0]
    expect(t > 0, "u has no time steps; zoh_scan needs at least one")
    if B is None:
        expect(
            d == n and u.is_complex(),
            f"without B, u must be the drive {(b, t, n)} and complex; got {shape_of(u)}",
        )
    else:
        expect(not u.is_complex(), "with B, u must be real; got " + shape_of(u))
        expect(
            B.shape == (n, d) and B.is_complex(),
            f"B must be {(n, d)} and complex; got {shape_of(B)}",
        )
    expect(
        dt.shape == (b, t) and not dt.is_complex(),
        f"dt must be {(b, t)} and real; got {shape_of(dt)}",
    )
    expect(h0 is None or h0.shape == (b, n), f"h0 must be {(b, n)}")
    expect(
        reset is None or (reset.shape == (b, t) and reset.dtype == torch.bool),
        f"reset must be a bool tensor {(b, t)}",
    )
    dtype = torch.complex64
    for tensor in (A, dt, u, h0, B):
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    real = torch.float64 if dtype == torch.complex128 else torch.float32
    u = u.to(dtype if B is None else real)
    A, dt = A.to(dtype), dt.to(real)
    h0 = None if h0 is None else h0.to(dtype)
    B = None if B is None else B.to(dtype)
    impl = choose(impl, u)
    if impl == "reference":
        from longstate.ops.zoh_scan import reference

        return reference.forward(A, dt, u if B is None else drive(u, B), h0, reset)
    return _scan(A, dt, u, h0, B, reset, impl)


def _implementation(impl: str):
    if impl == "cpu":
        from longstate.ops.zoh_scan import cpu

        return cpu
    from longstate.ops.zoh_scan import triton

    return triton


@torch.library.custom_op("longstate::zoh_scan", mutates_args=())
def _scan(
    A: Tensor,
    dt: Tensor,
    u: Tensor,
    h0: Tensor | None,
    B: Tensor | None,
    reset: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor]:
    h = own_drive(u, B)
    _implementation(impl).forward_(dense(A), dense(dt), h, h0, reset)
    return h, h[:, -1].clone()


@_scan.register_fake
def _(A, dt, u, h0, B, reset, impl):
    b, t, _ = u.shape
    return A.new_empty(b, t, A.shape[0]), A.new_empty(b, A.shape[0])


@torch.library.custom_op("longstate::zoh_scan_backward", mutates_args=())
def _scan_backward(
    A: Tensor,
    dt: Tensor,
    u: Tensor,
    h0: Tensor | None,
    B: Tensor | None,
    reset: Tensor | None,
    h: Tensor,
    grad_h: Tensor | None,
    grad_last: Tensor | None,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x = own_drive(u, B)
    grad_A, grad_dt, grad_h0 = _implementation(impl).backward_(
        dense(A), dense(dt), x, h0, reset, h, grad_h, grad_last
    )
    grad_u, grad_B = drive_gradients(u, B, x)
    return grad_A, grad_dt, grad_u, grad_h0, grad_B


@_scan_backward.register_fake
def _(A, dt, u, h0, B, reset, h, grad_h, grad_last, impl):
    return (
        torch.empty_like(A),
        dt.new_empty(dt.shape),
        u.new_empty(u.shape),
        A.new_empty(u.shape[0], A.shape[0]),
        A.new_empty(0) if B is None else B.new_empty(B.shape),
    )


def _setup(ctx, inputs, output):
    A, dt, u, h0, B, reset, ctx.impl = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(A, dt, u, h0, B, reset, output[0])


def _backward(ctx, grad_h, grad_last):
    saved = ctx.saved_tensors
    grad_A, grad_dt, grad_u, grad_h0, grad_B = _scan_backward(*saved, grad_h, grad_last, ctx.impl)
    h0, B = saved[3], saved[4]
    return (
        grad_A,
        grad_dt,
        grad_u,
        None if h0 is None else grad_h0,
        None if B is None else grad_B,
        None,
        None,
    )


_scan.register_autograd(_backward, setup_context=_setup)
