"""Forced harmonic oscillators, y'' = -A y + x, over steps of any length.

With x_t = B u_t, velocity z, position y, and steps of 1,

    implicit ("im")               z_t = z_{t-1} + x_t - A y_t          y_t = y_{t-1} + z_t
    implicit-explicit ("imex")    z_t = z_{t-1} + x_t - A y_{t-1}      y_t = y_{t-1} + z_t

where (z, y)_{-1} = h0, or 0 where reset_t. The first loses energy; the second keeps
E = z^2 + A y^2 - A z y, as long as A < 4. A learned step s for each oscillator is folded in by the
caller: A s^2 and B s^2, and the state's velocity is then s z.

Over a step dt other than 1, "im" is

    z_t = z_{t-1} + dt (x_t - A y_t)          y_t = y_{t-1} + dt z_t

which loses energy whatever the steps. The same done to "imex" is a trap: each step keeps an energy
of its own, so uneven steps pump, like pushes at a swing, and an oscillator that is stable at every
step grows a thousandfold in a few hundred. Here it turns by the same angle, cos(angle) =
1 - A dt^2 / 2, but always along the ellipses E = constant of the unit step:

    (z, y)_t = (c + s N) (z, y)_{t-1} + (s, (dt^2 + s) / 2) x_t      N = [[A/2, -A], [1, -A/2]]
    c = 1 - A dt^2 / 2          s = dt sqrt((1 - A dt^2 / 4) / (1 - A / 4))

which is the rule itself at dt = 1, rests where it rests (z = 0, y = x / A), and keeps E over any
steps. The angle stays below a half turn: A is cut at STABLE, and dt at sqrt(STABLE / A).

A step of length 0 does nothing at all. Real and imaginary parts are oscillators of their own, so
everything may be real or complex but `A`. The step is a number for each sequence and time, the
frequency a number for each oscillator, and no combination is stored. Nor are the velocities: the
backward pass makes them again from a few, and B u too.

Rusch, Rus, "Oscillatory State-Space Models", ICLR 2025, arXiv:2410.03943. Differs from the paper:
a scan in time order, not an associative one; uneven steps, which it does not have; A < 4.

Axes: b batch, t time, d channels, n oscillators.
"""

from typing import Literal

import torch
from torch import Tensor

from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._drive import drive, drive_gradients, own_drive
from longstate.ops._layout import dense
from longstate.ops.oscillator_scan.step import STABLE as STABLE
from longstate.ops.oscillator_scan.step import oscillator_step as oscillator_step

CHUNK = 32
"""Steps between two velocities that are kept for the backward pass."""


