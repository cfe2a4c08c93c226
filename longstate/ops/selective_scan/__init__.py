"""A linear recurrence whose step depends on the input: fused discretisation, scan, readout, gate.

    dt_t = softplus(dt_t + dt_bias)                            where asked for
    h_t  = exp(dt_t A) * h_{t-1} + dt_t u_t B_t                h_{-1} = h0, or 0 where reset_t
    y_t  = (C_t h_t + D u_t) * silu(z_t)                       2 Re(C_t h_t) for complex A

One decay for each pair of channel and state. No tensor (b t d n) is ever formed: the CPU and GPU
forms keep the states at every 32nd step and recompute the others on the way back.

Source: Gu and Dao, "Mamba: Linear-Time Sequence Modeling with Selective State Spaces" (2023).
Differs from the paper, as its own code does: B is discretised by Euler's rule (dt B) where the
paper writes zero-order hold, so with dt -> infinity the state grows as dt u B.

Axes: b batch, t time, d channels, n state, g groups of channels that share B and C.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import check_flags, check_shapes, register_steered, where_kept
from longstate.ops._choice import choose_for_length, expect, shape_of
from longstate.ops._layout import compute_dtype


def selective_scan(
    u: Tensor,
    dt: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    h0: Tensor | None = None,
    *,
    dt_bias: Tensor | None = None,
    dt_softplus: bool = False,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Outputs of the recurrence, and the state after the last step.

    Args:
        u (b, t, d): input. float32, bfloat16, float16 or float64, as are `dt` and `z`.
        dt (b, t, d): step, in units of 1 / |A|; before bias and softplus if these are asked for.
            Not negative once they are applied.
        A (d, n): decay rate, negative. Complex only with the reference.
        B (b, t, n), (b, t, g, n) or (d, n): what the input writes. The short form is constant.
        C: what the output reads; a shape of those of `B`, not necessarily the same.
        D (d): direct path. None: none.
        z (b, t, d): gate, before its SiLU. None: no gate.
        h0 (b, d, n): state before the first step. Zero when None.
        dt_bias (d): added to `dt`.
        dt_softplus: whether `dt` goes through softplus.
        mask (b, t): bool. False leaves the state as it is, bit for bit, and gives output 0. The
            other tensors are not read there.
        reset (b, t): bool. True forgets the state before that step, masked or not.
        impl: "auto", "reference", "cpu" or "triton". Under "auto", complex A goes to the reference,
            a single step on a CPU to a kernel of its own, or to the reference if a gradient, a mask
            or a reset is wanted.

    Returns:
        y (b, t, d) of the type of `u` and the last state (b, d, n) in float32 or wider.
        Differentiable in every tensor but `mask` and `reset`.

    Raises:
        ValueError: shapes do not fit, t is 0, or `impl` cannot run here.
    """
    _check(u, dt, A, B, C, D=D, z=z, h0=h0, dt_bias=dt_bias, mask=mask, reset=reset)
    if impl == "auto" and any(x.is_complex() for x in (A, B, C)):
        impl = "reference"
    flags = mask is not None or reset is not None
    impl = choose_for_length(impl, u, dt, A, B, C, D, z, h0, dt_bias, flags=flags)
    expect(
        impl == "reference" or not A.is_complex(),
        f"complex A needs impl='reference'; got impl={impl!r}",
    )
    wide = compute_dtype(u, dt, A, B, C, D, z, h0, dt_bias)
    state_dtype = wide.to_complex() if A.is_complex() or B.is_complex() else wide
    if h0 is None:
        h0 = torch.zeros(u.shape[0], *A.shape, dtype=state_dtype, device=u.device)
    h0 = h0.to(state_dtype)
    if mask is not None:  # so that values at padding reach no sum
        B, C = (x if x.dim() == 2 else where_kept(mask, x) for x in (B, C))
    if impl == "step":
        from longstate.ops.selective_scan import cpu_step

        return cpu_step.forward(u, dt, A, B, C, D, z, h0, dt_bias, dt_softplus)
    A, B, C = (x.to(wide.to_complex() if x.is_complex() else wide) for x in (A, B, C))
    if impl == "triton" and (B.dim() == 2 or C.dim() == 2):
        B, C = _by_channel(B, u), _by_channel(C, u)
    y, last = _scan(
        Inputs(u, dt, A, B, C, D, z, h0, dt_bias, mask, reset, dt_softplus, False, impl)
    )
    return y, last


def _by_channel(x: Tensor, u: Tensor) -> Tensor:
    """B or C of any form as (b, t, d, n), every channel a group of its own."""
    b, t, d = u.shape
    x = x[:, :, None] if x.dim() == 3 else x
    if x.dim() == 4 and x.shape[2] > 1:
        x = x.repeat_interleave(d // x.shape[2], dim=2)
    return x.expand(b, t, d, x.shape[-1])


def _check(
    u: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, **options: Tensor | None
) -> None:
    # The messages are only put together when needed: that takes as long as a small kernel.
    if u.dim() != 3:
        raise ValueError(f"u must be (batch, time, channels); got {shape_of(u)}")
    b, t, d = u.shape
    expect(t > 0, "u has no time steps; selective_scan needs at least one")
    if A.dim() != 2 or A.shape[0] != d:
        raise ValueError(f"A must be ({d}, state); got {shape_of(A)}")
    n = A.shape[1]
    check_shapes((b, t, d), dt=dt, z=options["z"])
    for name, x in (("B", B), ("C", C)):
        grouped = x.dim() == 4 and x.shape[2] > 0 and d % x.shape[2] == 0
        if x.shape not in ((d, n), (b, t, n)) and not (
            grouped and x.shape == (b, t, x.shape[2], n)
        ):
            raise ValueError(
                f"{name} must be {(b, t, n)}, {(b, t, 'groups', n)} with groups that divide {d}, "
                f"or {(d, n)}; got {shape_of(x)}"
            )
    expect(
        B.dim() != 4 or C.dim() != 4 or B.shape[2] == C.shape[2],
        "B and C must have equal numbers of groups",
    )
    check_shapes((d,), D=options["D"], dt_bias=options["dt_bias"])
    check_shapes((b, d, n), h0=options["h0"])
    check_flags(b, t, mask=options["mask"], reset=options["reset"])


class Inputs(NamedTuple):
    """Of the op. As for `selective_scan`, but A, B, C and `h0` are of the type to compute in, and
    `keep` asks for the states (b, chunks, n, d) at the start of every chunk."""

    u: Tensor
    dt: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    h0: Tensor
    dt_bias: Tensor | None
    mask: Tensor | None
    reset: Tensor | None
    dt_softplus: bool
    keep: bool
    impl: str

    @property
    def constant(self) -> bool:
        """Whether B or C is constant in time, (d, n)."""
        return self.B.dim() == 2 or self.C.dim() == 2

    @property
    def groups(self) -> int:
        """Groups of channels that share B and C."""
        return max(x.shape[2] if x.dim() == 4 else 1 for x in (self.B, self.C))


_scan = register_steered("selective_scan", Inputs)
