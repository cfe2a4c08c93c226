import math

import pytest
import torch

from longstate.errors import InputError
from longstate.layers import Longhorn, Mamba
from longstate.memory import average_contraction
from longstate.memory._contraction import SHORTEST
from longstate.systems import Trace


def scalar(decay):
    t = len(decay)
    one = torch.ones(1, t, 1).double()
    wide = torch.ones(1, t, 1, 1).double()
    return Trace(
        one, decay.reshape(1, t, 1, 1), one, wide, wide, torch.zeros(1, 1, 1).double(), one[0, 0]
    )


def test_average_and_not_supremum_decides():
    """2.2 with probability 0.3, else 0.4: E log a = -0.405, though E a^2 = 1.56 and sup a > 1."""
    g = torch.Generator().manual_seed(0)
    a = torch.where(torch.rand(20_000, generator=g) < 0.3, 2.2, 0.4).double()
    found = average_contraction(scalar(a))
    truth = 0.3 * math.log(2.2) + 0.7 * math.log(0.4)
    assert found.low < truth < found.high
    assert found.exponent < 0
    error = float(a.log().std()) / len(a) ** 0.5  # two estimates of one mean
    assert abs(found.coupled - found.exponent) < 3 * error


@pytest.mark.parametrize("make", [Mamba, lambda d: Longhorn(d, variant="exact")])
def test_two_starts_meet_as_predicted(make):
    torch.manual_seed(0)
    layer = make(4).double()
    with torch.no_grad():
        found = average_contraction(layer.trace(torch.randn(1, 400, 4).double()))
    assert found.coupled <= 0
    assert found.low <= found.exponent <= found.high


def test_refuses_what_is_too_short():
    with pytest.raises(InputError, match="16 samples"):
        average_contraction(scalar(torch.ones(5).double()))


def test_the_slowest_state_counts():
    """Decays of 0.9 and 0.5 side by side, at the shortest length there is an answer for."""
    decay = torch.tensor([0.9, 0.5]).double().expand(1, SHORTEST, 1, 2)
    flat, wide = torch.zeros(1, SHORTEST, 1).double(), torch.zeros(1, SHORTEST, 1, 2).double()
    start, skip = torch.zeros(1, 1, 2).double(), torch.zeros(1).double()
    found = average_contraction(Trace(flat, decay, flat, wide, wide, start, skip))
    torch.testing.assert_close(torch.tensor(found.exponent), torch.tensor(0.9).log())
    short = [v[:, 1:] for v in (flat, decay, flat, wide, wide)]
    with pytest.raises(InputError, match="16 samples"):
        average_contraction(Trace(*short, start, skip))
