"""Mean and maximum until some samples: the same for few times and for all."""

import pytest
import torch
from torch.testing import assert_close

from longstate.models._pooled import Pooled, _places_of_largest


@pytest.mark.parametrize("kind", ["normal", "ties", "masked", "nan"])
@pytest.mark.parametrize("f", [1, 2, 3, 16, 17, 100])
def test_places_of_the_largest_until_some_samples(f, kind):
    draw = torch.Generator().manual_seed(f)
    values = torch.randn(5, f, 7, generator=draw)
    if kind == "ties":
        values = values.round()
    elif kind == "masked":
        values[:, : f // 2] = torch.finfo(values.dtype).min
    elif kind == "nan":
        values[torch.rand(values.shape, generator=draw) < 0.1] = torch.nan
    for m in (1, 2, 4, 40):
        ends = torch.randint(0, f, (5, m), generator=draw)
        places = _places_of_largest(values, ends)
        assert (places >= 0).all()
        assert (places <= ends[..., None]).all()
        expected = values.cummax(1).values.gather(1, ends[..., None].expand(-1, -1, 7))
        assert_close(values.gather(1, places), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("until", [5, 90])
def test_few_times_are_as_in_all(until):
    draw = torch.Generator().manual_seed(0)
    h = torch.randn(3, 90, 4, generator=draw, dtype=torch.float64, requires_grad=True)
    kept = torch.rand(3, 90, generator=draw) < 0.7
    kept[1, :10] = False
    start = (h.new_zeros(3, 4), h.new_zeros(3, 4), h.new_zeros(3))
    pooled = Pooled(h, kept, start, None)
    times = torch.randint(0, until, (3, 3), generator=draw)
    few, each = pooled.at(times), pooled.each()
    every = each.gather(1, times[..., None].expand(-1, -1, 8))
    assert_close(few, every)
    weight = torch.randn(few.shape, generator=draw, dtype=few.dtype)
    grads = [torch.autograd.grad((x * weight).sum(), h, retain_graph=True)[0] for x in (few, every)]
    assert_close(*grads)
