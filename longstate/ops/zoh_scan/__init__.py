"""A diagonal continuous-time system, with an input held constant over steps of any length.

    h_t = exp(A dt_t) h_{t-1} + ((exp(A dt_t) - 1) / A) x_t        x_t = B u_t

is the exact solution of h' = A h + x with x constant during each step (zero-order hold), so
dividing a step in two with the same input changes nothing, and a step of length 0 has no effect. A
may be 0, where the second factor is dt, and there is no cancellation near it, in values or in
gradients. h_{-1} = h0, or 0 where reset_t.

The step is a number for each sequence and time, the decay a number for each state, and their
product is never stored: memory is that of the states. B u is recomputed in the backward pass. A
learned step for each state is folded into A and B by the caller.

Smith, Warrington, Linderman, "Simplified State Space Layers for Sequence Modeling", ICLR 2023,
arXiv:2208.04933, with its per-sample steps. Differs from the paper: nothing.

Axes: b batch, t time, d channels, n state.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import check_flags, common_type, implementation, real_type, where_kept
from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._drive import drive_gradients, own_drive
from longstate.ops._op import register

LANES = 128  # states of a block of the CPU kernels, and so the length of their rows of factors


def zoh_scan(
    u: Tensor,
    A: Tensor,
    dt: Tensor,
    h0: Tensor | None = None,
    *,
    B: Tensor | None = None,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Every state of the system, and the last one.

    Args:
        u (b, t, d): real input. Without `B`: the drive x itself, (b, t, n) complex.
        A (n): complex, per unit of `dt`. The real part is negative for a stable system.
        dt (b, t): real and not negative; the time that each sample is held.
        h0 (b, n): complex state before the first step. Zero when None.
        B (n, d): complex. None when `u` is the drive.
        mask (b, t): bool. False leaves the state as it is and gives output 0. `u` and `dt`
            are not read there.
        reset (b, t): bool. True forgets the state before that step, masked or not.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        h (b, t, n) and the state after the last step (b, n), complex64 at least. Differentiable in
        `u`, `A`, `dt`, `h0` and `B`.

    Raises:
        ValueError: shapes do not fit, a dtype is real or complex where it should not be, t is 0,
            or `impl` cannot run here.
    """
    _check(u, A, dt, h0, B)
    check_flags(*u.shape[:2], mask=mask, reset=reset)
    dtype = torch.promote_types(torch.complex64, common_type(u, A, dt, h0, B))
    real = real_type(dtype)
    u, dt = u.to(dtype if B is None else real), dt.to(real)
    A, h0, B = A.to(dtype), None if h0 is None else h0.to(dtype), None if B is None else B.to(dtype)
    # over a step of length 0 the state stays
    u, dt = where_kept(mask, u), where_kept(mask, dt)
    h, last = _scan(Inputs(u, A, dt, h0, B, reset, choose(impl, u)))
    return where_kept(mask, h), last


def _check(u: Tensor, A: Tensor, dt: Tensor, h0: Tensor | None, B: Tensor | None) -> None:
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


class Inputs(NamedTuple):
    """As for `zoh_scan`, all of one precision."""

    u: Tensor
    A: Tensor
    dt: Tensor
    h0: Tensor | None
    B: Tensor | None
    reset: Tensor | None
    impl: str


def pole_rows(A: Tensor) -> Tensor:
    """What kernels read of A (n): Re A, Im A, Re 1/A, Im 1/A, and 1 where A is 0, (5, n).

    1/A is 0 where A is so small that (exp(A dt) - 1) / A is dt to the last bit.
    """
    tiny = A.abs() < 1e-20
    inverse = torch.where(tiny, 0, 1 / torch.where(tiny, 1, A))
    return torch.stack([A.real, A.imag, inverse.real, inverse.imag, tiny.to(A.real.dtype)])


def _zeros(s: Inputs) -> Tensor:
    return s.A.new_zeros(s.u.shape[0], s.A.shape[0])


def _forward(s: Inputs) -> tuple[Tensor, Tensor]:
    h = own_drive(s.u, s.B)
    start = _zeros(s) if s.h0 is None else s.h0
    implementation("zoh_scan", s.impl).forward_(s, start, h)
    return h, h[:, -1].clone()


def _fake(s: Inputs) -> tuple[Tensor, Tensor]:
    (b, t, _), n = s.u.shape, s.A.shape[0]
    return s.A.new_empty(b, t, n), s.A.new_empty(b, n)


def _backward(
    s: Inputs, h: Tensor, grad_h: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor]:
    x = own_drive(s.u, s.B)
    start = _zeros(s) if s.h0 is None else s.h0
    grad_h = torch.zeros_like(h) if grad_h is None else grad_h
    carry = (
        _zeros(s) if grad_last is None else grad_last.clone(memory_format=torch.contiguous_format)
    )
    run = implementation("zoh_scan", s.impl)
    grad_A, grad_dt = run.backward_(s, start, x, h, grad_h, carry)
    grad_u, grad_B = drive_gradients(s.u, s.B, x)
    return {"u": grad_u, "A": grad_A, "dt": grad_dt, "h0": carry, "B": grad_B}


def _reference(s: Inputs) -> tuple[Tensor, Tensor]:
    from longstate.ops.zoh_scan import reference

    return reference.forward(s)


_scan = register(
    "zoh_scan", Inputs, _forward, _fake, _backward, _reference, returns="h last", saves="h"
)
