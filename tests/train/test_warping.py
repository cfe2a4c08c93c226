"""Random warps of the training series."""

import math

import numpy as np
import pytest
import torch

from longstate import Classifier
from longstate.errors import InputError
from longstate.train._cases import Cases, read_cases
from longstate.train._series_network import make_network
from longstate.train._series_task import SeriesTask
from longstate.train._warping import WAVES, warped

LENGTHS = torch.tensor([400, 250, 1])
MOST = 1.5 + sum(1 / (2 * math.pi * k) for k in range(1, WAVES + 1))  # of d


def ramps() -> Cases:
    """Two channels, t and 2 t, so that a value tells where it was read."""
    t = torch.arange(400.0, dtype=torch.float64)
    values = torch.stack([t, 2 * t], -1).repeat(3, 1, 1)
    values[torch.arange(400) >= LENGTHS[:, None]] = torch.nan
    return Cases(values, LENGTHS)


def test_every_series_is_read_at_other_times_that_stay_in_order():
    torch.manual_seed(0)
    drawn = torch.stack([warped(ramps(), 0.02).values for _ in range(50)])
    at = drawn[..., 0]
    torch.testing.assert_close(drawn[..., 1], 2 * at, equal_nan=True)
    for i, n in enumerate(LENGTHS.tolist()):
        moved = at[:, i, :n] - torch.arange(n)
        assert moved.abs().max() <= 0.02 * n * MOST
        assert (at[:, i, :n].diff() >= 0).all()
        assert at[:, i, n:].isnan().all()
        assert not at[:, i, :n].isnan().any()
    first, second = (at[:, i, 100:150] - torch.arange(100, 150) for i in (0, 1))
    assert first.mean(1).std() > 0.005 * 400  # a shift,
    assert 0.002 < (first[:, -1] - first[:, 0]).std() / 50 < 0.04  # another speed,
    assert abs(np.corrcoef(first.mean(1), second.mean(1))[0, 1]) < 0.5  # of each series its own


def test_values_lie_between_samples_and_missing_ones_stay_missing():
    torch.manual_seed(1)
    cases = ramps()
    cases.values[0, 100:110, 0] = torch.nan
    found = warped(cases, 0.02).values[0]
    at = found[:, 1] / 2
    missing = (at > 99) & (at < 110)
    assert missing.sum() > 5
    assert (found[:, 0].isnan() == missing).all()


def test_the_same_random_numbers_give_the_same_warp():
    torch.manual_seed(2)
    first = warped(ramps(), 0.1).values
    torch.manual_seed(2)
    torch.testing.assert_close(warped(ramps(), 0.1).values, first, rtol=0, atol=0, equal_nan=True)


def test_training_is_warped_and_validation_is_not():
    X = np.random.default_rng(0).standard_normal((8, 1, 200)).cumsum(2)
    cases, targets = read_cases(X), torch.arange(8) % 2
    network = make_network(cases, 2, ("s5",), 8, 0).eval()
    torch.nn.init.normal_(network.head.weight)
    tasks = [
        SeriesTask(
            network, cases, cases, (targets, targets), (torch.ones(8), torch.ones(8)),
            lambda y, k: torch.nn.functional.cross_entropy(y.movedim(-1, 1), k, reduction="none"),
            batch_size=8, warp=warp, seed=0,
        )
        for warp in (0.0, 0.1)
    ]  # fmt: skip
    plain, moved = tasks
    assert plain.validate() == moved.validate()
    losses = []
    for task in (plain, plain, moved):
        torch.manual_seed(0)
        losses.append(task.loss(np.arange(8)).item())
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("warp", [-0.1, 1.0, math.nan, "a little", None])
def test_a_warp_is_a_share(warp):
    with pytest.raises(InputError, match="warp must be a share of the length"):
        Classifier(epochs=1).fit(np.zeros((4, 10)), [0, 1, 0, 1], warp=warp)


def test_series_with_stamps_are_not_warped():
    X = np.stack(
        [np.random.default_rng(0).standard_normal((4, 10)), np.tile(np.arange(10), (4, 1))], 1
    )
    with pytest.raises(InputError, match=r"warp=0.02 cannot be used for series with stamps"):
        Classifier(epochs=1).fit(X, [0, 1, 0, 1], time_channel=1, warp=0.02)
