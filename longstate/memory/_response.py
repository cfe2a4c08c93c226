"""The impulse response of a linear system, summed in absolute value, with its rounding.

    total_o = sum over l >= 0 and inputs i of |K_l|_oi

Lags are computed in blocks, each from the one before by a power of A. The part beyond the last
block, and the rounding errors, are bounded and added. Products of conjugate pairs are real: only
the real part of C x is needed, which is half of the work of a complex product.

Axes: n state, i inputs, o outputs, any leading batch axes (channels).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.memory._gramians import System, real_matrices
from longstate.memory._powers import _UNIT, Bounded, Powers
from longstate.systems import DiagonalSystem
from longstate.systems._numbers import in_float64

_BLOCK = 6  # a block has 2^6 lags
_BLOCKS = 1 << 11  # largest number of blocks: 131,072 lags
_AT_ONCE = 1 << 18  # numbers of a product at once, so that they stay in a cache
_EXACT = 1e-8  # largest error of a power, times the sum of all, with which lags are computed
_ENOUGH = 1e-8  # share of the sum below which the rest is bounded instead of summed


class Sums(NamedTuple):
    """Row sums (..., o): of the first lags, and a bound of the missing part and of rounding."""

    found: Tensor
    rest: Tensor


def row_sums(system: System) -> Sums:
    """Row sums of the impulse response of a discrete, stable, real system, D at lag 0 included."""
    if isinstance(system, DiagonalSystem):
        return _diagonal(system)
    return _dense(system)


def _diagonal(system: DiagonalSystem) -> Sums:
    dtype = torch.complex128 if system.conjugate else torch.float64
    a, B, C = (v.detach().cpu().to(dtype) for v in (system.A, system.B, system.C))
    D = in_float64(system.D)
    if system.conjugate:
        C = 2 * C
    size = a.abs()
    weight = C.abs() * B.abs().sum(-1)[..., None, :]  # (..., o, n)
    lags, read = 1 << _BLOCK, _real(C.conj(), -1)
    now = a[..., None].expand(*a.shape, lags).cumprod(-1)  # (..., n, l), of lag 1 at first
    step = now[..., -1]
    found = (read @ _real(B, -2) + D).abs().sum(-1)
    few = max(1, _AT_ONCE // (max(found.numel(), a.numel()) * B.shape[-1]))
    for block in range(_BLOCKS):
        for part in now.split(few, dim=-1):
            columns = (part[..., None] * B[..., None, :]).flatten(-2)  # (..., n, l i)
            found = found + (read @ _real(columns, -2)).abs_().sum(-1)
        gone = size ** float((block + 1) * lags + 1) / (1 - size)
        beyond = (weight * gone[..., None, :]).sum(-1)
        if bool((beyond <= _ENOUGH * found).all()):
            break
        now = now * step[..., None]
    count = (block + 1) * lags + 4 * a.shape[-1] + 64  # roundings of a power, a product and sums
    rounding = count * 4 * _UNIT * (weight / (1 - size)[..., None, :]).sum(-1)
    return Sums(found, beyond + rounding + 4 * _UNIT * D.abs().sum(-1))


def _real(v: Tensor, axis: int) -> Tensor:
    """Real and imaginary parts, one after the other."""
    return torch.cat([v.real, v.imag], dim=axis) if v.is_complex() else v


def _dense(system: System) -> Sums:
    """Row sums of a dense system.

    A perturbation d of one column adds at most |C| (sum of all |A^k|) |d| to the sum of all lags
    that follow from it. So the rounding errors of all columns are summed, and multiplied once.
    """
    A, B, C = real_matrices(system)
    D = in_float64(system.D)
    batch = torch.broadcast_shapes(*(v.shape[:-2] for v in (A, B, C, D)))
    A, B, C, D = (v.expand(*batch, *v.shape[-2:]) for v in (A, B, C, D))
    powers = Powers(A)
    total = powers.total(powers.growth()[0])
    proved = total.isfinite()[..., None]
    n, i = B.shape[-2:]
    X, wrong = B, torch.zeros_like(total)  # columns of all lags of a block; sum of perturbations
    size = _block_size(powers, total)
    for square in powers.squares[:size]:
        more, wrong = square.value @ X, wrong + _perturbed(square, X)
        X = torch.cat([X, more], dim=-1)
    power = powers.squares[size]
    first = (C @ B + D).abs().sum(-1)
    found, read = torch.zeros_like(first), torch.linalg.vector_norm(C, dim=-1)  # (..., o)
    for block in range(_BLOCKS << (_BLOCK - size)):
        outputs = (C @ X).abs()
        found = found + (first + outputs[..., i:].sum(-1) if block == 0 else outputs.sum(-1))
        wrong = wrong + 4 * n * _UNIT * _columns(X) + _perturbed(power, X)
        X = power.value @ X
        beyond = read * (total * _columns(X[..., :i]))[..., None]
        if bool((~proved | (beyond <= _ENOUGH * found)).all()):
            break
    rounding = read * (total * wrong)[..., None] + 8 * n * _UNIT * (found + D.abs().sum(-1))
    return Sums(found, torch.where(proved, beyond + rounding, torch.inf))


def _block_size(powers: Powers, total: Tensor) -> int:
    """Exponent of the longest block whose power is accurate enough."""
    good = [j for j, p in enumerate(powers.squares) if bool((p.error * total <= _EXACT).all())]
    return min(max([j for j in good if good[: j + 1] == list(range(j + 1))], default=0), _BLOCK)


def _perturbed(power: Bounded, X: Tensor) -> Tensor:
    """Bound (...) of the total error of the columns that a computed power gives."""
    rounding = X.shape[-2] * _UNIT * torch.linalg.matrix_norm(power.value)
    return (power.error + rounding) * _columns(X)


def _columns(X: Tensor) -> Tensor:
    """Sum (...) of the lengths of the columns."""
    return torch.linalg.vector_norm(X, dim=-2).sum(-1)
