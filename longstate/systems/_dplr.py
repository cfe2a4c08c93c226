"""A linear system whose state matrix is diagonal plus low rank (DPLR): S4.

    x'(t) = (diag(A) - P Q*) x(t) + B u(t)         y(t) = C x(t) + D u(t)

With `conjugate=True` one of each conjugate pair is stored, y = 2 Re(C x) + D u is real, and the
products with Q* run over both halves: Q* x becomes 2 Re(Q* x). `Q = P` makes the low-rank part
dissipative, which keeps the system stable.

Axes: n stored states, r rank, i inputs, o outputs, f frequencies, any leading batch axes.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

from longstate.systems._dense import DenseSystem
from longstate.systems._diagonal import DiagonalSystem, real_columns
from longstate.systems._discretize import Discretization
from longstate.systems._numbers import as_tensor, widen
from longstate.systems._shapes import (
    check_continuous,
    check_discrete,
    check_io,
    complex_of,
    expect,
    points,
)


@dataclass(frozen=True, eq=False)
class DPLRSystem:
    """x' = (diag(A) - P Q*) x + B u, y = C x + D u, or the same with x_k in place of x'.

    Args:
        A (..., n): the diagonal, real or complex.
        P (..., n, r): left factor of the low-rank part, which is subtracted.
        Q (..., n, r): right factor, used conjugate-transposed.
        B (..., n, i): input matrix.
        C (..., o, n): output matrix.
        D (..., o, i): feed-through; real when `conjugate`.
        conjugate: one of each conjugate pair is stored and y = 2 Re(C x) + D u.
        discrete: the recurrence rather than the differential equation.

    Raises:
        ValueError: the shapes do not fit each other, or D is complex under `conjugate`.
    """

    A: Shaped[Tensor, "*batchA n"]
    P: Shaped[Tensor, "*batchP n r"]
    Q: Shaped[Tensor, "*batchQ n r"]
    B: Shaped[Tensor, "*batchB n i"]
    C: Shaped[Tensor, "*batchC o n"]
    D: Shaped[Tensor, "*batchD o i"]
    conjugate: bool = field(default=False, kw_only=True)
    discrete: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        expect(self.A.dim() >= 1, f"A must be (..., n); got {tuple(self.A.shape)}")
        n = self.A.shape[-1]
        for name, factor in (("P", self.P), ("Q", self.Q)):
            shape = tuple(factor.shape)
            expect(
                factor.dim() >= 2 and shape[-2] == n, f"{name} must be (..., {n}, r); got {shape}"
            )
        ranks = self.P.shape[-1], self.Q.shape[-1]
        expect(ranks[0] == ranks[1], f"P and Q must have the same rank; got {ranks}")
        check_io(self._batch(), n, self.B, self.C, self.D)
        expect(
            not (self.conjugate and self.D.is_complex()),
            "D must be real when conjugate=True; got a complex tensor",
        )

    def _batch(self) -> torch.Size:
        shapes = self.A.shape[:-1], self.P.shape[:-2], self.Q.shape[:-2]
        try:
            return torch.broadcast_shapes(*shapes)
        except RuntimeError:
            raise ValueError(
                f"the leading axes of A, P and Q do not broadcast: {[tuple(s) for s in shapes]}"
            ) from None

    @property
    def d_state(self) -> int:
        """Stored states: complex pairs when `conjugate`, so half the size of `to_dense()`."""
        return self.A.shape[-1]

    def to_dense(self) -> DenseSystem:
        """The same system with a full matrix. Real, of size 2 n, when `conjugate`."""
        plain = DiagonalSystem(
            self.A, self.B, self.C, self.D, conjugate=self.conjugate, discrete=self.discrete
        ).to_dense()
        if self.conjugate:
            low_rank = 2 * real_columns(self.P) @ real_columns(self.Q).mT
        else:
            low_rank = _matmul(self.P, self.Q.mH)
        return DenseSystem(plain.A - low_rank, plain.B, plain.C, plain.D, discrete=self.discrete)

    def discretize(self, rule: Discretization, dt: Shaped[Tensor, "*dt"] | float) -> DenseSystem:
        """The dense recurrence with step `dt` (...), which broadcasts over the batch axes.

        Raises:
            ValueError: the system is discrete already.
        """
        check_continuous(self.discrete)
        return self.to_dense().discretize(rule, dt)

    def bilinear(self, dt: Shaped[Tensor, "*dt"] | float) -> "DPLRSystem":
        """The recurrence of the bilinear rule with step `dt` (...), which is DPLR again.

        With R = (I - A dt/2)^-1 and S = I + Q* R P dt/2, from Woodbury's identity:

            A_bar = R (I + A dt/2)       P_bar = R P dt/2       Q_bar* = 2 S^-1 Q* R
            B_bar = (I - P_bar S^-1 Q*) R B dt

        Raises:
            ValueError: the system is discrete already.
        """
        check_continuous(self.discrete)
        dtype = torch.promote_types(self.A.dtype, self.P.dtype)
        A, P, Q, B = (widen(x.to(dtype)) for x in (self.A, self.P, self.Q, self.B))
        half = widen(as_tensor(dt, self.A))[..., None] / 2
        R = 1 / (1 - half * A)
        P_bar, drive = (half * R)[..., None] * P, (2 * half * R)[..., None] * B

        def read(x: Tensor) -> Tensor:
            return 2 * (Q.mH @ x).real if self.conjugate else Q.mH @ x

        eye = torch.eye(P.shape[-1], dtype=half.dtype, device=A.device)
        inverse = torch.linalg.inv(eye + read(P_bar))  # r by r, and r is 1 or 2
        Q_bar = 2 * (Q * R.conj()[..., None]) @ inverse.mH.to(A.dtype)
        B_bar = drive - P_bar @ (inverse @ read(drive)).to(A.dtype)
        A_bar = R * (1 + half * A)
        A_bar, P_bar, Q_bar, B_bar = (x.to(dtype) for x in (A_bar, P_bar, Q_bar, B_bar))
        return replace(self, A=A_bar, P=P_bar, Q=Q_bar, B=B_bar, discrete=True)

    def impulse_response(self, length: int) -> Shaped[Tensor, "*batch t o i"]:
        """C A^l B for l = 0 .. length - 1, with D added at lag 0, through the dense form.

        Raises:
            ValueError: the system is continuous.
        """
        check_discrete(self.discrete, "impulse_response")
        return self.to_dense().impulse_response(length)

    def state_response(
        self, h0: Shaped[Tensor, "*batchH n"], length: int
    ) -> Shaped[Tensor, "*batch t o"]:
        """The contribution of an earlier state to the output: C A^{l+1} h0, l = 0 .. length - 1.

        `h0` is a stored state: the half spectrum when `conjugate`.

        Raises:
            ValueError: the system is continuous.
        """
        check_discrete(self.discrete, "state_response")
        if self.conjugate:
            h0 = real_columns(h0.unsqueeze(-1)).squeeze(-1)
        return self.to_dense().state_response(h0, length)

    def frequency_response(self, w: Shaped[Tensor, " f"]) -> Complex[Tensor, "*batch f o i"]:
        """The factor by which exp(i w t) passes from input to output, by Woodbury's identity.

        Args:
            w (f): angular frequency, in radians per unit of time, or per sample when discrete.
        """
        s = points(w, self.discrete)[:, None]
        A, B, C = complex_of(self.A), complex_of(self.B), complex_of(self.C)
        P, Q = complex_of(self.P), complex_of(self.Q)
        if self.conjugate:
            A, C = torch.cat([A, A.conj()], dim=-1), torch.cat([C, C.conj()], dim=-1)
            B, P, Q = (torch.cat([x, x.conj()], dim=-2) for x in (B, P, Q))
        x = (1 / (s - A.unsqueeze(-2))).unsqueeze(-1)  # f n 1
        B, P, Q, C = (m.unsqueeze(-3) for m in (B, P, Q, C))
        eye = torch.eye(P.shape[-1], dtype=A.dtype, device=A.device)
        solved = torch.linalg.solve(eye + Q.mH @ (x * P), Q.mH @ (x * B))
        response = C @ (x * B) - C @ (x * P) @ solved
        if self.discrete:
            response = s[..., None] * response
        return response + self.D.unsqueeze(-3)


def _matmul(a: Tensor, b: Tensor) -> Tensor:
    dtype = torch.promote_types(a.dtype, b.dtype)
    return a.to(dtype) @ b.to(dtype)
