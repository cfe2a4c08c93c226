"""The distance of two linear systems: the norms of their difference.

The difference of two systems is a system with the states of both. Its H-infinity norm is the exact
error of a reduction, for all inputs and a zero initial state. It is given as a certified interval.

Axes: n states, i inputs, o outputs, any leading batch axes (channels).
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.errors import InputError
from longstate.memory._gains import _energy, _peaks
from longstate.memory._gramians import System
from longstate.memory._response import row_sums
from longstate.systems import DenseSystem, DiagonalSystem, TwoSidedSystem

Operator = System | TwoSidedSystem
_TOLERANCE = 1e-2  # relative difference of the two bounds


class Distance(NamedTuple):
    """The distance of two operators, for each channel.

    Attributes:
        high, low (...): certified upper and lower bounds of the H-infinity norm.
        h2 (...): the H2 norm of the difference.
    """

    high: Float[Tensor, "*batch"]
    low: Float[Tensor, "*batch"]
    h2: Float[Tensor, "*batch"]


def error_of(true: Operator, near: Operator, *, tight: bool = True) -> Distance:
    """The distance of two discrete, stable operators.

    Args:
        true, near: the operators.
        tight: whether to use a slower method if the bounds are far apart.

    Raises:
        InputError: one looks ahead and the other does not, or one is not stable.
    """
    return norms_of(minus(true, near), tight=tight)


def norms_of(operator: Operator, *, tight: bool = True) -> Distance:
    """H-infinity and H2 of a discrete, stable operator."""
    ahead = operator.ahead if isinstance(operator, TwoSidedSystem) else operator
    behind = operator.behind if isinstance(operator, TwoSidedSystem) else None
    energy = _energy(ahead) if behind is None else _energy(ahead) + _energy(behind)
    peaks = _peaks(ahead, behind, _TOLERANCE, energy.shape)
    high, low = (torch.tensor([p[k] for p in peaks]).double() for k in (1, 0))
    # the first bound is loose if terms cancel; the proof by a matrix is not affected
    loose = (high > low * (1 + 8 * _TOLERANCE)).nonzero()[:, 0].tolist()
    if tight and loose and isinstance(ahead, DiagonalSystem):
        first = _channels(ahead, energy.shape)
        second = None if behind is None else _channels(behind, energy.shape)
        for k in loose:
            against = None if second is None else second[k]
            try:
                other = _peaks(first[k], against, _TOLERANCE, torch.Size())[0]
            except torch.linalg.LinAlgError:
                continue  # the proof failed: keep the looser bound
            high[k], low[k] = min(float(high[k]), other.high), max(float(low[k]), other.low)
    if tight or not bool(high.isfinite().all()):
        high = torch.minimum(high, _by_sums(ahead, behind).reshape(-1))
    shape = energy.shape
    return Distance(high.reshape(shape), low.reshape(shape), energy.clamp(min=0).sqrt())


def _by_sums(ahead: System, behind: System | None) -> Tensor:
    """Bound of |G(w)| (...): the Frobenius norm of the matrix of sums over all lags, one for each
    entry."""
    sums = [row_sums(part) for part in (ahead, behind) if part is not None]
    total = sum((s.found + s.rest for s in sums), torch.zeros((), dtype=torch.float64))
    return torch.linalg.vector_norm(total, dim=-1)


def look(true: Operator, near: Operator, lags: int = 1024) -> tuple[Tensor, Tensor]:
    """Fast estimates of the H-infinity and H2 norms (...) of the difference, from the first lags.

    Not a bound. Used for choices whose error is computed afterwards.
    """
    operator = minus(true, near)
    parts = [operator]
    if isinstance(operator, TwoSidedSystem):
        parts = [operator.ahead, operator.behind]
    peak = energy = torch.zeros((), dtype=torch.float64)
    for part in parts:
        kernel = part.impulse_response(lags).movedim(-3, -1)  # type: ignore[union-attr]
        energy = energy + kernel.square().sum((-3, -2, -1))
        spectrum = torch.fft.rfft(kernel, n=4 * lags).movedim(-1, -3)
        peak = peak + torch.linalg.matrix_norm(spectrum, 2).amax(-1)
    return peak, energy.sqrt()


def minus(true: Operator, near: Operator) -> Operator:
    """The operator whose outputs are the differences of the outputs.

    Raises:
        InputError: one looks ahead and the other does not.
    """
    if isinstance(true, TwoSidedSystem) and isinstance(near, TwoSidedSystem):
        return TwoSidedSystem(_minus(true.ahead, near.ahead), _minus(true.behind, near.behind))
    if isinstance(true, TwoSidedSystem) or isinstance(near, TwoSidedSystem):
        raise InputError("a system that looks ahead has no difference to one that does not")
    return _minus(true, near)


def _minus(true: System, near: System) -> DiagonalSystem | DenseSystem:
    D = true.D.detach().cpu().double() - near.D.detach().cpu().double()
    if (
        isinstance(true, DiagonalSystem)
        and isinstance(near, DiagonalSystem)
        and true.conjugate == near.conjugate
    ):
        A = _joined([true.A, near.A], -1, 1)
        B = _joined([true.B, near.B], -2, 2)
        C = _joined([true.C, -near.C], -1, 2)
        return DiagonalSystem(A, B, C, D, conjugate=true.conjugate, discrete=True)
    one, two = true.to_dense(), near.to_dense()
    A, Z = (v.detach().cpu() for v in (one.A, two.A))
    batch = torch.broadcast_shapes(A.shape[:-2], Z.shape[:-2])
    A, Z = A.expand(*batch, *A.shape[-2:]), Z.expand(*batch, *Z.shape[-2:])
    n, r = A.shape[-1], Z.shape[-1]
    whole = A.new_zeros(*batch, n + r, n + r, dtype=torch.float64)
    whole[..., :n, :n], whole[..., n:, n:] = A, Z
    return DenseSystem(
        whole, _joined([one.B, two.B], -2, 2), _joined([one.C, -two.C], -1, 2), D, discrete=True
    )


def _joined(parts: list[Tensor], dim: int, axes: int) -> Tensor:
    """Side by side along `dim`, in double precision; leading axes broadcast."""
    parts = [p.detach().cpu() for p in parts]
    parts = [p.to(torch.complex128) if p.is_complex() else p.double() for p in parts]
    batch = torch.broadcast_shapes(*(p.shape[: p.dim() - axes] for p in parts))
    return torch.cat([p.expand(*batch, *p.shape[p.dim() - axes :]) for p in parts], dim)


def _channels(system: System, batch: torch.Size) -> list[DenseSystem]:
    """Each channel as a separate dense system."""
    dense = system.to_dense()

    def flat(v: Tensor) -> Tensor:
        return v.detach().cpu().double().expand(*batch, *v.shape[-2:]).reshape(-1, *v.shape[-2:])

    parts = zip(flat(dense.A), flat(dense.B), flat(dense.C), flat(dense.D), strict=True)
    return [DenseSystem(*p, discrete=True) for p in parts]
