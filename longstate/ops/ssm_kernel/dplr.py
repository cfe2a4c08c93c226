"""The S4 kernel: a diagonal plus low-rank system under the bilinear rule.

    x'(t) = (diag(A) - P Q*) x + B u        y = C x
    k_l = C A_bar^l B_bar,   A_bar = (2/dt - A)^{-1} (2/dt + A),   B_bar = 2 (2/dt - A)^{-1} B

through its truncated generating function at the roots of unity, w_j = exp(-2 pi i j / t):

    K_j = sum_l k_l w_j^l = C~ (I - A_bar w_j)^{-1} B_bar,   C~ = C (I - A_bar^t)
        = (1 + g_j / 2) [ r_CB - r_CP (I + r_QP)^{-1} r_QB ],   g_j = 2 i tan(pi j / t)
    r_XY = sum_n dt X_n Y_n / (g_j - dt A_n)                                          (Cauchy)

where X = Q stands for conj(Q). At w = -1 (t even) g is infinite; the limit is dt/2 sum_n C~_n B_n,
exactly. The inverse transform of K is k.

Gu, Goel, Re, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
arXiv:2111.00396, section 3 and appendix C. Differs from the paper: the parameter is C, and C~ is
made here, so that it fits every length; any rank; the limit at -1 is taken exactly.

Axes: n stored states, r rank, t time, f points, any leading batch axes.
"""

import math

import torch
from torch import Tensor

from longstate.ops._choice import expect, shape_of
from longstate.ops._double import widen
from longstate.ops.ssm_kernel.sums import cauchy


def dplr_kernel(
    A: Tensor,
    P: Tensor,
    Q: Tensor,
    B: Tensor,
    C: Tensor,
    dt: Tensor,
    length: int,
    *,
    conjugate: bool = True,
    impl: str = "auto",
) -> Tensor:
    """C A_bar^l B_bar for l = 0 .. length - 1, by the bilinear rule with step `dt`.

    The leading axes of all arguments broadcast against each other.

    Args:
        A (..., n): the diagonal, complex.
        P (..., n, r): left factor of the low-rank part, which is subtracted.
        Q (..., n, r): right factor, used conjugate-transposed. Q = P keeps the system stable.
        B (..., n): input weights.
        C (..., n): output weights; C itself, not the paper's C~.
        dt (...): step, real.
        length: number of lags, at least 1.
        conjugate: one of each conjugate pair is stored, and the kernel is real.
        impl: "auto", "reference", "cpu" or "triton"; for the Cauchy sums.

    Returns:
        (..., length), in the precision of `C`; real when `conjugate`, else complex. Differentiable
        in everything before `length`.

    Raises:
        ValueError: shapes or dtypes do not fit, length is below 1, or `impl` cannot run here.
    """
    _check(A, P, Q, B, C, dt)
    expect(length >= 1, f"length must be at least 1; got {length}")
    dtype = C.dtype
    A, P, Q, B, C, dt = _align(A, P, Q, B, C, dt)
    C = C - _through_power(A, P, Q, C, dt, length, conjugate)
    if conjugate:
        A, B, C = (torch.cat([x, x.conj()], dim=-1) for x in (A, B, C))
        P, Q = (torch.cat([x, x.conj()], dim=-2) for x in (P, Q))
    count = length // 2 + 1 if conjugate else length
    spectrum = _generating(A, P, Q, B, C, dt, length, count, dtype, impl)
    if conjugate:
        return torch.fft.irfft(spectrum, n=length)
    return torch.fft.ifft(spectrum, n=length)


def dplr_state_response(
    A: Tensor,
    P: Tensor,
    Q: Tensor,
    h0: Tensor,
    C: Tensor,
    dt: Tensor,
    length: int,
    *,
    conjugate: bool = True,
    impl: str = "auto",
) -> Tensor:
    """What a state left behind adds to the output: C A_bar^{l+1} h0 for l = 0 .. length - 1.

    It is the kernel of an input weight B with B_bar = A_bar h0, which is B = h0 / dt + A h0 / 2.

    Args:
        h0 (..., n): the state, stored as `B` is.
        others: as for `dplr_kernel`.

    Returns:
        (..., length), as for `dplr_kernel`.

    Raises:
        ValueError: as for `dplr_kernel`.
    """
    _check(A, P, Q, h0, C, dt)
    low_rank = Q.mH @ h0.unsqueeze(-1)
    if conjugate:
        low_rank = (2 * low_rank.real).to(low_rank.dtype)
    drift = A * h0 - (P @ low_rank).squeeze(-1)
    B = h0 / dt.unsqueeze(-1) + drift / 2
    return dplr_kernel(A, P, Q, B, C, dt, length, conjugate=conjugate, impl=impl)


