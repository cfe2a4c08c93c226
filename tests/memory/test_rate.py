import math

import pytest
import torch

from longstate.errors import InputError
from longstate.memory import blahut_arimoto, gaussian_rd


def entropy(p):
    return -p * math.log2(p) - (1 - p) * math.log2(1 - p)


@pytest.mark.parametrize("distortion", [0.01, 0.3, 0.9, 2.0, 5.0])
def test_reverse_water_filling_known_values(distortion):
    v = torch.tensor([4.0, 1.0, 0.25, 0.0])
    r = gaussian_rd(v, distortion)
    torch.testing.assert_close(float(r.distortion.sum()), distortion)
    level = torch.full((4,), r.water).double().minimum(v.double())
    torch.testing.assert_close(r.distortion, level)
    expected = sum(0.5 * math.log2(x / r.water) for x in v.tolist() if x > r.water)
    torch.testing.assert_close(r.bits, expected)


def test_one_gaussian():
    assert gaussian_rd(torch.tensor([2.0]), 0.5).bits == 1


def test_an_error_as_large_as_the_source_needs_nothing():
    r = gaussian_rd(torch.tensor([2.0, 1.0]), 7.0)
    assert r.bits == 0
    torch.testing.assert_close(r.distortion, torch.tensor([2.0, 1.0]).double())
    assert gaussian_rd(torch.zeros(2), 1.0).bits == 0


@pytest.mark.parametrize("slope", [0.5, 2.0, 6.0])
@pytest.mark.parametrize("letters", [2, 16])
def test_equal_letters_under_hamming_distortion(letters, slope):
    """log2 V - h(D) - D log2(V - 1)."""
    p = torch.full((letters,), 1 / letters)
    r = blahut_arimoto(p, 1 - torch.eye(letters), slope)
    closed = math.log2(letters) - entropy(r.distortion) - r.distortion * math.log2(letters - 1)
    assert abs(r.bits - closed) < 1e-6
    assert r.kind == "exact"


def test_biased_coin_known_rate():
    r = blahut_arimoto(torch.tensor([0.2, 0.8]), 1 - torch.eye(2), 3.0)
    assert abs(r.bits - (entropy(0.2) - entropy(r.distortion))) < 1e-6


def test_a_result_that_did_not_converge_is_marked():
    """A discretised Gaussian: near 1/2 log2(1 / D), and no further off than its gap."""
    x = torch.linspace(-5, 5, 101).double()
    p = torch.exp(-x * x / 2)
    r = blahut_arimoto(p / p.sum(), (x[:, None] - x) ** 2, 2.0, steps=300)
    assert r.kind == "upper_bound"
    assert 0 < r.gap < 1e-2
    assert abs(r.bits - 0.5 * math.log2(1 / r.distortion)) < r.gap + 1e-3


def test_refuses():
    for variance, d in (([], 1.0), ([-1.0], 1.0), ([float("nan")], 1.0), ([1.0], 0.0)):
        with pytest.raises(InputError):
            gaussian_rd(torch.tensor(variance), d)
    for p, slope in (([0.5, 0.6], 1.0), ([1.0], 1.0), ([0.5, 0.5], 0.0)):
        with pytest.raises(InputError):
            blahut_arimoto(torch.tensor(p), 1 - torch.eye(2), slope)


def test_a_budget_just_below_the_whole_variance():
    """Sums in another order differ by rounding, and there must still be a level."""
    v = torch.rand(1000, generator=torch.Generator().manual_seed(0)).double() + 1e-3
    for i in range(40):
        found = gaussian_rd(v, float(v.sum()) * (1 - i * 2.0**-53))
        assert 0 <= found.bits < 1e-9
