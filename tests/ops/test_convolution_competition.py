"""Competing filters: the definition by brute force, the kernel against the equations, ties."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longstate.ops.convolution_competition import Groups, convolution_competition
from longstate.ops.convolution_pooling import all_taps


def random_groups(c: int, dilations: list[int], k: int = 7) -> Groups:
    numbers = torch.cat([torch.randperm(84).view(-1, k) for _ in dilations])
    used = torch.rand(len(numbers), c) > 0.4
    used[:, 0] = True
    return Groups(numbers, torch.tensor(dilations).repeat_interleave(84 // k), used)


def by_hand(x: Tensor, lengths: Tensor, groups: Groups) -> Tensor:
    """The definition, in float64: PyTorch's own convolution, then time after time."""
    found = torch.zeros(len(x), *groups.filters.shape, 2, dtype=torch.float64)
    for i, length in enumerate(lengths.tolist()):
        for g, (numbers, dilation, channels) in enumerate(zip(*groups, strict=True)):
            total = x[i, channels, :length].double().sum(0)
            taps, d = all_taps()[numbers].double()[:, None], int(dilation)
            y = F.conv1d(total[None, None], taps, padding=4 * d, dilation=d)[0]
            for now in y.T.tolist():
                most, least = now.index(max(now)), now.index(min(now))
                found[i, g, most, 0] += now[most] / length
                found[i, g, least, 1] += 1 / length
    return found


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("k", [7, 3])
def test_both_are_the_definition_at_unequal_lengths(impl, k):
    """Lengths from below the filter to above a block of the kernel; three channels."""
    torch.manual_seed(0)
    lengths = torch.tensor([1100, 1, 5, 512, 63])
    x, groups = torch.randn(5, 3, 1100), random_groups(3, [1, 7, 130], k)
    exact = by_hand(x, lengths, groups)
    assert (exact[..., 0] < 0).any()  # the greatest answer of a group may be below 0
    found = convolution_competition(x, lengths, groups, impl=impl)
    assert found.shape == (5, 3 * 84 // k, k, 2)
    torch.testing.assert_close(found[..., 1].sum(2), torch.ones(5, 3 * 84 // k))
    plain = convolution_competition(x, lengths, groups, impl="reference")
    bound = 2 * (plain - exact).abs().max() + torch.finfo(torch.float32).eps
    assert bound < 1e-5
    assert (found - exact).abs().max() <= bound


def test_ties_are_of_the_first_filter_in_both():
    """Few different values, and constant series: most sums are equal, some but for rounding."""
    torch.manual_seed(0)
    x = torch.tensor([0.1, 0.7, 1e3 / 3])[torch.randint(3, (6, 2, 600))]
    x[0] = 0.1
    x[1] = 0
    lengths, groups = torch.tensor([600, 600, 600, 599, 20, 3]), random_groups(2, [1, 3, 50])
    fast = convolution_competition(x, lengths, groups, impl="cpu")
    plain = convolution_competition(x, lengths, groups, impl="reference")
    torch.testing.assert_close(fast[..., 1], plain[..., 1], rtol=0, atol=0)
    won = [(f != 0)[..., 0] for f in (fast[2:], plain[2:])]
    assert (won[0] == won[1]).all()
    first = torch.zeros(len(groups.filters), 7)
    first[:, 0] = 1
    torch.testing.assert_close(fast[1, ..., 1], first, rtol=0, atol=0)
    whole = torch.randint(-2, 3, (6, 2, 600)).float()  # without rounding
    torch.testing.assert_close(
        convolution_competition(whole, lengths, groups).double(), by_hand(whole, lengths, groups)
    )


def test_dilations_beyond_the_series_read_zeros():
    x, lengths, groups = torch.randn(2, 1, 40), torch.tensor([40, 11]), random_groups(1, [40])
    huge = groups._replace(dilation=groups.dilation * 10**9)
    torch.testing.assert_close(
        convolution_competition(x, lengths, huge),
        convolution_competition(x, lengths, groups),
        rtol=0,
        atol=0,
    )
    exact = by_hand(x, lengths, groups)
    torch.testing.assert_close(convolution_competition(x, lengths, groups), exact.float())


def test_neither_what_follows_nor_threads_matter():
    x, lengths, groups = torch.randn(40, 1, 90), torch.full((40,), 70), random_groups(1, [1, 3])
    found, threads = convolution_competition(x, lengths, groups), torch.get_num_threads()
    changed = x.clone()
    changed[:, :, 70:] = torch.nan
    torch.set_num_threads(2)
    try:
        again = convolution_competition(changed, lengths, groups)
    finally:
        torch.set_num_threads(threads)
    torch.testing.assert_close(again, found, rtol=0, atol=0)


def test_wrong_calls_are_refused():
    x, lengths, groups = torch.randn(2, 1, 40), torch.tensor([40, 40]), random_groups(1, [1])
    with pytest.raises(ValueError, match="lengths must be 2 whole numbers from 1 to 40"):
        convolution_competition(x, lengths + 1, groups)
    with pytest.raises(ValueError, match="x has 3 channels; the filters have 1"):
        convolution_competition(x.expand(2, 3, 40), lengths, groups)
    with pytest.raises(ValueError, match="numbers from 0 to 83"):
        convolution_competition(x, lengths, groups._replace(filters=groups.filters + 1))
    with pytest.raises(ValueError, match="dilation must be at least 1"):
        convolution_competition(x, lengths, groups._replace(dilation=groups.dilation - 1))