def _align(*tensors: Tensor) -> list[Tensor]:
    """All in double precision and complex (the step real), with the same leading axes."""
    cores = (1, 2, 2, 1, 1, 0)
    batches = [x.shape[: x.dim() - core] for x, core in zip(tensors, cores, strict=True)]
    batch = torch.broadcast_shapes(*batches)
    aligned = []
    for x, core in zip(tensors, cores, strict=True):
        x = widen(x.expand((*batch, *x.shape[x.dim() - core :])))
        aligned.append(x if x.is_complex() or core == 0 else x.to(_complex_like(x)))
    return aligned


def _complex_like(x: Tensor) -> torch.dtype:
    return torch.complex128 if x.dtype == torch.float64 else torch.complex64


def _through_power(
    A: Tensor, P: Tensor, Q: Tensor, C: Tensor, dt: Tensor, length: int, conjugate: bool
) -> Tensor:
    """C A_bar^length, by repeated squaring; over the real and imaginary parts when `conjugate`."""
    n, step = A.shape[-1], dt[..., None, None]
    if conjugate:
        full = (
            torch.cat(
                [
                    torch.cat([torch.diag_embed(A.real), -torch.diag_embed(A.imag)], dim=-1),
                    torch.cat([torch.diag_embed(A.imag), torch.diag_embed(A.real)], dim=-1),
                ],
                dim=-2,
            )
            - 2 * torch.cat([P.real, P.imag], dim=-2) @ torch.cat([Q.real, Q.imag], dim=-2).mT
        )
        row = torch.cat([C.real, -C.imag], dim=-1)
    else:
        full, row = torch.diag_embed(A) - P @ Q.mH, C
    eye = torch.eye(full.shape[-1], dtype=full.dtype, device=full.device)
    power = torch.linalg.solve(eye - step / 2 * full, eye + step / 2 * full)
    row = row.unsqueeze(-2)
    while length:
        if length & 1:
            row = row @ power
        length >>= 1
        if length:
            power = power @ power
    row = row.squeeze(-2)
    return torch.complex(row[..., :n], -row[..., n:]) if conjugate else row


def _generating(
    A: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, dt: Tensor,
    length: int, count: int, dtype: torch.dtype, impl: str,
) -> Tensor:  # fmt: skip
    """The generating function at the first `count` roots of unity (..., f); all states given."""
    nyquist = length // 2 if length % 2 == 0 else count  # count: there is none
    k = torch.arange(count, device=A.device, dtype=dt.dtype)
    k = torch.cat([k[:nyquist], k[nyquist + 1 :]])
    tangent = torch.tan(k * (math.pi / length))
    points = torch.complex(torch.zeros_like(tangent), 2 * tangent)

    rank, step = P.shape[-1], dt.unsqueeze(-1)
    left = torch.cat([C.unsqueeze(-2), Q.mH], dim=-2)  # (..., 1 + r, n)
    right = torch.cat([B.unsqueeze(-1), P], dim=-1).mT  # (..., 1 + r, n)
    v = (left.unsqueeze(-2) * right.unsqueeze(-3) * step[..., None, None]).flatten(-3, -2)
    r = cauchy(v.to(dtype), points, A * step, impl=impl)
    r = r.unflatten(-2, (1 + rank, 1 + rank)).movedim(-1, -3)  # (..., f, 1 + r, 1 + r)
    spectrum = r[..., 0, 0] - _low_rank(r)
    spectrum = spectrum * (1 + points / 2).to(dtype)
    if nyquist == count:
        return spectrum
    limit = (step / 2 * (C * B)).sum(-1, keepdim=True).to(dtype)
    return torch.cat([spectrum[..., :nyquist], limit, spectrum[..., nyquist:]], dim=-1)


def _low_rank(r: Tensor) -> Tensor:
    """r_CP (I + r_QP)^{-1} r_QB."""
    row, inner, column = r[..., 0, 1:], r[..., 1:, 1:], r[..., 1:, 0]
    if inner.shape[-1] == 1:
        return (row * column / (1 + inner[..., 0])).squeeze(-1)
    eye = torch.eye(inner.shape[-1], dtype=r.dtype, device=r.device)
    return (row * torch.linalg.solve(eye + inner, column)).sum(-1)


def _check(A: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, dt: Tensor) -> None:
    expect(A.dim() >= 1 and A.is_complex(), f"A must be complex (..., n); got {shape_of(A)}")
    expect(C.is_complex(), f"C must be complex (..., n); got {shape_of(C)}")
    n = A.shape[-1]
    for name, x in (("B", B), ("C", C)):
        expect(x.dim() >= 1 and x.shape[-1] == n, f"{name} must be (..., {n}); got {shape_of(x)}")
    for name, x in (("P", P), ("Q", Q)):
        expect(
            x.dim() >= 2 and x.shape[-2] == n, f"{name} must be (..., {n}, r); got {shape_of(x)}"
        )
    ranks = P.shape[-1], Q.shape[-1]
    expect(ranks[0] == ranks[1], f"P and Q must have the same rank; got {ranks}")
    expect(not dt.is_complex(), f"dt must be real; got {shape_of(dt)}")
