"""Convert a differential equation to a recurrence with step `dt`.

    x'(t) = A x(t) + B u(t)      becomes      x_k = A_bar x_{k-1} + B_bar u_k

    zero-order hold        A_bar = exp(dt A)                      B_bar = A^{-1} (A_bar - I) B
    generalised bilinear   A_bar = (I - a dt A)^{-1} (I + (1 - a) dt A)
                           B_bar = (I - a dt A)^{-1} dt B
                           a = 0 forward Euler, 1/2 bilinear (Tustin), 1 backward Euler

Gu, Goel, Re, "Efficiently Modeling Long Sequences with Structured State Spaces", 2022,
arXiv:2111.00396; Gu et al., "On the Parameterization and Initialization of Diagonal State Space
Models", 2022, arXiv:2206.11893. Differs from the papers: nothing. The zero-order hold is exact for
inputs that are constant over a step, so it should be used for irregular steps and for changes of
the sampling rate.

A rule is an object without state. `dt` is in the units of 1 / A. Axes: n state, i inputs.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Shaped
from torch import Tensor

from longstate.ops._transforms import transformed
from longstate.systems._numbers import as_tensor, phi, sum_to, widen

_LEAST = 1e-30  # of a decay whose logarithm is taken


@runtime_checkable
class Discretization(Protocol):
    """The interface of all rules."""

    def diagonal(self, A: Tensor, dt: Tensor | float) -> tuple[Tensor, Tensor]: ...

    def dense(self, A: Tensor, B: Tensor, dt: Tensor | float) -> tuple[Tensor, Tensor]: ...

    def undo(self, A_bar: Tensor, dt: Tensor | float) -> Tensor: ...


def _hold(A: Tensor, dt: Tensor) -> tuple[Tensor, Tensor]:
    """(exp(dt A), dt (exp(dt A) - 1) / (dt A)), evaluated in double precision and rounded once.

    Double precision because the phase dt Im(A) may be hundreds of radians.
    """
    step = widen(dt)
    z = widen(A) * step
    dtype = torch.promote_types(A.dtype, dt.dtype)
    return torch.exp(z).to(dtype), (step * phi(z, 1)).to(dtype)


class _DiagonalHold(torch.autograd.Function):
    """`_hold`, with a backward pass that keeps `A` and `dt` only, which matters when `dt` has a
    time axis."""

    @staticmethod
    def forward(ctx, A, dt):
        ctx.save_for_backward(A, dt)
        return _hold(A, dt)

    @staticmethod
    def backward(ctx, grad_A_bar, grad_scale):
        A, dt = ctx.saved_tensors
        wide_A, step = widen(A), widen(dt)
        z = wide_A * step
        A_bar = torch.exp(z)
        scale_by_A = step**2 * (phi(z, 1) - phi(z, 2))
        grad_A = grad_A_bar * (step * A_bar).conj() + grad_scale * scale_by_A.conj()
        grad_dt = grad_A_bar * (wide_A * A_bar).conj() + grad_scale * A_bar.conj()
        return sum_to(grad_A, A), sum_to(grad_dt, dt)


@dataclass(frozen=True)
class ZeroOrderHold:
    """The zero-order hold. Exact for inputs that are constant over each step, for every step.

    A = 0 is allowed.
    """

    def diagonal(
        self, A: Shaped[Tensor, "*n"], dt: Shaped[Tensor, "*dt"] | float
    ) -> tuple[Shaped[Tensor, "*batch"], Shaped[Tensor, "*batch"]]:
        """For a diagonal A.

        Args:
            A (...): eigenvalues, real or complex.
            dt (...): step, real; broadcasts against `A`.

        Returns:
            A_bar (...) and B_scale (...), so that B_bar = B_scale * B. In float32 both are rounded
            only once, also if |A dt| is tiny or its phase is large.
        """
        hold = _hold if transformed((A, dt)) else _DiagonalHold.apply
        return hold(A, as_tensor(dt, A))

    def undo(
        self, A_bar: Shaped[Tensor, "*n"], dt: Shaped[Tensor, "*dt"] | float
    ) -> Shaped[Tensor, "*batch"]:
        """The A (...) of the least |Im(dt A)| that `diagonal` turns into A_bar; a zero, which no A
        gives, counts as 1e-30."""
        small = A_bar.abs() < _LEAST
        return torch.log(torch.where(small, _LEAST, A_bar)) / as_tensor(dt, A_bar)

    def dense(
        self,
        A: Shaped[Tensor, "*batchA n n"],
        B: Shaped[Tensor, "*batchB n i"],
        dt: Shaped[Tensor, "*dt"] | float,
    ) -> tuple[Shaped[Tensor, "*batch n n"], Shaped[Tensor, "*batch n i"]]:
        """For a full A (..., n, n) and B (..., n, i): one matrix exponential of size n + i."""
        step = widen(as_tensor(dt, A))[..., None, None]
        n, dtype = A.shape[-1], torch.promote_types(A.dtype, B.dtype)
        both = _broadcast(widen(A) * step, widen(B) * step)
        top = torch.cat(both, dim=-1)
        below = top.new_zeros(*top.shape[:-2], B.shape[-1], top.shape[-1])
        whole = torch.linalg.matrix_exp(torch.cat([top, below], dim=-2))
        return whole[..., :n, :n].to(dtype), whole[..., :n, n:].to(dtype)


@dataclass(frozen=True)
class GeneralizedBilinear:
    """The generalised bilinear rule: the end of a step has weight `alpha`, its start 1 - alpha.

    Args:
        alpha: 0 is forward Euler, 1/2 the bilinear rule, 1 backward Euler. For alpha >= 1/2 a
            stable system stays stable for every step.
    """

    alpha: float

    def __post_init__(self):
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1]; got {self.alpha}")

    def diagonal(
        self, A: Shaped[Tensor, "*n"], dt: Shaped[Tensor, "*dt"] | float
    ) -> tuple[Shaped[Tensor, "*batch"], Shaped[Tensor, "*batch"]]:
        """For a diagonal A; see `ZeroOrderHold.diagonal`."""
        return _moebius(A, as_tensor(dt, A), self.alpha)

    def undo(
        self, A_bar: Shaped[Tensor, "*n"], dt: Shaped[Tensor, "*dt"] | float
    ) -> Shaped[Tensor, "*batch"]:
        """The A (...) that `diagonal` turns into A_bar."""
        return _undo_moebius(A_bar, as_tensor(dt, A_bar), self.alpha)

    def dense(
        self,
        A: Shaped[Tensor, "*batchA n n"],
        B: Shaped[Tensor, "*batchB n i"],
        dt: Shaped[Tensor, "*dt"] | float,
    ) -> tuple[Shaped[Tensor, "*batch n n"], Shaped[Tensor, "*batch n i"]]:
        """For a full A (..., n, n) and B (..., n, i): one linear solve."""
        return _moebius_dense(A, B, as_tensor(dt, A), self.alpha)


@dataclass(frozen=True)
class Bilinear:
    """The trapezoidal rule (Tustin): `GeneralizedBilinear(1/2)`, as used in S4."""

    def diagonal(
        self, A: Shaped[Tensor, "*n"], dt: Shaped[Tensor, "*dt"] | float
    ) -> tuple[Shaped[Tensor, "*batch"], Shaped[Tensor, "*batch"]]:
        """For a diagonal A; see `ZeroOrderHold.diagonal`."""
        return _moebius(A, as_tensor(dt, A), 0.5)

    def undo(
        self, A_bar: Shaped[Tensor, "*n"], dt: Shaped[Tensor, "*dt"] | float
    ) -> Shaped[Tensor, "*batch"]:
        """The A (...) that `diagonal` turns into A_bar."""
        return _undo_moebius(A_bar, as_tensor(dt, A_bar), 0.5)

    def dense(
        self,
        A: Shaped[Tensor, "*batchA n n"],
        B: Shaped[Tensor, "*batchB n i"],
        dt: Shaped[Tensor, "*dt"] | float,
    ) -> tuple[Shaped[Tensor, "*batch n n"], Shaped[Tensor, "*batch n i"]]:
        """For a full A (..., n, n) and B (..., n, i): one linear solve."""
        return _moebius_dense(A, B, as_tensor(dt, A), 0.5)


def _moebius(A: Tensor, dt: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(A.dtype, dt.dtype)
    dt = widen(dt)
    z = widen(A) * dt
    denominator = 1 - alpha * z
    return ((1 + (1 - alpha) * z) / denominator).to(dtype), (dt / denominator).to(dtype)


def _undo_moebius(A_bar: Tensor, dt: Tensor, alpha: float) -> Tensor:
    return (A_bar - 1) / (dt * (1 - alpha + alpha * A_bar))


def _moebius_dense(A: Tensor, B: Tensor, dt: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(A.dtype, B.dtype)
    step = widen(dt)[..., None, None]
    z, right = _broadcast(widen(A) * step, widen(B) * step)
    eye = torch.eye(A.shape[-1], dtype=z.dtype, device=z.device)
    both = torch.cat([eye + (1 - alpha) * z, right], dim=-1)
    both = torch.linalg.solve(eye - alpha * z, both).to(dtype)
    return both[..., : A.shape[-1]], both[..., A.shape[-1] :]


def _broadcast(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    """`A` (..., n, n) and `B` (..., n, i) with the same leading axes and the same dtype."""
    batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    dtype = torch.promote_types(A.dtype, B.dtype)
    A, B = A.to(dtype), B.to(dtype)
    return A.expand(*batch, *A.shape[-2:]), B.expand(*batch, *B.shape[-2:])
