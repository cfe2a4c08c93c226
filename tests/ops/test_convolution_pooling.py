"""Pooled responses: the kernel against the equation, and the equation against PyTorch's own."""

import pytest
import torch
from torch.nn import functional as F

from longstate.ops.convolution_pooling import Filters, all_taps, convolution_pooling, response


def random_filters(c: int, dilations: list[int], q: int = 3) -> Filters:
    taps = all_taps().repeat(len(dilations), 1)
    f = len(taps)
    used = torch.rand(f, c) > 0.4
    used[:, 0] = True
    padded = torch.arange(f) % 2 == 0
    dilation = torch.tensor(dilations).repeat_interleave(84)
    return Filters(taps, dilation, padded, used, torch.randn(f, q))


def test_taps_are_84_different_filters_that_sum_to_zero():
    taps = all_taps()
    assert taps.shape == (84, 9)
    assert len(torch.unique(taps, dim=0)) == 84
    torch.testing.assert_close(taps.sum(1), torch.zeros(84), rtol=0, atol=0)


@pytest.mark.parametrize("dilation", [1, 3, 50])
@pytest.mark.parametrize("padded", [False, True])
def test_response_is_a_convolution(dilation, padded):
    x, taps = torch.randn(2, 128).double(), all_taps()[17].double()
    whole = F.conv1d(
        x.sum(0)[None, None], taps[None, None], padding=4 * dilation, dilation=dilation
    )[0, 0]
    reach = 0 if padded or 8 * dilation >= 128 else 4 * dilation
    torch.testing.assert_close(response(x, taps, dilation, padded), whole[reach : 128 - reach])


def test_kernel_is_the_equation_at_unequal_lengths():
    torch.manual_seed(0)
    x, lengths = torch.randn(6, 3, 63), torch.tensor([63, 1, 5, 40, 63, 17])
    filters = random_filters(3, [1, 2, 7])
    exact = convolution_pooling(x.double(), lengths, double(filters), impl="reference")
    plain = convolution_pooling(x, lengths, filters, impl="reference")
    fast = convolution_pooling(x, lengths, filters, impl="cpu")
    bound = 2 * (plain - exact).abs().max() + torch.finfo(torch.float32).eps
    assert (fast - exact).abs().max() <= bound


def test_what_follows_a_series_is_ignored():
    x, lengths = torch.randn(2, 1, 40), torch.tensor([25, 40])
    filters = random_filters(1, [1, 3])
    changed = x.clone()
    changed[0, :, 25:] = torch.nan
    torch.testing.assert_close(
        convolution_pooling(changed, lengths, filters),
        convolution_pooling(x, lengths, filters),
        rtol=0,
        atol=0,
    )


@pytest.mark.parametrize("lengths", [[0, 3], [3, 41], [3]])
def test_lengths_are_checked(lengths):
    with pytest.raises(ValueError, match="lengths must be 2 whole numbers from 1 to 40"):
        convolution_pooling(torch.randn(2, 1, 40), torch.tensor(lengths), random_filters(1, [1]))


def double(filters: Filters) -> Filters:
    return filters._replace(taps=filters.taps.double(), bias=filters.bias.double())