def oscillator_scan(
    A: Tensor,
    u: Tensor,
    h0: Tensor | None = None,
    *,
    B: Tensor | None = None,
    dt: Tensor | None = None,
    rule: Literal["im", "imex"] = "im",
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Positions of the oscillators, and their last state.

    Args:
        A (n): squared angular frequency, real and not negative, per unit of `dt` squared. Values
            above STABLE count as STABLE for "imex".
        u (b, t, d): real input. Without `B`: the drive x itself, (b, t, n), real or complex.
        h0 (b, 2, n): velocity and position before the first step. Zero when None.
        B (n, d): real or complex. None when `u` is the drive.
        dt (b, t): real and not negative; the length of each step. 1 when None.
        rule: "im" (implicit, dissipative) or "imex" (implicit-explicit, conserves energy).
        reset (b, t): bool. True forgets the state before that step.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        y (b, t, n) and the velocity and position after the last step (b, 2, n), float32 at least.
        Differentiable in `A`, `u`, `h0`, `B` and `dt`.

    Raises:
        ValueError: shapes do not fit, a dtype is complex where it should not be, t is 0, or `rule`
            or `impl` does not exist or cannot run here.
    """
    expect(rule in ("im", "imex"), f"rule must be 'im' or 'imex'; got {rule!r}")
    expect(A.dim() == 1 and not A.is_complex(), f"A must be (n,) and real; got {shape_of(A)}")
    expect(u.dim() == 3, f"u must be (batch, time, channels); got {shape_of(u)}")
    (b, t, d), n = u.shape, A.shape[0]
    expect(t > 0, "u has no time steps; oscillator_scan needs at least one")
    expect(
        B is not None or d == n, f"without B, u must be the drive {(b, t, n)}; got {shape_of(u)}"
    )
    expect(B is None or not u.is_complex(), "with B, u must be real; got " + shape_of(u))
    expect(B is None or B.shape == (n, d), f"B must be {(n, d)}")
    expect(dt is None or dt.shape == (b, t), f"dt must be {(b, t)}")
    expect(dt is None or not dt.is_complex(), "dt must be real")
    expect(h0 is None or h0.shape == (b, 2, n), f"h0 must be {(b, 2, n)}")
    expect(
        reset is None or (reset.shape == (b, t) and reset.dtype == torch.bool),
        f"reset must be a bool tensor {(b, t)}",
    )
    dtype = torch.float32
    for tensor in (A, u, h0, B, dt):
        if tensor is not None:
            dtype = torch.promote_types(dtype, tensor.dtype)
    double = dtype in (torch.float64, torch.complex128)
    real = torch.float64 if double else torch.float32
    u = u.to(dtype if B is None else real)
    B = None if B is None else B.to(dtype)
    A = A.to(real) if rule == "im" else A.to(real).clamp(max=STABLE)
    dt = u.real.new_ones(b, t) if dt is None else dt.to(real)
    h0 = A.new_zeros(b, 2, n, dtype=dtype) if h0 is None else h0.to(dtype)
    impl = choose(impl, u)
    if impl == "reference":
        from longstate.ops.oscillator_scan import reference

        x = u if B is None else drive(u, B)
        return reference.forward(A, dt, x, h0, reset, rule)
    y, last, _ = _scan(A, dt, u, h0, B, reset, rule == "im", impl)
    return y, last


def _implementation(impl: str):
    if impl == "cpu":
        from longstate.ops.oscillator_scan import cpu

        return cpu
    from longstate.ops.oscillator_scan import triton

    return triton


def _lanes(A: Tensor, complex_drive: bool) -> Tensor:
    """One A for each real oscillator: the parts of a complex one swing alike."""
    return dense(A.repeat_interleave(2) if complex_drive else A)


@torch.library.custom_op("longstate::oscillator_scan", mutates_args=())
def _scan(
    A: Tensor,
    dt: Tensor,
    u: Tensor,
    h0: Tensor,
    B: Tensor | None,
    reset: Tensor | None,
    implicit: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor]:
    y = own_drive(u, B)
    last = dense(h0).clone()
    kept = _implementation(impl).forward_(
        _lanes(A, y.is_complex()), dense(dt), y, last, reset, implicit, CHUNK
    )
    return y, last, kept


@_scan.register_fake
def _(A, dt, u, h0, B, reset, implicit, impl):
    b, t, _ = u.shape
    kept = A.new_empty(b, -(-t // CHUNK), A.shape[0] * (2 if h0.is_complex() else 1))
    return h0.new_empty(b, t, A.shape[0]), h0.new_empty(h0.shape), kept


@torch.library.custom_op("longstate::oscillator_scan_backward", mutates_args=())
def _scan_backward(
    A: Tensor,
    dt: Tensor,
    u: Tensor,
    h0: Tensor,
    B: Tensor | None,
    reset: Tensor | None,
    y: Tensor,
    kept: Tensor,
    grad_y: Tensor | None,
    grad_last: Tensor | None,
    implicit: bool,
    impl: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x = own_drive(u, B)
    grad_y = torch.zeros_like(y) if grad_y is None else dense(grad_y)
    grad_h0 = torch.zeros_like(h0) if grad_last is None else grad_last.clone()
    grad_h0 = dense(grad_h0)
    grad_A, grad_dt = _implementation(impl).backward_(
        _lanes(A, y.is_complex()), dense(dt), x, dense(h0), reset, y, kept, grad_y, grad_h0,
        implicit, CHUNK,
    )  # fmt: skip
    if y.is_complex():
        grad_A = grad_A.unflatten(0, (-1, 2)).sum(1)
    grad_u, grad_B = drive_gradients(u, B, x)
    return grad_A, grad_dt, grad_u, grad_h0, grad_B


@_scan_backward.register_fake
def _(A, dt, u, h0, B, reset, y, kept, grad_y, grad_last, implicit, impl):
    return (
        A.new_empty(A.shape),
        dt.new_empty(dt.shape),
        u.new_empty(u.shape),
        h0.new_empty(h0.shape),
        y.new_empty(0) if B is None else B.new_empty(B.shape),
    )


def _setup(ctx, inputs, output):
    A, dt, u, h0, B, reset, ctx.implicit, ctx.impl = inputs
    y, _, kept = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(kept)
    ctx.save_for_backward(A, dt, u, h0, B, reset, y, kept)


def _backward(ctx, grad_y, grad_last, _):
    saved = ctx.saved_tensors
    grad_A, grad_dt, grad_u, grad_h0, grad_B = _scan_backward(
        *saved, grad_y, grad_last, ctx.implicit, ctx.impl
    )
    return grad_A, grad_dt, grad_u, grad_h0, None if saved[4] is None else grad_B, None, None, None


_scan.register_autograd(_backward, setup_context=_setup)
