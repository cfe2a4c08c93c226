"""The square-root method, and a size of a linear system that training can make smaller.

A linear layer can be reduced where few of its Hankel singular values sigma are not small. Their sum
(the nuclear norm of the Hankel operator) is, for Gramians P and Q,

    sum sigma = min over T of (tr T^-1 P T^-* + tr T* Q T) / 2,

and the balancing T is where the minimum is. So its gradient in P and Q is that of the right side
with this T held fixed: traces, without derivatives of singular values or vectors.

Axes: n state, r directions, any leading batch axes.
"""

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from longstate.systems._diagonal import DiagonalSystem

_UNUSED = 1e-7  # share of the first singular value below which a direction is not in use
_NEAREST = 1e-9  # least 1 - |a_i a_j|, so that sums over all time are finite


def balance(
    P: Shaped[Tensor, "*batch n n"], Q: Shaped[Tensor, "*batch n n"], r: int, floor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The square-root method: the r directions with the largest Hankel singular values.

    With P = L_P L_P* and Q = L_Q L_Q*, real or complex, and L_Q* L_P = U S V*,

        T^+ = S^-1/2 U* L_Q*    T = L_P V S^-1/2    T^+ T = I

    Args:
        P, Q (..., n, n): Gramians, or other symmetric positive semidefinite matrices.
        r: number of directions.
        floor: share of the largest S below which a direction is not used, and set to zero.

    Returns:
        T^+ (..., r, n), T (..., n, r) and all S (..., n), of Gramians the Hankel singular values.
    """
    reach, observe = root(P), root(Q)
    U, S, Vh = torch.linalg.svd(observe.mH @ reach)
    first = S[..., :r]
    used = first > floor * S[..., :1]
    scale = torch.where(used, first.clamp(min=1e-300).rsqrt(), 0)
    left = scale[..., None] * (U[..., :r].mH @ observe.mH)
    right = (reach @ Vh[..., :r, :].mH) * scale[..., None, :]
    return left, right, S


def root(S: Tensor) -> Tensor:
    """L with L L* = S, by eigenvalues: S may be singular."""
    values, vectors = torch.linalg.eigh((S + S.mH) / 2)
    return vectors * values.clamp(min=0).sqrt()[..., None, :]


def nuclear_norm(
    P: Shaped[Tensor, "*batch n n"], Q: Shaped[Tensor, "*batch n n"]
) -> Float[Tensor, "*batch"]:
    """The sum of the square roots of the eigenvalues of P Q, both positive semidefinite.

    Differentiable. Directions below 1e-7 of the first are left out.
    """
    with torch.no_grad():
        left, right, _ = balance(P, Q, P.shape[-1], _UNUSED)
    return (_trace(left @ P @ left.mH) + _trace(right.mH @ Q @ right)) / 2


def hankel_size(system: DiagonalSystem) -> Float[Tensor, "*batch"]:
    """(sum sigma) / sqrt(sum sigma^2) of a discrete, stable, diagonal system: between 1, for a
    single direction, and sqrt(n). It does not depend on the gain of the system. Differentiable.

    Of conjugate pairs, one half is taken, as a system that is truncated in complex arithmetic.
    """
    A, B, C = (
        v.to(torch.complex128 if v.is_complex() else torch.float64)
        for v in (system.A, system.B, system.C)
    )
    sums = A[..., :, None] * A.conj()[..., None, :]
    near = (1 - sums).abs() < _NEAREST
    sums = 1 / torch.where(near, torch.full_like(sums, _NEAREST), 1 - sums)
    P, Q = (B @ B.mH) * sums, (C.mH @ C) * sums.mT
    energy = (P * Q.mT).sum((-2, -1)).real.clamp(min=1e-300)
    return nuclear_norm(P, Q) / energy.sqrt()


def _trace(M: Tensor) -> Tensor:
    return M.diagonal(dim1=-2, dim2=-1).sum(-1).real
