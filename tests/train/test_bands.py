"""What is said of a band that holds too little or too much, and when chance explains it."""

from math import comb

import pytest

from longstate.train._bands import Band, binomial_range


@pytest.mark.parametrize(("share", "trials"), [(0.8, 7), (0.9, 10), (0.5, 63), (0.98, 300)])
def test_the_range_is_that_of_the_binomial_distribution(share, trials):
    """By exact sums: each tail has at most 2.5 %, and a tail with one value more has more."""
    chances = [comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(trials + 1)]
    low, high = (round(x * trials) for x in binomial_range(share, trials))
    assert sum(chances[:low]) <= 0.025 < sum(chances[: low + 1])
    assert sum(chances[high + 1 :]) <= 0.025 < sum(chances[high:])


def test_large_numbers_of_windows_are_close_to_a_normal_distribution():
    low, high = binomial_range(0.8, 100_000)
    assert abs((high - low) / (2 * 1.96 * (0.16 / 100_000) ** 0.5) - 1) < 0.01
    assert binomial_range(0.8, 0) == binomial_range(0.8, 1) == (0.0, 1.0)


def test_a_band_beyond_chance_is_too_narrow_or_too_wide():
    found = Band(0.9, 0.76, 0.5, 100.0)
    assert found.is_wrong
    assert found.sentence() == (
        "The 90 % bands are too narrow: they held 76 % of the true values; on windows that are "
        "worth 100 independent ones chance explains only shares between 84 % and 95 %."
    )
    assert "too wide: they held 99 %" in (Band(0.9, 0.99, 0.5, 1000.0).sentence() or "")


def test_a_band_within_chance_has_a_remark_without_a_verdict():
    found = Band(0.9, 0.76, 0.5, 10.0)
    assert not found.is_wrong
    assert found.sentence() == (
        "The 90 % bands held 76 % of the true values; on windows that are worth 10 independent "
        "ones chance explains every share between 70 % and 100 %, so that they may still be right."
    )


def test_a_band_that_is_near_has_no_remark():
    """Even where very many windows make a small distance sure."""
    near = Band(0.9, 0.87, 0.5, 1e6)
    assert near.sentence() is None
    assert not near.is_wrong
    assert Band(0.9, 0.85, 0.5, 1e6).is_wrong


def test_bands_of_older_evaluations_have_no_range():
    old = Band(0.8, 0.71, 0.5)
    assert old.chance is None
    assert old.is_wrong
    assert old.sentence() == "The 80 % bands are too narrow: they held 71 % of the true values."
