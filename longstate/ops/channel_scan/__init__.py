"""One constant linear system for each channel; only outputs and the last state are stored.

    h_t = A h_{t-1} + B u_t            h_{-1} = h0
    y_t = C h_t                        (2 Re(C h_t) when the system is complex: one of each
                                        conjugate pair of modes is stored)

The convolution y = K * u with K_l = C A^l B, but with the state at both ends and without a
Fourier transform. `cpu` runs the recurrence in registers. `chunks` cuts time into pieces of length
k and makes everything a matrix product: inside a piece the Toeplitz matrix of K_0 .. K_{k-1}, from
a piece to the state, from the state to the next piece; between pieces a recurrence with A^k.
Neither ever holds a state for every sample.

Axes: b batch, t time, d channels, n state, c chunks, k time within a chunk.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from longstate.ops._arguments import check_flags, implementation
from longstate.ops._choice import choose, expect, shape_of
from longstate.ops._double import widen
from longstate.ops._op import register
from longstate.ops._ragged import run_ragged
from longstate.ops.channel_scan import reference
from longstate.ops.channel_scan.chunks import chunk_length, chunked, orbit
from longstate.ops.diagonal_scan import diagonal_scan


def diagonal_channel_scan(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    h0: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Outputs of diagonal systems, and their states after the last sample.

    Args:
        u (b, t, d): real input.
        A (d, n): decay of one step, real or complex.
        B (d, n): input matrix, of the type of A.
        C (d, n): output matrix, of the type of A.
        h0 (b, d, n): state before the first sample, real if A is. Zero when None.
        mask (b, t): bool. False leaves the state as it is and gives output 0.
        reset (b, t): bool. True forgets the state before that sample, masked or not.
        lengths (b): int, in the place of a mask and a reset. Samples from `lengths` on are
            padding: the state stops there. Outputs at padding are undefined.
        impl: "auto" (Numba on a CPU, matrix products elsewhere), "reference" (a loop) or "cpu".
            "chunks" takes the matrix products on any device.

    Returns:
        y (b, t, d) and the state after the last sample (b, d, n). Differentiable in
        `u`, `A`, `B`, `C` and `h0`.

    Raises:
        ValueError: shapes or types do not fit, t is 0, or `impl` cannot run here.
    """
    h0 = check_channels(u, A, A, B, C, h0)
    if mask is not None or reset is not None:
        return by_sequences(diagonal_channel_scan, u, (A, B, C), h0, mask, reset, lengths, impl)
    impl = choose_channels(impl, u)
    if impl == "reference":
        return reference.diagonal(u, A, B, C, h0, lengths)
    if impl == "chunks":
        return _diagonal_chunks(u, A, B, C, h0, lengths)
    if lengths is None:
        lengths = torch.full((u.shape[0],), u.shape[1])
    if A.is_complex():
        y, last = _scan(Inputs(u, A, B, 2 * C, h0, lengths))
        return y, last
    wide = torch.promote_types(A.dtype, torch.complex64)
    A, B, C, h0 = (x.to(wide) for x in (A, B, C, h0))
    y, last = _scan(Inputs(u, A, B, C, h0, lengths))
    return y, last.real


def choose_channels(impl: str, u: Tensor) -> str:
    """ "reference", "cpu" or "chunks", the matrix products."""
    found = impl if impl == "chunks" else choose(impl, u)
    expect(impl != "triton", "channel scans have no Triton kernel; use impl='auto'")
    return "chunks" if impl == "auto" and found != "cpu" else found


def _diagonal_chunks(
    u: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor, lengths: Tensor | None
) -> tuple[Tensor, Tensor]:
    k = chunk_length(u.shape[1])
    squares = [widen(A)]  # A^(2^i), the last of them A^k
    while 2 ** len(squares) <= k:
        squares.append(squares[-1] ** 2)
    into = orbit(torch.mul, squares, widen(B), k)  # A^j B
    outof = orbit(torch.mul, squares, widen(C), k + 1)[1:]  # C A^{j+1}
    kernel = (into * C).sum(-1)  # (k, d)
    squares = [s.to(A.dtype) for s in squares]
    if A.is_complex():
        kernel = 2 * kernel.real
        outof = 2 * outof.conj()  # 2 Re(c h) is the product of (Re 2c, -Im 2c) and (Re h, Im h)

    def power(h: Tensor, steps: Tensor) -> Tensor:
        return _by_bits(torch.mul, squares, h, steps)

    def carry(inflow: Tensor) -> Tensor:
        b, c, d, n = inflow.shape
        h, _ = diagonal_scan(inflow.reshape(b, c, d * n), squares[-1].flatten(), h0.flatten(1))
        return h.view(b, c, d, n)

    return chunked(u, kernel, into, outof, carry, power, h0, lengths)


def _by_bits(
    apply: Callable[[Tensor, Tensor], Tensor], squares: list[Tensor], h: Tensor, steps: Tensor
) -> Tensor:
    """A^steps h, steps (b), from the powers A^(2^i)."""
    for bit, square in enumerate(squares):
        on = ((steps >> bit) & 1).bool()[:, None, None]
        h = torch.where(on, apply(square, h), h)
    return h


