import pytest
import torch
from torch.testing import assert_close

from longstate.models import _dropout
from longstate.models._dropout import Dropout


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.0001, 0.1, 0.5, 0.999])
def test_the_share_that_is_dropped(p, dtype):
    """Within four standard deviations; and what is kept is scaled, so that the mean stays."""
    torch.manual_seed(0)
    n = 1_000_003  # not a multiple of 4
    y = Dropout(p)(torch.ones(n, dtype=dtype))
    dropped = (y == 0).double().mean().item()
    assert abs(dropped - p) < 4 * (p * (1 - p) / n) ** 0.5 + 0.5 / 65536
    assert_close(y.unique().max(), torch.tensor(1 / (1 - round(p * 65536) / 65536), dtype=dtype))


def test_neighbours_are_dropped_independently():
    """Also those whose bits are of one word."""
    torch.manual_seed(0)
    gone = (Dropout(0.5)(torch.ones(1 << 20)) == 0).double() - 0.5
    for lag in (1, 2, 3, 4, 8, 64):
        assert abs((gone[:-lag] * gone[lag:]).mean()) < 4 * 0.25 / 1024


def test_the_gradient_is_that_of_what_was_kept():
    torch.manual_seed(0)
    x = torch.randn(3, 5, 7, requires_grad=True)
    y = Dropout(0.4)(x)
    y.sum().backward()
    assert 0 < (y == 0).sum() < y.numel()
    assert_close(x.grad * x.detach(), y.detach())


def test_the_seed_decides_and_not_the_threads():
    x, drop, before, found = torch.ones(64, 1000), Dropout(0.3), torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            torch.manual_seed(3)
            found.append(drop(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)
    assert not torch.equal(found[0], drop(x))


@pytest.mark.parametrize("p", [0.0, 1e-6])
def test_nothing_is_dropped(p):
    x = torch.randn(100)
    assert Dropout(p)(x) is x
    assert Dropout(0.5).eval()(x) is x


def test_everything_is_dropped():
    assert not Dropout(1.0)(torch.randn(100)).any()


@pytest.mark.parametrize("shape", [(), (0,), (2, 0, 3), (1,), (5,)])
def test_any_shape(shape):
    torch.manual_seed(0)
    assert Dropout(0.5)(torch.randn(shape)).shape == shape


@pytest.mark.parametrize("p", [1 / 65536, 0.1, 0.5, 1 - 1 / 65536])
def test_each_of_the_65536_choices_counts_once(p, monkeypatch):
    every = torch.arange(-(2**15), 2**15, dtype=torch.int16)
    monkeypatch.setattr(_dropout, "_drawn", lambda shape: every)
    assert (Dropout(p)(torch.ones(65536)) == 0).sum() == round(p * 65536)


def test_other_devices_and_compiled_code_have_the_dropout_of_pytorch():
    assert Dropout(0.5)(torch.ones(3, device="meta")).device.type == "meta"
    compiled = torch.compile(Dropout(0.5), backend="eager", fullgraph=True)
    assert set(compiled(torch.ones(1000)).tolist()) == {0.0, 2.0}
