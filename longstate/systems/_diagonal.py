"""A linear system whose state matrix is diagonal: S4D, DSS, S5, LRU.

    continuous   x'(t) = A * x(t) + B u(t)         y(t) = C x(t) + D u(t)
    discrete     x_k   = A * x_{k-1} + B u_k       y_k  = C x_k + D u_k        x_{-1} = 0

With `conjugate=True` the eigenvalues come in conjugate pairs, one of each pair is stored, and
y = 2 Re(C x) + D u is real. Conventions of the discrete form: see `longstate.systems._dense`.

Axes: n stored states, i inputs, o outputs, f frequencies, any leading batch axes.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

from longstate.systems._dense import DenseSystem
from longstate.systems._discretize import Discretization
from longstate.systems._numbers import as_tensor
from longstate.systems._powers import diagonal_powers
from longstate.systems._shapes import (
    check_continuous,
    check_discrete,
    check_io,
    check_length,
    complex_of,
    expect,
    feed_through,
    points,
)


@dataclass(frozen=True, eq=False)
class DiagonalSystem:
    """x' = A * x + B u, y = C x + D u, or the same with x_k in place of x'.

    Args:
        A (..., n): eigenvalues, real or complex.
        B (..., n, i): input matrix.
        C (..., o, n): output matrix.
        D (..., o, i): feed-through; real when `conjugate`.
        conjugate: one of each conjugate pair is stored and y = 2 Re(C x) + D u.
        discrete: the recurrence rather than the differential equation.

    Raises:
        ValueError: the shapes do not fit each other, or D is complex under `conjugate`.
    """

    A: Shaped[Tensor, "*batchA n"]
    B: Shaped[Tensor, "*batchB n i"]
    C: Shaped[Tensor, "*batchC o n"]
    D: Shaped[Tensor, "*batchD o i"]
    conjugate: bool = field(default=False, kw_only=True)
    discrete: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        expect(self.A.dim() >= 1, f"A must be (..., n); got {tuple(self.A.shape)}")
        check_io(self.A.shape[:-1], self.A.shape[-1], self.B, self.C, self.D)
        expect(
            not (self.conjugate and self.D.is_complex()),
            "D must be real when conjugate=True; got a complex tensor",
        )

    @property
    def d_state(self) -> int:
        """Stored states: complex pairs when `conjugate`, so half the size of `to_dense()`."""
        return self.A.shape[-1]

    def to_dense(self) -> DenseSystem:
        """The same system with a full matrix. Real, of size 2 n, when `conjugate`."""
        if not self.conjugate:
            return DenseSystem(
                torch.diag_embed(self.A), self.B, self.C, self.D, discrete=self.discrete
            )
        A = torch.view_as_real(complex_of(self.A))
        re, im = torch.diag_embed(A[..., 0]), torch.diag_embed(A[..., 1])
        A = torch.cat([torch.cat([re, -im], dim=-1), torch.cat([im, re], dim=-1)], dim=-2)
        B, C = real_columns(self.B), real_rows(self.C)
        return DenseSystem(A, B, C, self.D, discrete=self.discrete)

    def discretize(
        self, rule: Discretization, dt: Shaped[Tensor, "*dt"] | float
    ) -> "DiagonalSystem":
        """The recurrence with step `dt` (...), which broadcasts over the batch axes.

        For a separate step for each state call `rule.diagonal`; it is not a batch axis.

        Raises:
            ValueError: the system is discrete already.
        """
        check_continuous(self.discrete)
        A_bar, scale = rule.diagonal(self.A, as_tensor(dt, self.A)[..., None])
        B_bar = scale[..., None] * self.B
        return DiagonalSystem(A_bar, B_bar, self.C, self.D, conjugate=self.conjugate, discrete=True)

    def impulse_response(self, length: int) -> Shaped[Tensor, "*batch t o i"]:
        """C A^l B for l = 0 .. length - 1, with D added at lag 0. Real when `conjugate`.

        Raises:
            ValueError: the system is continuous.
        """
        check_discrete(self.discrete, "impulse_response")
        check_length(length)
        w = self.C[..., :, None, :] * self.B.mT[..., None, :, :]  # o i n
        k = self._powers(w, self.A[..., None, None, :], length)
        return feed_through(k.movedim(-1, -3), self.D)

    def state_response(
        self, h0: Shaped[Tensor, "*batchH n"], length: int
    ) -> Shaped[Tensor, "*batch t o"]:
        """The contribution of an earlier state to the output: C A^{l+1} h0, l = 0 .. length - 1.

        Raises:
            ValueError: the system is continuous.
        """
        check_discrete(self.discrete, "state_response")
        check_length(length)
        w = self.C * (self.A * h0)[..., None, :]  # o n
        return self._powers(w, self.A[..., None, :], length).mT

    def frequency_response(self, w: Shaped[Tensor, " f"]) -> Complex[Tensor, "*batch f o i"]:
        """The factor by which exp(i w t) passes from input to output.

        Args:
            w (f): angular frequency, in radians per unit of time, or per sample when discrete.
        """
        s = points(w, self.discrete)[:, None]
        A, B, C = complex_of(self.A), complex_of(self.B), complex_of(self.C)
        if self.conjugate:
            A = torch.cat([A, A.conj()], dim=-1)
            B, C = torch.cat([B, B.conj()], dim=-2), torch.cat([C, C.conj()], dim=-1)
        x = (s if self.discrete else 1) / (s - A.unsqueeze(-2))  # f n
        response = (C.unsqueeze(-3) * x.unsqueeze(-2)) @ B.unsqueeze(-3)
        return response + self.D.unsqueeze(-3)

    def _powers(self, w: Tensor, a: Tensor, length: int) -> Tensor:
        """sum_n w_n a_n^l over the whole state; real with `conjugate`."""
        k = diagonal_powers(w, a, length)
        return 2 * k.real if self.conjugate else k


def real_columns(B: Tensor) -> Tensor:
    """`B` (..., n, i) for the real state (Re x, Im x)."""
    B = complex_of(B)
    return torch.cat([B.real, B.imag], dim=-2)


def real_rows(C: Tensor) -> Tensor:
    """`C` (..., o, n) so that 2 Re(C x) is the result times the real state (Re x, Im x)."""
    C = complex_of(C)
    return 2 * torch.cat([C.real, -C.imag], dim=-1)
