"""HiPPO matrices, their normal-plus-low-rank parts, and the S4D initial values made from them.

    x'(t) = A x(t) + B u(t)         A + P P^T is normal (a multiple of I plus a skew matrix)

    legs   A[n, k] = -sqrt((2n+1)(2k+1)) below the diagonal, -(n+1) on it, 0 above
           B[n] = sqrt(2n+1)                 P[n] = sqrt(n + 1/2)                        rank 1
    legt   A[n, k] = -1/2 sqrt((2n+1)(2k+1)) s,  s = (-1)^(n-k) above the diagonal, else 1
           B[n] = 1/2 sqrt(2n+1)             P = sqrt(2n+1) / sqrt 2, odd and even n     rank 2
    fout   A = K - B B^T, K made of blocks [[0, -pi m], [pi m, 0]], m = 0 .. n/2 - 1
           B = (1, 0, sqrt 2, 0, sqrt 2, 0, ...)        P = B                            rank 1
    lagt   A = 1/2 I - (lower triangle of ones)
           B = 1                             P = sqrt(1/2)                               rank 1

Gu, Dao, Ermon, Rudra, Re, "HiPPO: Recurrent Memory with Optimal Polynomial Projections", 2020,
arXiv:2008.07669; Gu, Johnson, Timalsina, Rudra, Re, "How to Train Your HiPPO", 2022,
arXiv:2206.12037; Gu et al., "On the Parameterization and Initialization of Diagonal State Space
Models", 2022, arXiv:2206.11893.

Differs from the papers: time scales. `legt` and `fout` have a window of length 2, as in the
authors' S4 code; in the papers it has length 1, and the matrices are twice as large. That code
clips Im(B) to [-2, 2] after diagonalisation; here nothing is clipped, and each eigenvector is
multiplied by a phase so that B is real and not negative, which gives the same result on every
machine.
`lagt` is included for completeness: the second paper advises against it.

Axes: n state, r rank. Everything is float64 or complex128 on the CPU; cast what you keep.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Complex128, Float64
from torch import Tensor

_TINY = 1e-9  # relative; eigenvalues here are either exactly zero or much larger


class Hippo(NamedTuple):
    """x' = A x + B u with the low-rank part that makes A + P P^T normal."""

    A: Float64[Tensor, "n n"]
    B: Float64[Tensor, " n"]
    P: Float64[Tensor, "n r"]


class HippoSpectrum(NamedTuple):
    """One of each conjugate pair of the normal part: A + P P^T = V diag(A~) V* + conjugate.

    Args:
        A (n/2): eigenvalues, imaginary part >= 0 and ascending.
        P (n/2, r): V* P.
        B (n/2): V* B, real and not negative.
        V (n, n/2): eigenvectors; [V, conj V] is unitary, and the state is x = 2 Re(V x~).
    """

    A: Complex128[Tensor, " half"]
    P: Complex128[Tensor, "half r"]
    B: Complex128[Tensor, " half"]
    V: Complex128[Tensor, "n half"]


def legs(n: int) -> Hippo:
    """Scaled Legendre: memory of the whole past, uniform if A is divided by t (see LegSMemory)."""
    root, _ = _roots(n)
    A = -torch.tril(torch.outer(root, root), -1) - torch.diag(_indices(n) + 1)
    return Hippo(A, root, (root / math.sqrt(2))[:, None])


def legt(n: int) -> Hippo:
    """Translated Legendre: memory of a sliding window of length 2."""
    root, sign = _roots(n)
    product = torch.outer(root, root)
    A = -0.5 * (torch.tril(product) + torch.triu(product * torch.outer(sign, sign), 1))
    half = root / math.sqrt(2)
    P = torch.stack([half * (sign < 0), half * (sign > 0)], dim=-1)
    return Hippo(A, root / 2, P)


