"""S4 by the paper's own route, which no layer takes: a generating function and a Fourier transform.

    k_l = 2 Re C A_bar^l B_bar,  A_bar = (2/dt - A)^{-1} (2/dt + A),  B_bar = 2 (2/dt - A)^{-1} B

for A = diag - P Q*, with one of each conjugate pair of states stored, from the values of
sum_l k_l w^l at the roots of unity w. There it is C~ (I - A_bar w)^{-1} B_bar with
C~ = C (I - A_bar^t), which is made of sums over 1 / (g - dt A_n), g = 2 (1 - w) / (1 + w).

Gu, Goel, Re, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
arXiv:2111.00396, section 3 and appendix C. Differs from the paper: plain and in double precision.

Axes: b batch, t time, d channels, n stored states, r rank.
"""

import torch
from torch import Tensor


def dplr_kernel(
    A: Tensor, P: Tensor, Q: Tensor, B: Tensor, C: Tensor, dt: Tensor, length: int
) -> Tensor:
    """The kernel (..., length), real.

    Args:
        A, B, C (..., n): diagonal, input and output weights, complex.
        P, Q (..., n, r): factors of the low-rank part.
        dt (...): step.
        length: number of lags.
    """
    A, B, C = (torch.cat([x, x.conj()], -1).to(torch.complex128) for x in (A, B, C))
    P, Q = (torch.cat([x, x.conj()], -2).to(torch.complex128) for x in (P, Q))
    step = dt.to(torch.complex128)[..., None]
    half = step[..., None] / 2 * (torch.diag_embed(A) - P @ Q.mH)
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    A_bar = torch.linalg.solve(eye - half, eye + half)
    left = C - (C[..., None, :] @ torch.linalg.matrix_power(A_bar, length))[..., 0, :]  # C~

    w = torch.exp(-2j * torch.pi * torch.arange(length, dtype=torch.float64) / length)
    at_minus_one = (w + 1).abs() < 1e-9  # where g is infinite
    w = torch.where(at_minus_one, 1, w)
    g = 2 * (1 - w) / (1 + w)
    poles = step[..., None] / (g[:, None] - (step * A)[..., None, :])  # (..., length, 2 n)

    def sums(x: Tensor, y: Tensor) -> Tensor:
        """sum_n x_n y_n dt / (g - dt A_n) for rows x (..., 1 or r, 2 n), y (..., 1 or r, 2 n)."""
        return torch.einsum("...in,...jn,...fn->...fij", x, y, poles)

    left, right, Q = left[..., None, :], B[..., None, :], Q.mH
    inner = torch.eye(P.shape[-1], dtype=A.dtype) + sums(Q, P.mT)
    low_rank = sums(left, P.mT) @ torch.linalg.solve(inner, sums(Q, right))
    spectrum = (sums(left, right) - low_rank)[..., 0, 0] * (1 + g / 2)
    limit = (step[..., None] / 2 * left * right).sum(-1)
    return torch.fft.ifft(torch.where(at_minus_one, limit, spectrum)).real


def fft_conv(u: Tensor, k: Tensor, k_reverse: Tensor | None = None) -> Tensor:
    """y_t = sum_l k_l u_{t-l} + sum_l k_reverse_l u_{t+1+l}, by Fourier transforms in double.

    Args:
        u (b, t, d): signal.
        k, k_reverse (d, t): kernels of each channel.
    """
    t = u.shape[1]
    size = 4 * t
    spectrum = torch.fft.rfft(k.double(), size)
    if k_reverse is not None:  # k_reverse_l stands at lag -1 - l
        ahead = torch.fft.rfft(k_reverse.double().flip(-1), size)
        lag = torch.arange(size // 2 + 1) * k_reverse.shape[-1] / size
        spectrum = spectrum + ahead * torch.exp(2j * torch.pi * lag.double())
    y = torch.fft.irfft(torch.fft.rfft(u.double().mT, size) * spectrum, size)
    return y[..., :t].mT
