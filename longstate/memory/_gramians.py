"""The controllability and observability Gramians of a linear system.

    P = sum over l of A^l B B' A'^l        covariance of the state under white input of variance 1
    Q = sum over l of A'^l C' C A^l        x' Q x: energy of all outputs that follow from state x

The sums are over l from 0 to infinity, or to `length` - 1. For a diagonal system they have a closed
form: (B B*)_ij / (1 - a_i conj(a_j)). For a dense system the number of terms is doubled repeatedly.
Everything is in real coordinates, (Re x, Im x) if the system is complex, and in float64.

Axes: n real numbers of the state, i inputs, o outputs, any leading batch axes.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.errors import InputError
from longstate.systems import DenseSystem, DiagonalSystem, DPLRSystem
from longstate.systems._balance import balance as balance
from longstate.systems._balance import root
from longstate.systems._numbers import in_float64

System = DiagonalSystem | DPLRSystem | DenseSystem

_DOUBLINGS = 60  # 2^60 steps: an eigenvalue that still matters then is 1 to machine precision


class Gramians(NamedTuple):
    """P and Q (..., n, n), symmetric, float64."""

    reach: Float[Tensor, "*batch n n"]
    observe: Float[Tensor, "*batch n n"]


def gramians(system: System, length: int | None = None) -> Gramians:
    """P and Q of a discrete system.

    Args:
        system: discrete, with real inputs and outputs.
        length: number of steps in the sums. Infinite when None.

    Raises:
        InputError: the system is continuous, or complex without conjugate pairs; or `length` is
            None and an eigenvalue has modulus 1 or more, so that the sums diverge.
    """
    if not system.discrete:
        raise InputError("the system is continuous; call discretize(rule, dt) first")
    if length is not None and length < 1:
        raise InputError(f"length must be at least 1; got {length}")
    if isinstance(system, DiagonalSystem):
        A, B, C = (in_float64(v) for v in (system.A, system.B, system.C))
        if system.conjugate:
            return _of_pairs(A, B, C, length)
        if not any(v.is_complex() for v in (A, B, C)):
            return Gramians((B @ B.mT) * _sums(A, A, length), (C.mT @ C) * _sums(A, A, length))
    A, B, C = real_matrices(system)
    if length is None and bool((torch.linalg.eigvals(A).abs() >= _ENDS).any()):
        raise InputError(_ENDLESS)
    return Gramians(_doubled(A, B @ B.mT, length), _doubled(A.mT, C.mT @ C, length))


_ENDS = 1 - 1e-12  # a larger modulus cannot be distinguished from 1
_ENDLESS = (
    "an eigenvalue has modulus 1 (to rounding) or more, so a state does not decay and the sum over "
    "all time is infinite; give a length"
)


def real_matrices(system: System) -> tuple[Tensor, Tensor, Tensor]:
    """A (..., n, n), B (..., n, i), C (..., o, n), float64, with y = C x + D u real.

    Raises:
        InputError: the system is complex and has no conjugate pairs.
    """
    dense = system.to_dense()
    A, B, C = (in_float64(v) for v in (dense.A, dense.B, dense.C))
    if any(v.is_complex() for v in (A, B, C)):
        raise InputError("the system is complex; only real inputs and outputs can be analysed")
    return A, B, C


def _sums(a: Tensor, b: Tensor, length: int | None) -> Tensor:
    """sum over l of (a_i b_j)^l: (..., n, n)."""
    z = a[..., :, None] * b[..., None, :]
    if length is None:
        if bool((z.abs() >= _ENDS).any()):
            raise InputError(_ENDLESS)
        return 1 / (1 - z)
    left = 1 - z
    near = left.abs() < 1e-8  # there the quotient loses digits, and this form is accurate
    far = torch.where(near, torch.ones_like(left), left)
    return torch.where(near, length - left * (length * (length - 1) / 2), (1 - z**length) / far)


def _of_pairs(A: Tensor, B: Tensor, C: Tensor, length: int | None) -> Gramians:
    """Gramians of y = 2 Re(C x), in coordinates (Re x, Im x)."""
    A, B, C = (v.to(torch.complex128) for v in (A, B, C))
    own = (B @ B.mH) * _sums(A, A.conj(), length)  # E x x*
    cross = (B @ B.mT) * _sums(A, A, length)  # E x x'
    total, rest = own + cross, own - cross
    reach = _blocks(total.real, -rest.imag, total.imag, rest.real) / 2
    own = (C.mH @ C) * _sums(A.conj(), A, length)
    cross = (C.mT @ C) * _sums(A, A, length)
    total, rest = own + cross, own - cross
    return Gramians(reach, 2 * _blocks(total.real, -total.imag, rest.imag, rest.real))


def _blocks(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
    return torch.cat([torch.cat([a, b], dim=-1), torch.cat([c, d], dim=-1)], dim=-2)


def _doubled(A: Tensor, X: Tensor, length: int | None) -> Tensor:
    """sum over l of A^l X A'^l."""
    if length is None:
        total, power = X, A
        for _ in range(_DOUBLINGS):
            more = power @ total @ power.mT
            total, power = total + more, power @ power
            if bool((more.abs().amax((-2, -1)) <= 1e-17 * total.abs().amax((-2, -1))).all()):
                break
        return total
    # binary digits of the length, from the highest: S_2k = S_k + A^k S_k A'^k, S_k+1 = X + A S_k A'
    total, power = torch.zeros_like(X), torch.eye(A.shape[-1], dtype=A.dtype).expand_as(A)
    for digit in bin(length)[2:]:
        total, power = total + power @ total @ power.mT, power @ power
        if digit == "1":
            total, power = X + A @ total @ A.mT, A @ power
    return total


def factor(S: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """L with L L' = S, for a symmetric, possibly singular S: by Cholesky or by eigenvalues."""
    L, failed = torch.linalg.cholesky_ex(S)
    if bool(failed.any()):
        L = torch.where(failed.bool()[..., None, None], root(S), L)
    return L