def fout(n: int) -> Hippo:
    """Truncated Fourier: memory of a sliding window of length 2, in sines and cosines.

    Raises:
        ValueError: n is odd.
    """
    _even(n)
    B = torch.zeros(n, dtype=torch.float64)
    B[0::2] = math.sqrt(2)
    B[0] = 1
    cosines = torch.arange(0, n, 2)
    K = torch.zeros(n, n, dtype=torch.float64)
    K[cosines, cosines + 1] = -math.pi * _indices(n // 2)
    K[cosines + 1, cosines] = math.pi * _indices(n // 2)
    return Hippo(K - torch.outer(B, B), B, B[:, None].clone())


def lagt(n: int) -> Hippo:
    """Translated Laguerre: memory with exponentially decaying weight."""
    _positive(n)
    one = torch.ones(n, dtype=torch.float64)
    A = 0.5 * torch.eye(n, dtype=torch.float64) - torch.tril(torch.outer(one, one))
    return Hippo(A, one, one[:, None] / math.sqrt(2))


def diagonalize(hippo: Hippo) -> HippoSpectrum:
    """The normal part's spectrum, from a Hermitian eigenproblem in float64.

    The matrix A itself is not diagonalised, because its eigenvectors are very ill conditioned.

    Raises:
        ValueError: n is odd, so that not every eigenvalue has a conjugate partner.
    """
    n = hippo.A.shape[-1]
    _even(n)
    if hippo.A.is_meta:
        shapes = (n // 2,), (n // 2, hippo.P.shape[-1]), (n // 2,), (n, n // 2)
        return HippoSpectrum(*(hippo.A.new_empty(s, dtype=torch.complex128) for s in shapes))
    S = hippo.A + hippo.P @ hippo.P.T
    real_part = S.diagonal().mean()
    S = S - real_part * torch.eye(n, dtype=S.dtype)
    imag, V = torch.linalg.eigh(-1j * S)
    imag, V = imag[n // 2 :], V[:, n // 2 :]
    if imag[0] < _TINY * imag[-1].clamp(min=1):
        # A zero pair (FouT): the solver may return any basis of the null space, for example a real
        # one, which is not a conjugate pair. Build the pair from a real basis.
        z = torch.linalg.svd(S).Vh[-2:]
        V = torch.cat([torch.complex(z[0], z[1])[:, None] / math.sqrt(2), V[:, 1:]], dim=-1)
        imag = torch.cat([imag.new_zeros(1), imag[1:]])
    V = V / _phase(V.mH @ hippo.B.to(V.dtype))
    A = torch.complex(real_part.expand_as(imag), imag)
    B = (V.mH @ hippo.B.to(V.dtype)).real.to(V.dtype)
    return HippoSpectrum(A, V.mH @ hippo.P.to(V.dtype), B, V)


def s4d_lin(n: int) -> tuple[Complex128[Tensor, " half"], Complex128[Tensor, " half"]]:
    """S4D-Lin: A_k = -1/2 + i pi k, B = 1, for the n/2 stored states of n.

    Raises:
        ValueError: n is odd.
    """
    _even(n)
    imag = math.pi * _indices(n // 2)
    return _with_ones(torch.complex(torch.full_like(imag, -0.5), imag))


def s4d_inv(n: int) -> tuple[Complex128[Tensor, " half"], Complex128[Tensor, " half"]]:
    """S4D-Inv: A_k = -1/2 + i (n / pi) (n / (2k+1) - 1), B = 1, for the n/2 stored states of n.

    Raises:
        ValueError: n is odd.
    """
    _even(n)
    imag = n / math.pi * (n / (2 * _indices(n // 2) + 1) - 1)
    return _with_ones(torch.complex(torch.full_like(imag, -0.5), imag))


def s4d_legs(n: int) -> tuple[Complex128[Tensor, " half"], Complex128[Tensor, " half"]]:
    """S4D-LegS: the normal part of LegS without its low-rank part, and its B.

    The theory has half of this B; the authors' code and this function do not (C absorbs it).

    Raises:
        ValueError: n is odd.
    """
    spectrum = diagonalize(legs(n))
    return spectrum.A, spectrum.B


def s4d_real(n: int) -> tuple[Float64[Tensor, " n"], Float64[Tensor, " n"]]:
    """S4D-Real: A_k = -(k+1), B = 1. Real, so all n states are stored."""
    _positive(n)
    A = -(_indices(n) + 1)
    return A, torch.ones_like(A)


def _indices(n: int) -> Tensor:
    return torch.arange(n, dtype=torch.float64)


def _roots(n: int) -> tuple[Tensor, Tensor]:
    """sqrt(2k+1) and (-1)^k."""
    _positive(n)
    return torch.sqrt(2 * _indices(n) + 1), 1 - 2 * (_indices(n) % 2)


def _with_ones(A: Tensor) -> tuple[Tensor, Tensor]:
    return A, torch.ones_like(A)


def _phase(x: Tensor) -> Tensor:
    """Conjugate of the phase factor that makes `x` real and positive; 1 where x is 0."""
    size = x.abs()
    tiny = size < _TINY
    return torch.where(tiny, torch.ones_like(x), x.conj() / torch.where(tiny, 1, size))


def _positive(n: int) -> None:
    if n < 1:
        raise ValueError(f"n must be at least 1; got {n}")


def _even(n: int) -> None:
    if n < 2 or n % 2:
        raise ValueError(f"n must be even and at least 2, as states are stored by pairs; got {n}")
