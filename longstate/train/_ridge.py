"""Ridge regression whose penalty is chosen by the error of leaving one case out.

    minimise  sum_i w_i |y_i - b - W x_i|^2 + penalty |W|^2

The intercept b is not penalised. The prediction of a case by a fit to all others follows from one
fit: y_i - (y_i - fitted_i) / (1 - h_i), where h is the diagonal of the map from y to the fit.

Axes: n cases, p features, k outputs, r the rank.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

PENALTIES = tuple(10.0**k for k in range(-4, 6))


class Ridge(NamedTuple):
    """weight (p, k), intercept (k); left_out (n, k): each case predicted by a fit to all others."""

    weight: Float[Tensor, "p k"]
    intercept: Float[Tensor, " k"]
    left_out: Float[Tensor, "n k"]
    penalty: float


def ridge(
    x: Float[Tensor, "n p"], y: Float[Tensor, "n k"], weight: Float[Tensor, " n"] | None = None
) -> Ridge:
    """Fit, with the penalty of `PENALTIES` times n that has the least weighted squared error.

    Args:
        x, y: features and outputs.
        weight (n): of the cases, above 0; None: 1.
    """
    x, y = x.double(), y.double()
    w = torch.ones(len(x), dtype=x.dtype) if weight is None else weight.double()
    w = w * len(w) / w.sum()
    root = w.sqrt()[:, None]
    mean_x, mean_y = (w[:, None] * x).mean(0), (w[:, None] * y).mean(0)
    a, b = root * (x - mean_x), root * (y - mean_y)
    u, s = _left(a)
    into = u.T @ b
    best: tuple[float, float, Tensor] | None = None
    for penalty in PENALTIES:
        share = s**2 / (s**2 + penalty * len(x))
        h = w / len(w) + (u**2) @ share
        # a case that alone decides its prediction has none without it
        error = (b - u @ (share[:, None] * into)) / (1 - h).clamp_min(1e-9)[:, None]
        loss = float((error**2).mean())
        if best is None or loss < best[0]:
            best = (loss, penalty, error)
    assert best is not None
    _, penalty, error = best
    solved = a.T @ (u @ (into / (s**2 + penalty * len(x))[:, None]))
    return Ridge(solved, mean_y - mean_x @ solved, y - error / root, penalty)


def _left(a: Float[Tensor, "n p"]) -> tuple[Float[Tensor, "n r"], Float[Tensor, " r"]]:
    """Left singular vectors and singular values above rounding, from the smaller Gram matrix."""
    wide = a.shape[0] <= a.shape[1]
    values, vectors = torch.linalg.eigh(a @ a.T if wide else a.T @ a)
    kept = values > values[-1].clamp_min(1e-300) * 1e-12
    s = values[kept].sqrt()
    return (vectors[:, kept] if wide else a @ vectors[:, kept] / s), s
