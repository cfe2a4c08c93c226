"""The impulse response of a linear system, summed in absolute value, with its rounding.

    total_o = sum over l >= 0 and inputs i of |K_l|_oi

Lags are formed in blocks, each from the last by a power of A. What lies beyond the last block, and
what rounding may have changed, is bounded and added.

Axes: n state, i inputs, o outputs, any leading batch axes (channels).
"""

from typing import NamedTuple

import torch
from torch import Tensor

from longstate.memory._gramians import System, real_matrices
from longstate.memory._powers import _UNIT, Bounded, Powers
from longstate.systems import DiagonalSystem

_BLOCK = 6  # a block has 2^6 lags
_BLOCKS = 1 << 11  # most of them: 131,072 lags
_ENOUGH = 1e-10  # share of the sum at which the rest is only bounded


class Sums(NamedTuple):
    """Row sums (..., o): computed for the first lags, and the most that is missing or rounded."""

    found: Tensor
    rest: Tensor


def row_sums(system: System) -> Sums:
    """Of the impulse response of a discrete, stable, real system, its D at lag 0 included."""
    if isinstance(system, DiagonalSystem):
        return _diagonal(system)
    return _dense(system)


def _diagonal(system: DiagonalSystem) -> Sums:
    dtype = torch.complex128 if system.conjugate else torch.float64
    a, B, C = (v.detach().cpu().to(dtype) for v in (system.A, system.B, system.C))
    D = system.D.detach().double().cpu()
    if system.conjugate:
        C = 2 * C
    size = a.abs()
    weight = C.abs() * B.abs().sum(-1)[..., None, :]  # (..., o, n)
    found, lags = 0.0, 1 << _BLOCK
    powers = torch.arange(lags, dtype=torch.float64)
    for block in range(_BLOCKS):
        lag = powers + block * lags
        now = a[..., None] ** lag  # (..., n, l)
        kernel = torch.einsum("...on,...nl,...ni->...loi", C, now, B).real
        if block == 0:
            kernel[..., 0, :, :] += D
        found = found + kernel.abs().sum((-3, -1))
        beyond = (weight * (size ** float(lag[-1] + 1) / (1 - size))[..., None, :]).sum(-1)
        if bool((beyond <= _ENOUGH * found).all()):
            break
    count = (block + 1) * lags + 4 * a.shape[-1] + 64  # roundings of a power, a product and sums
    rounding = count * 4 * _UNIT * (weight / (1 - size)[..., None, :]).sum(-1)
    return Sums(found, beyond + rounding + 4 * _UNIT * D.abs().sum(-1))


def _dense(system: System) -> Sums:
    A, B, C = real_matrices(system)
    D = system.D.detach().double().cpu()
    batch = torch.broadcast_shapes(*(v.shape[:-2] for v in (A, B, C, D)))
    A, B, C, D = (v.expand(*batch, *v.shape[-2:]) for v in (A, B, C, D))
    powers = Powers(A)
    total = powers.total(powers.growth()[0])
    while len(powers.squares) <= _BLOCK:
        powers.squares.append(powers.squares[-1].times(powers.squares[-1]))
    n, i = B.shape[-2:]
    X, error = B, torch.zeros_like(total)  # columns of all lags of a block; error: sum of theirs
    for square in powers.squares[:_BLOCK]:
        X, error = _double(square, X, error)
    first = (C @ B + D).abs().sum(-1)
    found, wrong, size = torch.zeros_like(first), torch.zeros_like(total), _columns(X)
    read = torch.linalg.vector_norm(C, dim=-1)  # (..., o)
    for block in range(_BLOCKS):
        outputs = (C @ X).abs()
        found = found + (first + outputs[..., i:].sum(-1) if block == 0 else outputs.sum(-1))
        wrong = wrong + error + 4 * n * _UNIT * size
        X, error = _next(powers.squares[_BLOCK], X, error)
        size = _columns(X)
        left = torch.linalg.vector_norm(X[..., :i], dim=-2).sum(-1) + error
        beyond = read * (total * left)[..., None]
        if bool((beyond <= _ENOUGH * found).all()):
            break
    rounding = read * wrong[..., None] + 8 * n * _UNIT * (found + D.abs().sum(-1))
    return Sums(found, beyond + rounding)


def _columns(X: Tensor) -> Tensor:
    """Sum (...) of the lengths of the columns."""
    return torch.linalg.vector_norm(X, dim=-2).sum(-1)


def _next(power: Bounded, X: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    """The columns carried on by a power, and the sum of their errors."""
    n = X.shape[-2]
    rounding = n * _UNIT * torch.linalg.matrix_norm(power.value)
    return power.value @ X, power.high() * error + (power.error + rounding) * _columns(X)


def _double(power: Bounded, X: Tensor, error: Tensor) -> tuple[Tensor, Tensor]:
    more, later = _next(power, X, error)
    return torch.cat([X, more], dim=-1), error + later
