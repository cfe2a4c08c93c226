"""HiPPO-LegS as an online memory: n numbers that approximate the whole past of a signal.

    c'(t) = (A c(t) + B f(t)) / t               f(x) ~ sum_n c_n(t) sqrt(2n+1) L_n(2x/t - 1)

for x in [0, t], with L_n the Legendre polynomials. Sample by sample, k = 1, 2, ... (bilinear):

    c_k = (I - A/2k)^{-1} ((I + A/2k) c_{k-1} + B f_k / k)

The sampling interval cancels: a signal at twice the speed gives the same coefficients.

Gu, Dao, Ermon, Rudra, Re, "HiPPO: Recurrent Memory with Optimal Polynomial Projections", 2020,
arXiv:2008.07669, theorem 2. Differs from the paper: nothing. The S4 layers use the same matrices
without the 1/t, so that the weight of the past decays exponentially instead of being uniform.

Axes: t samples, n order, x points, any leading batch axes.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.systems._hippo import legs


@dataclass(frozen=True)
class LegSMemory:
    """Online approximation of a signal's past by a polynomial of degree below `order`.

    Args:
        order: number of coefficients, at least 1. Details shorter than about t / order are lost.

    Raises:
        ValueError: order is below 1.
    """

    order: int

    def __post_init__(self):
        if self.order < 1:
            raise ValueError(f"order must be at least 1; got {self.order}")

    def project(self, f: Float[Tensor, "*batch t"]) -> Float[Tensor, "*batch t n"]:
        """Coefficients after every sample; the last row is the memory of the whole signal.

        Raises:
            ValueError: there are no samples.
        """
        if f.dim() < 1 or f.shape[-1] < 1:
            raise ValueError(f"f must be (..., t) with t > 0; got shape {tuple(f.shape)}")
        A, B, _ = (x.to(f) for x in legs(self.order))
        eye = torch.eye(self.order, dtype=f.dtype, device=f.device)
        c, history = f.new_zeros(*f.shape[:-1], self.order, 1), []
        for k, sample in enumerate(f.unbind(-1), start=1):
            right = c + A @ c / (2 * k) + B[:, None] * sample[..., None, None] / k
            c = torch.linalg.solve_triangular(eye - A / (2 * k), right, upper=False)
            history.append(c.squeeze(-1))
        return torch.stack(history, dim=-2)

    def reconstruct(
        self, coefficients: Float[Tensor, "*batch n"], points: Float[Tensor, " x"]
    ) -> Float[Tensor, "*batch x"]:
        """Approximate values of the past.

        Args:
            coefficients (..., n): one row of `project`.
            points (x): times as fractions of the past: 0 is the beginning, 1 the last sample;
                sample k of t (counted from 1) is at k / t.

        Raises:
            ValueError: the number of coefficients is not `order`.
        """
        if coefficients.shape[-1] != self.order:
            raise ValueError(
                f"coefficients must be (..., {self.order}); got {tuple(coefficients.shape)}"
            )
        return coefficients @ self._basis(points.to(coefficients))

    def _basis(self, points: Tensor) -> Tensor:
        """sqrt(2n+1) L_n(2x - 1) (n, x), by the three-term recurrence."""
        x = 2 * points - 1
        rows = [torch.ones_like(x), x]
        for n in range(1, self.order - 1):
            rows.append(((2 * n + 1) * x * rows[n] - n * rows[n - 1]) / (n + 1))
        scale = torch.sqrt(2 * torch.arange(self.order, dtype=x.dtype, device=x.device) + 1)
        return torch.stack(rows[: self.order]) * scale[:, None]
