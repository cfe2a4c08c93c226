"""A linear system with a full state matrix.

    continuous   x'(t) = A x(t) + B u(t)           y(t) = C x(t) + D u(t)
    discrete     x_k   = A x_{k-1} + B u_k         y_k  = C x_k + D u_k        x_{-1} = 0

The discrete state contains the current input, as in S4: the impulse response is C A^l B, plus D at
lag 0. (Many textbooks write x_{k+1} = A x_k + B u_k; their response comes one step later.)

Axes: n state, i inputs, o outputs, f frequencies, any leading batch axes.
"""

from dataclasses import dataclass, field

import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

from longstate.systems._discretize import Discretization
from longstate.systems._numbers import as_tensor
from longstate.systems._powers import dense_powers
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
class DenseSystem:
    """x' = A x + B u, y = C x + D u, or the same with x_k in place of x'.

    Args:
        A (..., n, n): state matrix, real or complex.
        B (..., n, i): input matrix.
        C (..., o, n): output matrix.
        D (..., o, i): feed-through.
        discrete: the recurrence rather than the differential equation.

    Raises:
        ValueError: the shapes do not fit each other.
    """

    A: Shaped[Tensor, "*batchA n n"]
    B: Shaped[Tensor, "*batchB n i"]
    C: Shaped[Tensor, "*batchC o n"]
    D: Shaped[Tensor, "*batchD o i"]
    discrete: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        square = self.A.dim() >= 2 and self.A.shape[-1] == self.A.shape[-2]
        expect(square, f"A must be (..., n, n); got {tuple(self.A.shape)}")
        check_io(self.A.shape[:-2], self.A.shape[-1], self.B, self.C, self.D)

    @property
    def d_state(self) -> int:
        """Numbers in the state."""
        return self.A.shape[-1]

    def to_dense(self) -> "DenseSystem":
        """Itself."""
        return self

    def discretize(self, rule: Discretization, dt: Shaped[Tensor, "*dt"] | float) -> "DenseSystem":
        """The recurrence with step `dt` (...), which broadcasts over the batch axes.

        Raises:
            ValueError: the system is discrete already.
        """
        check_continuous(self.discrete)
        A_bar, B_bar = rule.dense(self.A, self.B, as_tensor(dt, self.A))
        return DenseSystem(A_bar, B_bar, self.C, self.D, discrete=True)

    def impulse_response(self, length: int) -> Shaped[Tensor, "*batch t o i"]:
        """C A^l B for l = 0 .. length - 1, with D added at lag 0.

        Raises:
            ValueError: the system is continuous.
        """
        check_discrete(self.discrete, "impulse_response")
        check_length(length)
        return feed_through(dense_powers(self.A, self.B, self.C, length), self.D)

    def state_response(
        self, h0: Shaped[Tensor, "*batchH n"], length: int
    ) -> Shaped[Tensor, "*batch t o"]:
        """The contribution of an earlier state to the output: C A^{l+1} h0, l = 0 .. length - 1.

        Raises:
            ValueError: the system is continuous.
        """
        check_discrete(self.discrete, "state_response")
        check_length(length)
        h1 = self.A @ h0.to(torch.promote_types(self.A.dtype, h0.dtype)).unsqueeze(-1)
        return dense_powers(self.A, h1, self.C, length).squeeze(-1)

    def frequency_response(self, w: Shaped[Tensor, " f"]) -> Complex[Tensor, "*batch f o i"]:
        """The factor by which exp(i w t) passes from input to output.

        Args:
            w (f): angular frequency, in radians per unit of time, or per sample when discrete.
        """
        s = points(w, self.discrete)[:, None, None]
        A, B = complex_of(self.A).unsqueeze(-3), complex_of(self.B).unsqueeze(-3)
        eye = torch.eye(self.d_state, dtype=A.dtype, device=A.device)
        x = torch.linalg.solve(s * eye - A, B)
        x = s * x if self.discrete else x
        return complex_of(self.C).unsqueeze(-3) @ x + self.D.unsqueeze(-3)
