"""Forced harmonic oscillators, y'' = -A y + x, over steps of any length.

With x_t = B u_t, velocity z, position y, and steps of 1,

    implicit ("im")               z_t = z_{t-1} + x_t - A y_t          y_t = y_{t-1} + z_t
    implicit-explicit ("imex")    z_t = z_{t-1} + x_t - A y_{t-1}      y_t = y_{t-1} + z_t

where (z, y)_{-1} = h0, or 0 where reset_t. The first loses energy; the second keeps
E = z^2 + A y^2 - A z y, if A < 4. For a learned step s of each oscillator the caller passes A s^2
and B s^2, and the state's velocity is then s z.

Over a step dt other than 1, "im" is

    z_t = z_{t-1} + dt (x_t - A y_t)          y_t = y_{t-1} + dt z_t

which loses energy for any steps. The same change would make "imex" unstable: each length of step
conserves a different energy, so with uneven steps an oscillator that is stable at every single step
grows by a factor of 1000 in a few hundred steps. Here a step rotates the state by the same angle,
cos(angle) = 1 - A dt^2 / 2, but always along the ellipses E = constant of the unit step:

    (z, y)_t = (c + s N) (z, y)_{t-1} + (s, (dt^2 + s) / 2) x_t      N = [[A/2, -A], [1, -A/2]]
    c = 1 - A dt^2 / 2          s = dt sqrt((1 - A dt^2 / 4) / (1 - A / 4))

which equals the rule at dt = 1, has the same equilibrium (z = 0, y = x / A), and conserves E over
any steps. The angle stays below a half turn: A is limited to STABLE, and dt to sqrt(STABLE / A).

A step of length 0 has no effect. Real and imaginary parts are separate oscillators, so the drive
and the state may be complex. The step is a number for each sequence and time, the frequency a
number for each oscillator, and their combinations are not stored. Velocities and B u are not stored
either: the backward pass recomputes them, velocities from those of every CHUNK-th step.

Rusch, Rus, "Oscillatory State-Space Models", ICLR 2025, arXiv:2410.03943. Differs from the paper:
a scan in time order, not an associative one; uneven steps, which it does not have; A < 4.

Axes: b batch, t time, d channels, n oscillators.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import check_flags, common_type, implementation, real_type, where_kept
from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._drive import drive_gradients, own_drive
from longstate.ops._layout import dense
from longstate.ops._op import register
from longstate.ops.oscillator_scan.step import STABLE as STABLE
from longstate.ops.oscillator_scan.step import oscillator_step as oscillator_step

CHUNK = 32
"""Steps between two velocities that are kept for the backward pass."""


def oscillator_scan(
    u: Tensor,
    A: Tensor,
    h0: Tensor | None = None,
    *,
    B: Tensor | None = None,
    dt: Tensor | None = None,
    rule: Literal["im", "imex"] = "im",
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Positions of the oscillators, and their last state.

    Args:
        u (b, t, d): real input. Without `B`: the drive x itself, (b, t, n), real or complex.
        A (n): squared angular frequency, real and not negative, per unit of `dt` squared. Values
            above STABLE count as STABLE for "imex".
        h0 (b, 2, n): velocity and position before the first step. Zero when None.
        B (n, d): real or complex. None when `u` is the drive.
        dt (b, t): real and not negative; the length of each step. 1 when None.
        rule: "im" (implicit, dissipative) or "imex" (implicit-explicit, conserves energy).
        mask (b, t): bool. False leaves the state as it is and gives output 0. `u` and `dt`
            are not read there.
        reset (b, t): bool. True forgets the state before that step, masked or not.
        impl: "auto", "reference", "cpu" or "triton".

    Returns:
        y (b, t, n) and the velocity and position after the last step (b, 2, n), float32 at least.
        Differentiable in `u`, `A`, `h0`, `B` and `dt`.

    Raises:
        ValueError: shapes do not fit, a dtype is complex where it should not be, t is 0, or `rule`
            or `impl` does not exist or cannot run here.
    """
    expect(rule in ("im", "imex"), f"rule must be 'im' or 'imex'; got {rule!r}")
    _check(u, A, h0, B, dt)
    (b, t, _), n = u.shape, A.shape[0]
    check_flags(b, t, mask=mask, reset=reset)
    dtype = common_type(u, A, h0, B, dt)
    real = real_type(dtype)
    u = u.to(dtype if B is None else real)
    B = None if B is None else B.to(dtype)
    A = A.to(real) if rule == "im" else A.to(real).clamp(max=STABLE)
    dt = u.real.new_ones(b, t) if dt is None else dt.to(real)
    h0 = A.new_zeros(b, 2, n, dtype=dtype) if h0 is None else h0.to(dtype)
    # over a step of length 0 the state stays
    u, dt = where_kept(mask, u), where_kept(mask, dt)
    y, last = _scan(Inputs(u, A, dt, h0, B, reset, rule == "im", choose(impl, u)))
    return where_kept(mask, y), last


def _check(u: Tensor, A: Tensor, h0: Tensor | None, B: Tensor | None, dt: Tensor | None) -> None:
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


class Inputs(NamedTuple):
    """As for `oscillator_scan`, all of one precision."""

    u: Tensor
    A: Tensor
    dt: Tensor
    h0: Tensor
    B: Tensor | None
    reset: Tensor | None
    implicit: bool
    impl: str


def _lanes(s: Inputs) -> Tensor:
    """One A for each real oscillator: both parts of a complex one have the same."""
    return dense(s.A.repeat_interleave(2) if s.h0.is_complex() else s.A)


def _forward(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, the last state, and the velocities before every chunk."""
    y, last = own_drive(s.u, s.B), dense(s.h0).clone()
    A = _lanes(s)
    kept = A.new_empty(y.shape[0], -(-y.shape[1] // CHUNK), A.shape[0])
    implementation("oscillator_scan", s.impl).forward_(s, A, y, last, kept)
    return y, last, kept


def _fake(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, _), n = s.u.shape, s.A.shape[0]
    kept = s.A.new_empty(b, -(-t // CHUNK), n * (2 if s.h0.is_complex() else 1))
    return s.h0.new_empty(b, t, n), s.h0.new_empty(s.h0.shape), kept


def _backward(
    s: Inputs, y: Tensor, kept: Tensor, grad_y: Tensor | None, grad_last: Tensor | None
) -> dict[str, Tensor]:
    x = own_drive(s.u, s.B)
    grad_y = torch.zeros_like(y) if grad_y is None else grad_y
    carry = dense(torch.zeros_like(s.h0) if grad_last is None else grad_last.clone())
    run = implementation("oscillator_scan", s.impl)
    grad_A, grad_dt = run.backward_(s, _lanes(s), x, y, kept, dense(grad_y), carry)
    if y.is_complex():
        grad_A = grad_A.unflatten(0, (-1, 2)).sum(1)
    grad_u, grad_B = drive_gradients(s.u, s.B, x)
    return {"u": grad_u, "A": grad_A, "dt": grad_dt, "h0": carry, "B": grad_B}


def _reference(s: Inputs) -> tuple[Tensor, Tensor]:
    from longstate.ops.oscillator_scan import reference

    return reference.forward(s)


_scan = register(
    "oscillator_scan", Inputs, _forward, _fake, _backward, _reference,
    returns="y last", saves="y kept",
)  # fmt: skip
