"""A linear system with fewer states: balanced truncation by the square-root method.

    P = L_P L_P*    Q = L_Q L_Q*    L_Q* L_P = U S V*          S: the Hankel singular values
    T = L_P V S^-1/2                T^+ = S^-1/2 U* L_Q*       A_r = T^+ A T, B_r = T^+ B, C_r = C T

and A_r is diagonalised again, so that the result is a diagonal system (Moore 1981; Tombs and
Postlethwaite 1987). In the norm that maps energy to energy (H-infinity), for a zero first state,

    sigma_{r+1}  <=  |G - G_r|  <=  2 sum over i > r of sigma_i

where the lower bound holds for every system of r states (Glover 1984; in discrete time Al-Saggaf
and Franklin 1987). Two forms of a system with conjugate pairs, y = 2 Re(C x):

    half    only the stored half is balanced, in complex numbers. Each mode stays one of a pair. The
            bound is twice that of the half, as the other half is its conjugate.
    real    the whole real system is balanced. A pole of the result may be real; it then takes the
            place of a pair, so that fewer than 2 m directions may be kept in m stored modes.

Everything is in float64. Rounding changes a singular value by at most about sqrt(n eps |P| |Q|),
which is 1e-8 to 1e-6 of the gain; the bound includes this for each value. It also includes the
rounding of poles and weights, which matters if eigenvectors are nearly parallel, so that modes are
large and cancel. The error that `error_of` computes afterwards is reliable in any case.

Axes: n states, m stored modes that are kept, i inputs, o outputs, any leading batch axes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Complex, Float
from torch import Tensor

from longstate.memory._gramians import System, balance, gramians, real_matrices
from longstate.systems import DiagonalSystem

_FLOOR = 1e-15  # share of the largest Hankel singular value below which a direction is not used
WORST_CONDITION = 1e8  # of eigenvectors, above which a system counts as not diagonalisable


class Truncated(NamedTuple):
    """A smaller system for each channel.

    Attributes:
        system: diagonal, discrete, with m stored modes.
        bound (...): of the H-infinity norm of the error. Infinite if a channel has no such form.
        condition (...): of the eigenvectors by which A_r was diagonalised.
    """

    system: DiagonalSystem
    bound: Float[Tensor, "*batch"]
    condition: Float[Tensor, "*batch"]


def by_halves(system: DiagonalSystem, m: int) -> Truncated:
    """Balanced truncation of the stored half of a system with conjugate pairs."""
    A, B, C = (v.detach().cpu().to(torch.complex128) for v in (system.A, system.B, system.C))
    P = (B @ B.mH) / (1 - A[..., :, None] * A.conj()[..., None, :])
    Q = (C.mH @ C) / (1 - A.conj()[..., :, None] * A[..., None, :])
    left, right, sigma = balance(P, Q, m, _FLOOR)
    lost = sigma[..., m:].sum(-1) + (A.shape[-1] - m) * _rounding(P, Q)
    values, vectors = torch.linalg.eig(left @ (A[..., None] * right))
    condition = torch.linalg.cond(vectors)
    fine = _usable(values, condition)
    inside = torch.where(fine[..., None, None], vectors, torch.eye(m, dtype=vectors.dtype))
    B, C = torch.linalg.solve(inside, left @ B), C @ right @ inside
    made = DiagonalSystem(
        torch.where(fine[..., None], values, 0), B, C, _wide(system.D), conjugate=True,
        discrete=True,
    )  # fmt: skip
    bound = 4 * lost + 2 * _of_modes(values, B, C)
    return Truncated(made, torch.where(fine, bound, torch.inf), condition)


def by_reals(system: System, m: int, *, only_real: bool = False) -> Truncated:
    """Balanced truncation of the whole real system, as many directions as fit into m modes.

    Args:
        system: discrete and stable, with real inputs and outputs.
        m: stored modes. Pairs, or with `only_real` single real poles.
        only_real: whether the result has no conjugate pairs, as a system with real A.
    """
    P, Q = gramians(system)
    matrices = real_matrices(system)
    batch = P.shape[:-2]
    each = [v.expand(*batch, *v.shape[-2:]).reshape(-1, *v.shape[-2:]) for v in matrices]
    flat = [v.reshape(-1, *v.shape[-2:]) for v in (P, Q)]
    channels = zip(*each, *flat, strict=True)
    parts = [_one(A, B, C, P, Q, m, only_real) for A, B, C, P, Q in channels]
    A, B, C, bound, condition = (torch.stack(v) for v in zip(*parts, strict=True))

    def shaped(v: Tensor) -> Tensor:
        return v.reshape(batch + v.shape[1:])

    made = DiagonalSystem(
        shaped(A), shaped(B), shaped(C), _wide(system.D), conjugate=not only_real, discrete=True
    )
    return Truncated(made, shaped(bound), shaped(condition))


def by_modes(system: DiagonalSystem, m: int, score: Tensor | None = None) -> Truncated:
    """Keep m modes unchanged. The bound is the sum of the gains of the others.

    Args:
        score (..., n): modes with the highest scores are kept. None: the gain of each mode,
            |C| |B| / (1 - |A|), twice that of a pair.
    """
    A, B, C = (v.detach().cpu() for v in (system.A, system.B, system.C))
    factor = 2 if system.conjugate else 1
    share = factor * B.norm(dim=-1) * C.norm(dim=-2) / (1 - A.abs())
    score = share if score is None else score.expand(share.shape)
    kept = score.argsort(dim=-1, descending=True)[..., :m].sort(dim=-1).values
    A = A.expand(share.shape)
    B, C = (v.expand(*share.shape[:-1], *v.shape[-2:]) for v in (B, C))
    made = DiagonalSystem(
        A.gather(-1, kept),
        B.gather(-2, kept[..., None].expand(*kept.shape, B.shape[-1])),
        C.gather(-1, kept[..., None, :].expand(*kept.shape[:-1], C.shape[-2], m)),
        _wide(system.D),
        conjugate=system.conjugate,
        discrete=True,
    )
    bound = share.sum(-1) - share.gather(-1, kept).sum(-1)
    return Truncated(made, bound.clamp(min=0), torch.ones_like(bound))


def _one(
    A: Tensor, B: Tensor, C: Tensor, P: Tensor, Q: Tensor, m: int, only_real: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A (m), B (m, i), C (o, m), bound and condition of one channel."""
    n = len(A)
    most = min(m if only_real else 2 * m, n)
    left, right, sigma = balance(P, Q, most, _FLOOR)
    for r in range(most, 0, -1):
        values, vectors = torch.linalg.eig(left[:r] @ A @ right[:, :r])
        kept = values.imag >= 0  # one of each pair
        fits = int(kept.sum()) <= m and not (only_real and bool((values.imag != 0).any()))
        condition = torch.linalg.cond(vectors)
        if not fits or not bool(_usable(values, condition)):
            continue
        into = torch.linalg.solve(vectors, (left[:r] @ B).to(vectors.dtype))[kept]
        out = (C @ right[:, :r]).to(vectors.dtype) @ vectors[:, kept]
        values = values[kept]
        if only_real:
            values, into, out = values.real, into.real, out.real
        else:
            out = torch.where(values.imag == 0, out / 2, out)  # y = 2 Re(C x)
        loss = 2 * (sigma[r:].sum() + (n - r) * _rounding(P, Q)) + 2 * _of_modes(values, into, out)
        more = m - len(values)
        pad = torch.nn.functional.pad
        parts = pad(values, (0, more)), pad(into, (0, 0, 0, more)), pad(out, (0, more))
        return *parts, loss, condition
    dtype = torch.float64 if only_real else torch.complex128
    zero = A.new_zeros((), dtype=dtype)
    nothing = zero.expand(m), zero.expand(m, B.shape[1]), zero.expand(len(C), m)
    return *nothing, A.new_tensor(torch.inf), A.new_tensor(torch.inf)


def _rounding(P: Tensor, Q: Tensor) -> Tensor:
    """Bound of the error of a singular value (...): roots of P and Q have errors of sqrt(eps)."""
    eps, n = torch.finfo(torch.float64).eps, P.shape[-1]
    sizes = torch.linalg.matrix_norm(P, 2) * torch.linalg.matrix_norm(Q, 2)
    return (n * eps * sizes).sqrt()


def _of_modes(A: Tensor, B: Tensor, C: Tensor) -> Tensor:
    """Bound of the effect of rounding every pole and weight (...)."""
    eps, n = torch.finfo(torch.float64).eps, A.shape[-1]
    size = B.norm(dim=-1) * C.norm(dim=-2)
    return 16 * n * eps * (size / (1 - A.abs()).clamp(min=1e-15).square()).sum(-1)


def _usable(values: Complex[Tensor, "*batch r"], condition: Float[Tensor, "*batch"]) -> Tensor:
    """Whether the poles are inside the unit circle and the eigenvectors are independent enough."""
    return (values.abs() < 1).all(-1) & (condition < WORST_CONDITION)


def _wide(D: Tensor) -> Tensor:
    return D.detach().cpu().double()
