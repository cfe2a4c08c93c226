"""One chain of all-pass sections for each channel, and a weighted sum of what leaves them: HOPE.

    o^0_t = u_t        o^k_t = o^{k-1}_{t-1} + rho (o^k_{t-1} - o^{k-1}_t)        k = 1 .. n
    y_t = sum_{k=1..n} C_k o^k_t

A section (z^-1 - rho) / (1 - rho z^-1) delays, each frequency by another time, and keeps the energy
of its input; rho = 0 is a delay of one sample. The state is o^0 .. o^n. `cpu` runs the recurrence:
three multiply-adds for each section and sample. On other devices the dense matrix of a step is
formed, for the products of `dense_channel_scan`.

Yu, Mahoney, Erichson, "HOPE for a Robust Parameterization of Long-memory State Space Models",
ICLR 2025, arXiv:2405.13975. A reconstruction: the paper convolves on a circle.

Axes: b batch, t time, d channels, n sections.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops._arguments import register_folder
from longstate.ops._choice import expect, shape_of
from longstate.ops._layout import CHUNK
from longstate.ops.channel_scan import (
    by_sequences,
    check_channels,
    choose_channels,
    dense_channel_scan,
)


def allpass_channel_scan(
    u: Tensor,
    rho: Tensor,
    C: Tensor,
    h0: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Outputs of the chains, and their states after the last sample.

    Args:
        u (b, t, d): real input.
        rho (d): real, between -1 and 1 for a stable chain.
        C (d, n): weights of the sections, of the type of rho.
        h0 (b, d, n + 1), mask, reset (b, t), lengths (b): as in `diagonal_channel_scan`.
        impl: "auto" (Numba on a CPU, matrix products elsewhere), "reference" (a loop) or "cpu".
            "chunks" takes the matrix products on any device.

    Returns:
        y (b, t, d) and the state after the last sample (b, d, n + 1). Differentiable in `u`,
        `rho`, `C` and `h0`.

    Raises:
        ValueError: shapes or types do not fit, t is 0, or `impl` cannot run here.
    """
    expect(
        C.dim() == 2 and C.shape[1] > 0 and not C.is_complex(),
        f"C must be (d, n), n at least 1, and real; got {shape_of(C)}",
    )
    d, n = C.shape
    expect(
        rho.shape == (d,) and rho.dtype == C.dtype,
        f"rho must be {(d,)}, of the type of C; got {shape_of(rho)}",
    )
    weights = F.pad(C, (1, 0))  # of o^0, .., o^n
    h0 = check_channels(u, weights, weights, weights, weights, h0)
    if mask is not None or reset is not None:
        return by_sequences(allpass_channel_scan, u, (rho, C), h0, mask, reset, lengths, impl)
    found = choose_channels(impl, u)
    if found == "chunks":
        A, B = allpass_matrices(rho, n)
        return dense_channel_scan(u, A, B, weights, h0, lengths=lengths, impl="chunks")
    if lengths is None:
        lengths = torch.full((u.shape[0],), u.shape[1], device=u.device)
    y, last = _scan(Inputs(u, rho, C, h0, lengths, found, False))
    return y, last


def allpass_matrices(rho: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """A (d, n + 1, n + 1) and B (d, n + 1) of one step of the state, o^0 .. o^n."""
    rho = rho[:, None, None]
    eye = torch.eye(n + 1, dtype=rho.dtype, device=rho.device)
    first = eye[:1]
    previous = F.pad(eye[:-1], (0, 0, 1, 0))  # o^{k-1}, seen from o^k
    now, before = eye + rho * previous, previous + rho * (eye - first.mT @ first)
    right = torch.cat([before, first.mT.expand(len(rho), -1, -1)], -1)
    # now x_t = before x_{t-1} + (u_t, 0, ..., 0)
    step = torch.linalg.solve_triangular(now, right, upper=False, unitriangular=True)
    return step[..., :-1], step[..., -1]


class Inputs(NamedTuple):
    """As for `allpass_channel_scan`."""

    u: Tensor
    rho: Tensor
    C: Tensor
    h0: Tensor
    lengths: Tensor
    impl: str
    keep: bool


def _fake(s: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    (b, t, d), n = s.u.shape, s.h0.shape[2]
    kept = s.u.new_empty(b, (t + CHUNK - 1) // CHUNK if s.keep else 0, n, d)
    return s.u.new_empty(s.u.shape), s.h0.new_empty(s.h0.shape), kept


_scan = register_folder("allpass_channel_scan", Inputs, _fake, returns="y last", saves="kept")
