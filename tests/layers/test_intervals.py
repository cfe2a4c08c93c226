"""`dt` from time stamps, against a loop."""

import math

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import S5, intervals


def by_loop(times, unit, mask, reset, before):
    found = torch.zeros(times.shape, dtype=torch.float64)
    for row in range(len(times)):
        last = None if before is None else float(before[row])
        for t in range(times.shape[1]):
            if reset is not None and reset[row, t]:
                last = None
            if mask is not None and not mask[row, t]:
                continue
            now = float(times[row, t])
            found[row, t] = 1 if last is None else (now - last) / unit
            last = now
    return found


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("carried", [False, True])
def test_it_is_the_time_since_the_previous_sample(masked, packed, carried):
    torch.manual_seed(0)
    times = torch.rand(4, 13, dtype=torch.float64).cumsum(1) + 100
    mask = torch.rand(4, 13) < 0.6 if masked else None
    reset = torch.rand(4, 13) < 0.3 if packed else None
    before = times[:, 0] - 2.5 if carried else None
    if masked:
        mask[3], times[~mask] = False, math.nan
    found = intervals(times, unit=0.5, mask=mask, reset=reset, before=before)
    assert_close(found, by_loop(times, 0.5, mask, reset, before))


def test_a_masked_sample_leaves_its_time_to_the_next():
    """So that a layer is at the same time whether the sample is masked or left out."""
    torch.manual_seed(0)
    layer, u = S5(3, d_state=4).double(), torch.randn(1, 6, 3).double()
    times = torch.rand(1, 6, dtype=torch.float64).cumsum(1)
    mask = torch.tensor([[True, True, False, False, True, True]])
    y, state = layer(u, dt=intervals(times, mask=mask), mask=mask)
    kept = mask[0]
    alone = layer(u[:, kept], dt=intervals(times[:, kept]))
    assert_close((y[:, kept], state), alone)


def test_whole_seconds_since_1970_are_exact():
    times = 1_764_000_000 + torch.tensor([[0, 1, 7]])
    assert intervals(times).tolist() == [[1.0, 1.0, 6.0]]
    assert intervals(times, unit=0.5).tolist() == [[1.0, 2.0, 12.0]]


@pytest.mark.parametrize("bad", [0.5, math.nan, math.inf])
def test_wrong_stamps_are_named(bad):
    times = torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.0, bad]])
    with pytest.raises(ValueError, match=rf"row 1 has {bad} at sample 2 behind 1\.0"):
        intervals(times)


def test_a_wrong_unit_is_named():
    with pytest.raises(ValueError, match=r"unit must be a finite number above 0; got 0\.0"):
        intervals(torch.zeros(1, 2), unit=0.0)
