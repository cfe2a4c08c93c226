import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate.train._smoothing import Smoothings


def smoothed(y, constants, horizon, season):
    """The recursion of the docstring, on numbers."""
    first, second = y[:season].mean(), y[season : 2 * season].mean()
    trend = (second - first) / season
    middle = np.arange(season) - (season - 1) / 2
    seasons = (y[:season] - first + y[season : 2 * season] - second) / 2 - middle * trend
    level = first + (season - 1) / 2 * trend
    trend = trend if constants.damping > 0 else 0.0
    for t in range(season, len(y)):
        expected = level + constants.damping * trend
        error = y[t] - expected - seasons[t % season]
        level = expected + constants.level * error
        trend = constants.damping * trend + constants.level * constants.trend * error
        seasons[t % season] += constants.season * error
    damping = np.cumsum(constants.damping ** np.arange(1, horizon + 1))
    return level + damping * trend + seasons[(len(y) + np.arange(horizon)) % season]


@pytest.mark.parametrize(("window", "season"), [(31, 7), (14, 7), (30, 12)])
def test_weights_are_the_recursion(window, season):
    y = np.random.default_rng(0).standard_normal(window)
    found = Smoothings(window, 9, season)
    for i in range(0, len(found.settings), 7):
        expected = smoothed(y, found.settings[i], 9, season)
        assert_close(torch.from_numpy(y @ found.weights(i)), torch.from_numpy(expected))


def test_weights_add_up_to_one():
    for window, season in ((30, 7), (5, 7), (1, 1)):
        found = Smoothings(window, 4, season)
        for i in range(len(found.settings)):
            assert_close(torch.from_numpy(found.weights(i).sum(0)), torch.ones(4).double())


def test_a_short_window_has_no_season():
    assert Smoothings(13, 4, 7).season == 1
    assert Smoothings(14, 4, 7).season == 7
