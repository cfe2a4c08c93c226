"""One continuous-time diagonal system for each channel, over steps of any length.

    h_t = exp(A dt_t) h_{t-1} + ((exp(A dt_t) - 1) / A) B u_t        h_{-1} = h0, or 0 where reset_t
    y_t = 2 Re(C h_t)

`zoh_scan` for many systems with one input and one output each: of every conjugate pair of modes
one is stored. The states are n times as large as input and output; `cpu` keeps them in the cache,
and writes one in CHUNK, from which the backward pass recomputes the others. On other devices,
`zoh_scan` computes the states of a block of samples, and again for the gradient.

Gu, Goel, Gupta, Ré, "On the Parameterization and Initialization of Diagonal State Space Models",
NeurIPS 2022, arXiv:2206.11893, with a step for each sample. Differs from the paper: only by these
steps.

Axes: b batch, t time, d channels, n state.
"""

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._arguments import (
    check_flags,
    check_shapes,
    common_type,
    real_type,
    register_folder,
    where_kept,
)
from longstate.ops._blocks import in_blocks
from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._layout import CHUNK
from longstate.ops.zoh_scan import LANES, zoh_scan


def zoh_channel_scan(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    h0: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Outputs of the systems, and their states after the last sample.

    Args:
        u (b, t, d): real input.
        A (d, n): complex, per unit of `dt`. The real part is negative for a stable system.
        B, C (d, n): complex input and output matrix.
        dt (b, t): real and not negative; the time that each sample is held.
        h0 (b, d, n): complex state before the first step. Zero when None.
        mask (b, t): bool. False leaves the state as it is and gives output 0. `u` and `dt`
            are not read there.
        reset (b, t): bool. True forgets the state before that step, masked or not.
        impl: "auto" (Numba on a CPU, `zoh_scan` elsewhere), "reference" (a loop) or "cpu".
            "blocks" takes `zoh_scan` on any device.

    Returns:
        y (b, t, d) and the state after the last sample (b, d, n), complex64 at least.
        Differentiable in `u`, `A`, `B`, `C`, `dt` and `h0`.

    Raises:
        ValueError: shapes do not fit, a dtype is real or complex where it should not be, t is 0,
            or `impl` cannot run here.
    """
    expect(impl != "triton", "zoh_channel_scan has no Triton kernel; use impl='auto'")
    _check(u, A, B, C, dt, h0)
    check_flags(*u.shape[:2], mask=mask, reset=reset)
    dtype = torch.promote_types(torch.complex64, common_type(u, A, B, C, dt, h0))
    real = real_type(dtype)
    A, B, C = A.to(dtype), B.to(dtype), C.to(dtype)
    h0 = A.new_zeros(len(u), *A.shape) if h0 is None else h0.to(dtype)
    # over a step of length 0 the state stays
    u, dt = where_kept(mask, u.to(real)), where_kept(mask, dt.to(real))
    found = impl if impl == "blocks" else choose(impl, u)
    if found == "blocks" or (impl == "auto" and found != "cpu"):
        y, last = in_blocks(partial(_all_states, A, B, C), h0, u, dt, reset)
    else:
        y, last = _of_any_size(Inputs(u, A, B, C, dt, h0, reset, found, False))
    return where_kept(mask, y), last


def _check(u: Tensor, A: Tensor, B: Tensor, C: Tensor, dt: Tensor, h0: Tensor | None) -> None:
    expect(A.dim() == 2 and A.is_complex(), f"A must be (d, n) and complex; got {shape_of(A)}")
    (d, n), (b, t) = A.shape, u.shape[:2]
    for name, x in {"B": B, "C": C}.items():
        expect(
            x.shape == (d, n) and x.is_complex(),
            f"{name} must be {(d, n)} and complex; got {shape_of(x)}",
        )
    expect(
        u.dim() == 3 and u.shape[2] == d and not u.is_complex(),
        f"u must be (batch, time, {d}) and real; got {shape_of(u)}",
    )
    expect(t > 0, "u has no time steps; zoh_channel_scan needs at least one")
    expect(
        dt.shape == (b, t) and not dt.is_complex(),
        f"dt must be {(b, t)} and real; got {shape_of(dt)}",
    )
    check_shapes((b, d, n), h0=h0)


def _all_states(
    A: Tensor, B: Tensor, C: Tensor, h: Tensor, u: Tensor, dt: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    drive = B * u[..., None]
    states, last = zoh_scan(drive.flatten(2), A.flatten(), dt, h.flatten(1), reset=reset)
    return 2 * (C * states.view_as(drive)).sum(-1).real, last.view_as(h)


class Inputs(NamedTuple):
    """As for `zoh_channel_scan`, all of one precision."""

    u: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    dt: Tensor
    h0: Tensor
    reset: Tensor | None
    impl: str
    keep: bool


def _of_any_size(s: Inputs) -> tuple[Tensor, Tensor]:
    """A system of more than LANES states is a sum of smaller ones, which have the same input."""
    d, n = s.A.shape
    if s.impl == "reference" or n <= LANES:
        y, last = _scan(s)
        return y, last
    parts = -(-n // LANES)

    def cut(x: Tensor) -> Tensor:
        x = F.pad(x, (0, parts * LANES - n)).unflatten(-1, (parts, LANES))
        return x.flatten(-3, -2)

    small: dict[str, Any] = {"A": cut(s.A), "B": cut(s.B), "C": cut(s.C), "h0": cut(s.h0)}
    y, last = _scan(s._replace(u=s.u.repeat_interleave(parts, 2), **small))
    return y.unflatten(2, (d, parts)).sum(-1), last.unflatten(1, (d, parts)).flatten(2)[..., :n]


def _fake(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, _), (d, n) = s.u.shape, s.A.shape
    kept = s.u.new_empty(b, -(-t // CHUNK) if s.keep else 0, 2, d * n)
    return s.u.new_empty(s.u.shape), s.h0.new_empty(s.h0.shape), kept


_scan = register_folder("zoh_channel_scan", Inputs, _fake, returns="y last", saves="kept")
