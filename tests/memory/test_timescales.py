import math

import pytest
import torch

from longstate.errors import InputError
from longstate.layers import S4D, Longhorn, Mamba
from longstate.memory import timescales
from longstate.systems import DiagonalSystem


def test_of_a_linear_system():
    A = torch.tensor([math.exp(-1 / 7), 1.0, -0.5, 2.0]).double()
    one = torch.ones(4, 1).double()
    system = DiagonalSystem(A, one, one.mT, torch.zeros(1, 1).double(), discrete=True)
    steps = timescales(system).steps
    expected = torch.tensor([7.0, math.inf, 1 / math.log(2), math.inf]).double()
    torch.testing.assert_close(steps, expected)
    assert timescales(system).scope == "all inputs"


def test_dense_and_diagonal_agree():
    torch.manual_seed(0)
    system = S4D(2, d_state=4).double().system()
    dense = timescales(system.to_dense()).steps.sort().values
    torch.testing.assert_close(dense[:, ::2], timescales(system).steps.sort().values)


def test_predicts_how_a_state_of_mamba_shrinks_on_this_data():
    torch.manual_seed(0)
    layer = Mamba(8, d_state=3).double()
    u = torch.randn(1, 60, 8).double()
    trace = layer.trace(u)
    scale = timescales(trace, reference=100)
    start = torch.ones(1, 16, 3).double()
    taps = torch.zeros(1, 3, 16).double()
    held = layer.trace(u, {"taps": taps, "ssm": start}).states() - trace.states()
    torch.testing.assert_close(held[0, -1], torch.exp(-60 / scale.steps))
    assert scale.scope == "this data"
    assert 0 <= scale.beyond() <= 1


def test_refuses():
    torch.manual_seed(0)
    exact = Longhorn(8, d_state=3, variant="exact").trace(torch.randn(1, 5, 8))
    with pytest.raises(InputError, match="average_contraction"):
        timescales(exact)
    with pytest.raises(InputError, match="continuous"):
        timescales(S4D(4).continuous_system())
    with pytest.raises(InputError, match="reference"):
        timescales(S4D(4).system()).beyond()
