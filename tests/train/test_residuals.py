"""Autocorrelation of the errors one step ahead."""

from types import SimpleNamespace

import numpy as np
import pytest
from torch.testing import assert_close

from longstate.train._residuals import FEWEST, LARGE, Autocorrelation, autocorrelation


def windows(origins, series=None):
    """As much of `Windows` as is read."""
    of = np.zeros(max(origins) + 1, int) if series is None else np.asarray(series)
    places = SimpleNamespace(of=lambda rows: of[rows])
    spec = SimpleNamespace(targets=("y",))
    return SimpleNamespace(origins=np.asarray(origins), places=places, spec=spec)


def moving(n=600, weight=0.6, seed=0):
    """Autocorrelated errors: r_k = weight ** k."""
    z = np.random.default_rng(seed).standard_normal(n)
    for i in range(1, n):
        z[i] += weight * z[i - 1]
    return z[:, None]


def test_it_is_the_correlation_with_later_errors():
    z = moving()
    (found,) = autocorrelation(z, windows(range(100, 700)), season=24)
    assert (found.target, len(found.values)) == ("y", 24)
    y = z[:, 0] - z.mean()
    for k in (1, 5, 24):
        assert_close(found.values[k - 1], float((y[:-k] * y[k:]).mean() / (y**2).mean()))
        assert_close(found.bounds[k - 1], 1.96 / (600 - k) ** 0.5)
    assert found.largest == 1
    assert found.remains
    assert "The errors are not white noise" in found.sentence()


def test_white_noise_is_white():
    noise = np.random.default_rng(1).standard_normal((4000, 1))
    (found,) = autocorrelation(noise, windows(range(4000)), season=24)
    assert len(found.outside) <= 4
    assert not found.remains
    assert "This is like white noise" in found.sentence()


def test_gaps_are_left_out():
    z = moving()
    kept = np.delete(np.arange(600), np.arange(50, 600, 7))
    holed = z.copy()
    holed[np.setdiff1d(np.arange(600), kept)] = np.nan
    whole = autocorrelation(holed, windows(range(600)), season=10)
    assert autocorrelation(z[kept], windows(kept), season=10) == whole
    assert abs(whole[0].values[0] - 0.6) < 0.1


def test_pairs_are_of_one_series():
    """Errors of two series, each constant with the other sign: across the border they differ."""
    z = np.repeat([1.0, -1.0], 100)[:, None]
    (found,) = autocorrelation(z, windows(range(200), [0] * 100 + [1] * 100), season=10)
    assert_close(found.values, (1.0,) * 10)
    (mixed,) = autocorrelation(z, windows(range(200)), season=10)
    assert mixed.values[9] < 0.91


@pytest.mark.parametrize("errors", [np.full((99, 1), np.nan), np.zeros((99, 1)), moving(FEWEST)])
def test_too_little_tells_nothing(errors):
    assert autocorrelation(errors, windows(range(len(errors))), season=12) == ()


def test_a_small_autocorrelation_is_not_worth_a_change():
    values = (0.9 * LARGE,) * 20
    sure = Autocorrelation("y", values, (0.01,) * 20)
    assert len(sure.outside) == 20
    assert not sure.remains
    assert sure.sentence().endswith("explains only 3.2 % of their variance.")
    assert Autocorrelation("y", (1.1 * LARGE, *values[1:]), (0.01,) * 20).remains
    one = Autocorrelation("y", (0.5, *(0.0,) * 19), (0.1,) * 20)  # one of twenty is by chance
    assert not one.remains
    assert one.sentence().startswith("y: 1 of 20 lags is outside the bound")
