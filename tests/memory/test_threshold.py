"""The threshold in simulation: kept, V falls; and no input drives the state beyond its limit."""

import math

import pytest
import torch

from longstate.errors import InputError
from longstate.layers import S4D, LinOSS
from longstate.memory import event_threshold
from longstate.memory._gramians import real_matrices
from longstate.systems import DenseSystem


def system(seed, n=6, inputs=2, radius=0.95):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(3, n, n, generator=g).double()
    A = A * (radius / torch.linalg.eigvals(A).abs().amax(-1))[:, None, None]
    B = torch.randn(3, n, inputs, generator=g).double()
    C = torch.randn(3, 1, n, generator=g).double()
    return DenseSystem(A, B, C, torch.zeros(3, 1, inputs).double(), discrete=True)


def worst(A, B, P, x, length):
    """The input of a length that raises V most, by following its gradient."""
    u = torch.nn.functional.normalize((B.mT @ P @ A @ x)[..., 0], dim=-1)[..., None]
    for _ in range(20):
        push = B.mT @ P @ (A @ x + B @ (length * u))
        u = torch.nn.functional.normalize(push[..., 0], dim=-1)[..., None]
    return length * u


@pytest.mark.parametrize("theta", [0.1, 0.5, 0.99])
@pytest.mark.parametrize("seed", range(4))
def test_below_the_threshold_the_state_shrinks(seed, theta):
    made = system(seed)
    found = event_threshold(made, theta)
    A, B, _ = real_matrices(made)
    P = found.P
    x = torch.randn(500, 3, 6, 1, generator=torch.Generator().manual_seed(seed)).double()
    length = found.ratio[:, None, None] * x.norm(dim=-2, keepdim=True)
    u = worst(A, B, P, x, length)
    before, y = (x.mT @ P @ x).flatten(1), A @ x + B @ u
    after = (y.mT @ P @ y).flatten(1)
    energy = x.square().sum((-2, -1))
    assert bool((after <= before - (1 - theta) * energy + 1e-9 * before).all())
    assert bool((after <= found.shrink * before * (1 + 1e-9)).all())


def test_the_limit_is_attained_by_one_number():
    """x <- a x + b u, V = x^2 / (1 - a^2): V falls by exactly (1 - theta) x^2 at the threshold."""
    a, b, theta = 0.9, 0.3, 0.4
    one = torch.ones(1, 1).double()
    found = event_threshold(DenseSystem(a * one, b * one, one, 0 * one, discrete=True), theta)
    p = 1 / (1 - a * a)
    u = float(found.ratio)
    after, allowed = p * (a + b * u) ** 2, p - (1 - theta)
    assert after <= allowed
    torch.testing.assert_close(after, allowed)


@pytest.mark.parametrize("seed", range(3))
def test_the_state_stays_within_its_limit(seed):
    made = system(seed)
    found = event_threshold(made)
    A, B, _ = real_matrices(made)
    x = torch.zeros(3, 6, 1).double()
    for _ in range(400):
        u = worst(A, B, found.P, x + 1e-9, torch.ones(3, 1, 1).double())
        x = A @ x + B @ u
        assert bool((x.norm(dim=(-2, -1)) <= found.limit).all())


def test_of_a_layer_and_what_it_refuses():
    found = event_threshold(S4D(4, d_state=8).system())
    assert found.ratio.shape == (4,)
    assert bool((found.shrink < 1).all())
    assert found.kind == "certified"
    assert math.isfinite(float(found.limit.max()))
    with pytest.raises(InputError, match="infinite"):
        event_threshold(LinOSS(4, variant="imex").system())
    with pytest.raises(InputError, match="theta"):
        event_threshold(system(0), 1.0)
