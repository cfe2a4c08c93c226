"""Estimators against Gaussian pairs with a known true value; and their caps."""

import math

import pytest
import torch

from longstate.errors import InputError
from longstate.memory import infonce, ksg


def pair(r, samples, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(samples, 1, generator=g).double()
    return x, r * x + math.sqrt(1 - r * r) * torch.randn(samples, 1, generator=g).double()


def truth(r):
    return -0.5 * math.log2(1 - r * r)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9, 0.99])
def test_the_neighbour_estimate_is_within_its_statistical_error(r):
    values = [ksg(*pair(r, 1000, seed)).bits for seed in range(8)]
    spread = torch.tensor(values)
    assert abs(float(spread.mean()) - truth(r)) < 3 * float(spread.std()) / math.sqrt(8) + 0.01
    found = ksg(*pair(r, 1000))
    assert found.kind == "estimate"
    assert found.bits < found.cap
    assert f"{found.cap:.2f}" in found.sentence


def test_from_few_samples_a_copy_is_not_infinite():
    x, _ = pair(0, 200)
    found = ksg(x, x)
    assert found.bits == pytest.approx(found.cap)


def scores(r, k, batches, seed=0):
    """The best critic: log p(y | x) / p(y)."""
    x, y = (v.reshape(batches, k) for v in pair(r, k * batches, seed))
    off = (y[:, None] - r * x[:, :, None]).square() / (1 - r * r)
    return 0.5 * (y[:, None].square() - off)


@pytest.mark.parametrize("r", [0.0, 0.5, 0.9])
def test_contrast_is_a_lower_bound_and_nearly_tight(r):
    found = infonce(scores(r, 128, 100))
    assert found.bits <= truth(r) + 3 * found.error
    assert found.bits >= truth(r) - 0.1
    assert found.cap == 7.0
    assert found.kind == "lower_bound"


def test_an_estimate_near_its_cap_is_refused():
    """4.8 bits through batches of 8, which can show 3."""
    with pytest.raises(InputError, match="cap"):
        infonce(scores(0.9994, 8, 50))
    x = torch.eye(8).double()[None].expand(4, 8, 8) * 50
    with pytest.raises(InputError, match=r"log2 8 = 3\.00"):
        infonce(x)


def test_an_uninformative_critic_gives_no_information():
    assert infonce(torch.zeros(3, 16, 16)).bits == 0
    wrong = infonce(scores(0.9, 16, 20).flip(-1))
    assert wrong.bits < 0


def test_refuses():
    x, y = pair(0.5, 100)
    with pytest.raises(InputError, match="at most 3"):
        ksg(x.expand(-1, 2), y.expand(-1, 2))
    with pytest.raises(InputError, match="equal"):
        ksg(torch.zeros(50, 1), torch.zeros(50, 1))
    with pytest.raises(InputError, match="must be"):
        ksg(x, y[:50])
    with pytest.raises(InputError, match="neighbours"):
        ksg(x, y, neighbours=60)
    with pytest.raises(InputError, match="NaN"):
        ksg(x * float("nan"), y)
    with pytest.raises(InputError, match="must be"):
        infonce(torch.zeros(4, 4))
