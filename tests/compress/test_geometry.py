"""The penalty by distance: its factors from a loop over pairs, and its control."""

import math

import pytest
import torch
from torch.testing import assert_close

from longstate.compress import GeometricPenalty
from longstate.errors import InputError

PROFILES = ["squared", "gaussians", "gaussian", "ripple", "uniform"]
N = 23


def by_pairs(manifold: str, profile: str, dimensions: int, seed: int) -> torch.Tensor:
    """The factors, one pair after the other."""
    draw = torch.Generator().manual_seed(seed)
    if manifold == "torus":
        p = (10 * torch.rand(N, dimensions, generator=draw, dtype=torch.float64)).tolist()
    else:
        drawn = torch.randn(N, dimensions + 1, generator=draw, dtype=torch.float64).tolist()
        p = [[x / math.hypot(*row) for x in row] for row in drawn]
    wide, narrow = (lambda d: math.exp(-(d**2) / 5)), (lambda d: math.exp(-4 * d**2))
    low, high = 0.0, 3.0
    for _ in range(60):  # the largest value, between thirds
        left, right = (2 * low + high) / 3, (low + 2 * high) / 3
        rises = wide(left) - narrow(left) < wide(right) - narrow(right)
        low, high = (left, high) if rises else (low, right)
    most = wide(low) - narrow(low)
    f = {
        "squared": lambda d: d * d,
        "gaussians": lambda d: 100 * (most - wide(d) + narrow(d)),
        "gaussian": lambda d: 100 * (1 - math.exp(-d * d / 3)),
        "ripple": lambda d: 50 + 50 * math.cos(2 * d),
        "uniform": lambda d: 1.0,
    }[profile]
    found = torch.zeros(N, N, dtype=torch.float64)
    for i in range(N):
        for j in range(N):
            if manifold == "torus":
                around = [min(abs(a - b), 10 - abs(a - b)) for a, b in zip(p[i], p[j], strict=True)]
                d = math.hypot(*around)
            else:
                cosine = sum(a * b for a, b in zip(p[i], p[j], strict=True))
                d = 5 * math.acos(max(-1.0, min(1.0, cosine))) if i != j else 0.0
            found[i, j] = f(d)
    return found / found.mean()


@pytest.mark.parametrize("manifold", ["torus", "sphere"])
@pytest.mark.parametrize("dimensions", [1, 2, 6])
@pytest.mark.parametrize("profile", PROFILES)
def test_factors_are_those_of_every_pair(manifold, dimensions, profile):
    found = GeometricPenalty(N, manifold, profile, dimensions=dimensions, seed=3).factors
    assert_close(found, by_pairs(manifold, profile, dimensions, 3))
    assert_close(found, found.T)
    assert found.min() >= 0
    assert_close(found.mean(), torch.ones((), dtype=torch.float64))


@pytest.mark.parametrize("profile", PROFILES)
def test_the_control_has_the_same_factors_elsewhere(profile):
    own, control = (GeometricPenalty(N, profile=profile, shuffled=s) for s in (False, True))
    assert torch.equal(own.factors.flatten().sort()[0], control.factors.flatten().sort()[0])
    assert torch.equal(own.factors, control.factors) == (profile == "uniform")
    again = GeometricPenalty(N, profile=profile, shuffled=True)
    assert torch.equal(again.factors, control.factors)
    other = GeometricPenalty(N, profile=profile, shuffled=True, seed=1)
    assert torch.equal(other.factors, control.factors) == (profile == "uniform")


def test_penalty_and_its_gradient():
    penalty = GeometricPenalty(N)
    weight = torch.randn(N, N, dtype=torch.float64)
    pairs = [(i, j) for i in range(N) for j in range(N)]
    expected = sum(float(penalty.factors[p]) * abs(float(weight[p])) for p in pairs) / N**2
    assert_close(float(penalty(weight)), expected)
    assert penalty(torch.zeros(N, N)) == 0
    weight.requires_grad_()
    penalty(weight).backward()
    assert torch.equal(weight.grad.sign(), weight.sign() * (penalty.factors > 0))
    assert torch.autograd.gradcheck(penalty, (torch.rand(N, N).double().requires_grad_(),))


def test_penalty_has_the_type_of_the_matrix():
    for dtype in (torch.float32, torch.bfloat16):
        assert GeometricPenalty(N)(torch.ones(N, N, dtype=dtype)).dtype == dtype


def test_uniform_is_a_plain_penalty():
    weight = torch.randn(N, N, dtype=torch.float64)
    assert_close(GeometricPenalty(N, profile="uniform")(weight), weight.abs().mean())


def test_neighbours_cost_less():
    """The factors of "squared" and of the Gaussians grow with the distance, but for the closest."""
    distance = GeometricPenalty(N, profile="squared").factors
    near = (distance > 0.05) & (distance < 0.3)
    for profile in ("gaussians", "gaussian"):
        factors = GeometricPenalty(N, profile=profile).factors
        assert factors[near].max() < factors[distance > 1].min()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"units": 1}, "units must be a whole number"),
        ({"units": 4, "manifold": "klein"}, "manifold must be one of torus, sphere; got 'klein'"),
        ({"units": 4, "profile": "dog"}, "profile must be one of squared"),
        ({"units": 4, "dimensions": 0}, "dimensions must be a whole number"),
    ],
)
def test_wrong_arguments(options, said):
    with pytest.raises(InputError, match=said):
        GeometricPenalty(**options)


def test_a_matrix_of_gates_is_refused():
    with pytest.raises(InputError, match=r"must be \(4, 4\); got \(12, 4\)"):
        GeometricPenalty(4)(torch.zeros(12, 4))
