"""Transforms of the targets against numpy, and back."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate.models._scale import Scale


def data(seed=0):
    draw = np.random.default_rng(seed)
    return torch.from_numpy(draw.gamma(2.0, 3.0, (500, 2)))


@pytest.mark.parametrize("transform", ["none", "log1p", "box-cox"])
@pytest.mark.parametrize("lower", [None, 0.0, -5.0])
def test_the_inverse_transform_restores_values(transform, lower):
    x, scale = data(), Scale(2, transform)
    if transform == "none":
        scale.set(x.mean(0), x.std(0, correction=0))
    else:
        scale.fit(x, lower)
    z = scale(x)
    assert_close(scale.inverse(z.double()).float(), x.float())
    assert_close(scale.unit, x.std(0, correction=0))


def test_log1p_is_that_of_numpy_from_the_bound_on():
    x, scale = data(), Scale(2, "log1p")
    scale.fit(x, -5.0)
    expected = np.log1p(x.numpy() + 5.0)
    expected = (expected - expected.mean(0)) / expected.std(0)
    assert_close(scale(x), torch.from_numpy(expected).float())


def likelihood(x, power):
    """Of Box and Cox (1964), equation 8."""
    f = np.log(x) if power == 0 else (x**power - 1) / power
    return -len(x) / 2 * np.log(f.var()) + (power - 1) * np.log(x).sum()


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_power_is_the_one_that_makes_the_data_normal(power):
    normal = 10 + np.random.default_rng(0).standard_normal((4000, 1))
    x = np.exp(normal / 4) if power == 0 else (power * normal + 1) ** (1 / power)
    scale = Scale(1, "box-cox")
    scale.fit(torch.from_numpy(x))
    powers = {p: likelihood(x, p) for p in np.arange(11) / 10}
    assert_close(float(scale.power), float(max(powers, key=powers.__getitem__)))


def test_values_below_the_bound_stay_finite():
    scale = Scale(2, "log1p")
    scale.fit(data(), 0.0)
    assert torch.isfinite(scale(torch.full((1, 2), -50.0, dtype=torch.float64))).all()


def test_a_column_that_varies_by_rounding_alone_is_constant():
    x = torch.full((1000, 1), 0.1, dtype=torch.float64)
    x[::3] += 2.0**-56
    scale = Scale(1)
    scale.fit(x)
    assert scale.std.item() == 1


def test_positive_data_are_not_moved_before_their_power_is_found():
    """Log-normal and all below 1: the logarithm itself makes them normal."""
    g = torch.Generator().manual_seed(0)
    x = (0.5 * torch.randn(2000, 1, dtype=torch.float64, generator=g) - 3).exp()
    assert 0 < x.min() < x.max() < 1
    scale = Scale(1, "box-cox")
    scale.fit(x)
    assert (scale.shift.item(), scale.power.item()) == (0, 0)
    assert_close(scale(x), ((x.log() - x.log().mean()) / x.log().std(correction=0)).float())


@pytest.mark.parametrize("unit", [1e-12, 1e-3, 1e12])
def test_box_cox_does_not_depend_on_the_unit(unit):
    """Scaled values of positive data are the same in metres and in millimetres."""
    x = data().clamp_min(0.1)
    one, other = Scale(2, "box-cox"), Scale(2, "box-cox")
    one.fit(x)
    other.fit(x * unit)
    assert_close(other(x * unit), one(x))
