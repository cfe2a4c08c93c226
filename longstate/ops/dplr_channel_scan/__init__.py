"""One linear system for each channel whose state matrix is diagonal plus low rank: S4.

    h_t = A h_{t-1} - P 2 Re(Q* h_{t-1}) + B u_t        h_{-1} = h0
    y_t = 2 Re(C h_t)

Of every conjugate pair of modes one is stored, so that the products with Q* run over both halves
(`longstate.systems.DPLRSystem`, discrete and conjugate). `cpu` runs the recurrence, with 12
multiply-adds for each mode and sample at rank 1. On other devices the dense matrix of a step is
formed, for the products of `dense_channel_scan`, which raise it to powers first.

Gu, Goel, Ré, "Efficiently Modeling Long Sequences with Structured State Spaces", ICLR 2022,
arXiv:2111.00396. Differs from the paper: it steps through time where the paper convolves.

Axes: b batch, t time, d channels, n stored modes, r rank.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import register_folder
from longstate.ops._choice import expect, shape_of
from longstate.ops._layout import CHUNK
from longstate.ops.channel_scan import (
    by_sequences,
    check_channels,
    choose_channels,
    dense_channel_scan,
)


def dplr_channel_scan(
    u: Tensor,
    A: Tensor,
    P: Tensor,
    Q: Tensor,
    B: Tensor,
    C: Tensor,
    h0: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Outputs of the systems, and their states after the last sample.

    Args:
        u (b, t, d): real input.
        A (d, n): complex diagonal of one step.
        P, Q (d, n, r): complex factors of the low-rank part, r at least 1.
        B, C (d, n): complex input and output matrix.
        h0 (b, d, n), mask, reset (b, t), lengths (b): as in `diagonal_channel_scan`.
        impl: "auto" (Numba on a CPU, matrix products elsewhere), "reference" (a loop) or "cpu".
            "chunks" takes the matrix products on any device.

    Returns:
        y (b, t, d) and the state after the last sample (b, d, n). Differentiable in
        `u`, `A`, `P`, `Q`, `B`, `C` and `h0`.

    Raises:
        ValueError: shapes or types do not fit, t is 0, or `impl` cannot run here.
    """
    expect(A.dim() == 2 and A.is_complex(), f"A must be (d, n) and complex; got {shape_of(A)}")
    factor = (*A.shape, P.shape[-1])
    expect(
        P.shape == Q.shape == factor and factor[2] > 0 and P.dtype == Q.dtype == A.dtype,
        f"P and Q must be {(*A.shape, 'r')}, of the type of A; got {shape_of(P)}, {shape_of(Q)}",
    )
    h0 = check_channels(u, A, A, B, C, h0)
    if mask is not None or reset is not None:
        system = (A, P, Q, B, C)
        return by_sequences(dplr_channel_scan, u, system, h0, mask, reset, lengths, impl)
    found = choose_channels(impl, u)
    if found == "chunks":
        return _chunks(u, A, P, Q, B, C, h0, lengths)
    if lengths is None:
        lengths = torch.full((u.shape[0],), u.shape[1], device=u.device)
    y, last = _scan(Inputs(u, A, P, Q, B, C, h0, lengths, found, False))
    return y, last


def _chunks(
    u: Tensor, A: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, h0: Tensor,
    lengths: Tensor | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """With the dense matrix, in the real coordinates (Re h, Im h)."""
    diagonal = torch.cat(
        [
            torch.cat([torch.diag_embed(A.real), torch.diag_embed(-A.imag)], -1),
            torch.cat([torch.diag_embed(A.imag), torch.diag_embed(A.real)], -1),
        ],
        -2,
    )
    dense = diagonal - 2 * _coordinates(P, 1) @ _coordinates(Q, 1).mT
    rows = _coordinates(B, 1), 2 * _coordinates(C.conj(), 1)
    y, last = dense_channel_scan(
        u, dense, *rows, _coordinates(h0, 2), lengths=lengths, impl="chunks"
    )
    return y, torch.complex(*last.chunk(2, dim=-1))


def _coordinates(x: Tensor, axis: int) -> Tensor:
    return torch.cat([x.real, x.imag], dim=axis)


class Inputs(NamedTuple):
    """As for `dplr_channel_scan`."""

    u: Tensor
    A: Tensor
    P: Tensor
    Q: Tensor
    B: Tensor
    C: Tensor
    h0: Tensor
    lengths: Tensor
    impl: str
    keep: bool


def _fake(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, d), n = s.u.shape, s.A.shape[1]
    kept = s.u.new_empty(b, (t + CHUNK - 1) // CHUNK if s.keep else 0, n, 2, d)
    return s.u.new_empty(s.u.shape), s.h0.new_empty(s.h0.shape), kept


_scan = register_folder("dplr_channel_scan", Inputs, _fake, returns="y last", saves="kept")
