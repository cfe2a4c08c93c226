"""A penalty on a recurrent matrix by the distance of its units, so that pruning leaves few and near
connections.

    penalty(W) = mean_ij f(d(p_i, p_j)) |W_ij|

Unit i has a fixed random place p_i on a torus or a sphere, and d is the distance there. The same
factors f in random order are the control: what it does as well is not due to the geometry.

"Geometric sparsification in recurrent neural networks", arXiv:2406.06290. Differs from the paper:
factors are divided by their mean, so that a strength means the same for all of them and for a plain
L1 penalty, profile "uniform"; places are not learned; the Gaussian profile is inverted as the
difference of Gaussians is, so that near units are connected.

Axes: n units, k coordinates of a place.
"""

import math
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from longstate.errors import InputError, expect, expect_whole

Manifold = Literal["torus", "sphere"]
Profile = Literal["squared", "gaussians", "gaussian", "ripple", "uniform"]
_SIDE, _RADIUS = 10.0, 5.0  # of the torus and of the sphere


class GeometricPenalty:
    """The penalty, a function of a matrix.

        penalty = GeometricPenalty(layer.d_state)
        loss = task_loss + 0.1 * penalty(layer.recurrent.weight)

    A diagonal state space layer has no such matrix. `torch.nn.utils.prune` removes small weights.

    Args:
        units: n.
        manifold: "torus" or "sphere".
        profile: f: "squared" distance; "gaussians", the largest value of a wide less a narrow
            Gaussian, minus that; "gaussian", the same of one; "ripple", a cosine; "uniform", which
            is a plain L1 penalty.
        dimensions: of the manifold; a sphere of one is a circle.
        shuffled: give the factors to random pairs of units, as a control.
        seed: of the places and of the order.

    Attributes:
        factors (n, n): f(d) over its mean, as a tensor on the CPU.

    Raises:
        InputError: an argument is out of its range.
    """

    def __init__(
        self,
        units: int,
        manifold: Manifold = "torus",
        profile: Profile = "gaussians",
        *,
        dimensions: int = 2,
        shuffled: bool = False,
        seed: int = 0,
    ):
        expect_whole("units", units, 2)
        expect_whole("dimensions", dimensions)
        for name, value, kinds in (
            ("manifold", manifold, get_args(Manifold)),
            ("profile", profile, get_args(Profile)),
        ):
            expect(value in kinds, f"{name} must be one of {', '.join(kinds)}; got {value!r}")
        draw = torch.Generator().manual_seed(seed)
        distance = _on_torus if manifold == "torus" else _on_sphere
        factors = _profile(profile, distance(units, dimensions, draw))
        factors = factors / factors.mean()
        if shuffled:
            order = torch.randperm(units * units, generator=draw)
            factors = factors.flatten()[order].view(units, units)
        self.factors: Float[Tensor, "n n"] = factors

    def __call__(self, weight: Float[Tensor, "n n"]) -> Tensor:
        """The penalty of this matrix, a number with gradients.

        Raises:
            InputError: the matrix has another shape.
        """
        if weight.shape != self.factors.shape:
            n = len(self.factors)
            raise InputError(
                f"the matrix must be ({n}, {n}); got {tuple(weight.shape)}. The gates of a cell "
                "have one each: split them along the first axis"
            )
        return (self.factors.to(weight) * weight.abs()).mean()


def _on_torus(n: int, k: int, draw: torch.Generator) -> Float[Tensor, "n n"]:
    """Distances of random places on a torus, along the shorter way around."""
    places = _SIDE * torch.rand(n, k, generator=draw, dtype=torch.float64)
    apart = (places[:, None] - places).abs()
    return torch.minimum(apart, _SIDE - apart).square().sum(-1).sqrt()


def _on_sphere(n: int, k: int, draw: torch.Generator) -> Float[Tensor, "n n"]:
    """Distances of random places on a sphere, along it."""
    normal = torch.randn(n, k + 1, generator=draw, dtype=torch.float64)
    places = normal / normal.norm(dim=1, keepdim=True)
    chord = (places[:, None] - places).norm(dim=-1)  # arccos would round near 0
    return 2 * _RADIUS * (chord / 2).clamp(max=1).asin()


def _profile(profile: Profile, d: Float[Tensor, "n n"]) -> Float[Tensor, "n n"]:
    """f(d), at least 0."""
    if profile == "squared":
        return d**2
    if profile == "ripple":
        return 50 + 50 * torch.cos(2 * d)
    if profile == "uniform":
        return torch.ones_like(d)
    if profile == "gaussian":
        return 100 - 100 * torch.exp(-(d**2) / 3)
    near = torch.exp(-(d**2) / 5) - torch.exp(-4 * d**2)
    # its largest value, where the derivative is zero: d^2 = log(20) / (4 - 1/5)
    place = math.log(20) / 3.8
    most = math.exp(-place / 5) - math.exp(-4 * place)
    return 100 * (most - near).clamp_min(0)