class Inputs(NamedTuple):
    """As for `diagonal_channel_scan`; complex, and y is Re(C h)."""

    u: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    h0: Tensor
    lengths: Tensor


def _forward(s: Inputs) -> tuple[Tensor, Tensor]:
    return implementation("channel_scan", "cpu").forward(s)


def _fake(s: Inputs) -> tuple[Tensor, Tensor]:
    return s.u.new_empty(s.u.shape), s.h0.new_empty(s.h0.shape)


def _backward(s: Inputs, grad_y: Tensor | None, grad_last: Tensor | None) -> dict[str, Tensor]:
    grad_y = torch.zeros_like(s.u) if grad_y is None else grad_y
    grad_last = torch.zeros_like(s.h0) if grad_last is None else grad_last
    return implementation("channel_scan", "cpu").backward(s, grad_y, grad_last)


def _reference(s: Inputs) -> tuple[Tensor, Tensor]:
    return reference.diagonal(s.u, s.A, s.B, s.C / 2, s.h0, s.lengths)


_scan = register("channel_scan", Inputs, _forward, _fake, _backward, _reference, returns="y last")


def dense_channel_scan(
    u: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    h0: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    reset: Tensor | None = None,
    lengths: Tensor | None = None,
    impl: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Outputs of dense systems, and their states after the last sample.

    Args:
        u (b, t, d): real input.
        A (d, n, n): real state matrix of one step. Powers of it are formed, so it should not be
            far from stable.
        B, C (d, n), h0 (b, d, n), mask, reset (b, t), lengths (b): as in `diagonal_channel_scan`.
        impl: "auto", "reference" (a loop) or "cpu". All but the loop are matrix products.

    Returns:
        y (b, t, d) and the state after the last sample (b, d, n).
    """
    expect(not A.is_complex(), f"A must be real; got {shape_of(A)}")
    h0 = check_channels(u, A[..., 0], A, B, C, h0)
    if mask is not None or reset is not None:
        return by_sequences(dense_channel_scan, u, (A, B, C), h0, mask, reset, lengths, impl)
    if choose_channels(impl, u) == "reference":
        return reference.dense(u, A, B, C, h0, lengths)

    k = chunk_length(u.shape[1])
    squares = [widen(A)]  # A^(2^i), the last of them A^k
    while 2 ** len(squares) <= k:
        squares.append(squares[-1] @ squares[-1])
    into = orbit(_apply, squares, widen(B), k)  # A^j B
    outof = orbit(_apply, [s.mT for s in squares], widen(C), k + 1)[1:]  # C A^{j+1}
    kernel = (into * C).sum(-1)
    squares = [s.to(A.dtype) for s in squares]

    def power(h: Tensor, steps: Tensor) -> Tensor:
        return _by_bits(_apply, squares, h, steps)

    def carry(inflow: Tensor) -> Tensor:
        h, states = h0, []
        for x in inflow.unbind(1):
            h = _apply(squares[-1], h) + x
            states.append(h)
        return torch.stack(states, dim=1)

    return chunked(u, kernel, into, outof, carry, power, h0, lengths)


def by_sequences(
    scan: Callable[..., tuple[Tensor, Tensor]], u: Tensor, system: tuple[Tensor, ...],
    h0: Tensor, mask: Tensor | None, reset: Tensor | None, lengths: Tensor | None, impl: str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Run a scan on the sequences that mask and reset define."""
    expect(lengths is None, "give lengths, or mask and reset, not both")
    check_flags(*u.shape[:2], mask=mask, reset=reset)

    def run(
        u: Tensor, h0: Tensor, _: Tensor | None, lengths: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        return scan(u, *system, h0, lengths=lengths, impl=impl)

    return run_ragged(run, u, h0, None, mask, reset)


def _apply(A: Tensor, h: Tensor) -> Tensor:
    return torch.einsum("dmn,jdn->jdm", A, h)


def check_channels(
    u: Tensor, diagonal: Tensor, A: Tensor, B: Tensor, C: Tensor, h0: Tensor | None
) -> Tensor:
    real = not u.is_complex()
    expect(
        u.dim() == 3 and u.shape[1] > 0 and real,
        f"u must be (batch, time > 0, d) and real; got {shape_of(u)}",
    )
    d, n = diagonal.shape
    expect(u.shape[2] == d, f"u has {u.shape[2]} channels, the systems are for {d}")
    expect(B.shape == (d, n) and C.shape == (d, n), f"B and C must be {(d, n)}")
    expect(A.dtype == B.dtype == C.dtype, f"A, B, C differ: {A.dtype}, {B.dtype}, {C.dtype}")
    shape = (u.shape[0], d, n)
    if h0 is None:
        return torch.zeros(shape, dtype=A.dtype, device=u.device)
    expect(
        h0.shape == shape and (A.is_complex() or not h0.is_complex()),
        f"h0 must be {shape}, and complex only if A is; got {shape_of(h0)}",
    )
    return h0.to(torch.promote_types(h0.dtype, A.dtype))
