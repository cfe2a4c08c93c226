"""Where numbers are rounded, and where not."""

import pytest
import torch

from longstate.layers import DSS, S4, S4D, S5, LinOSS, Mamba, Mamba2, Mamba3
from longstate.layers._trapezoid import angles
from longstate.testing import assert_within_reference_error

WITHOUT_PROJECTIONS = {
    "s4": lambda: S4(4, d_state=6),
    "s4d": lambda: S4D(4, d_state=6),
    "s4d both ways": lambda: S4D(4, d_state=6, bidirectional=True),
    "dss": lambda: DSS(4, d_state=6),
    "s5": lambda: S5(4, d_state=6),
    "s5 both ways": lambda: S5(4, d_state=6, bidirectional=True),
    "linoss": lambda: LinOSS(4, d_state=6),
}


@pytest.mark.parametrize("name", WITHOUT_PROJECTIONS)
@torch.no_grad()
def test_autocast_does_not_change_a_recurrence(name):
    torch.manual_seed(0)
    layer, u = WITHOUT_PROJECTIONS[name](), torch.randn(2, 40, 4)
    mask = torch.rand(2, 40) < 0.8
    expected, state = layer(u, mask=mask)
    with torch.autocast("cpu", torch.bfloat16):
        found, last = layer(u, mask=mask)
    torch.testing.assert_close((found, last), (expected, state), rtol=0, atol=0)


@pytest.mark.parametrize(
    "make", [lambda: Mamba(4), lambda: Mamba2(4, d_head=4), lambda: Mamba3(4, d_head=4)]
)
@torch.no_grad()
def test_a_rate_is_not_rounded_to_a_narrow_input(make):
    """1.1 is no bfloat16: the nearest one is 1.1016."""
    torch.manual_seed(0)
    layer, u = make(), torch.randn(2, 9, 4).bfloat16()
    found, expected = layer(u, rate=1.1), layer(u, dt=torch.full((2, 9), 1.1))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_angles_of_a_long_sequence_stay_precise():
    """A sum of 20,000 turns is over 10,000 in size, where float32 has steps of a thousandth."""
    turn = torch.rand(1, 20_000, 1, 1, generator=torch.Generator().manual_seed(0))
    found = angles(turn, torch.zeros(1, 1, 1), None, None)
    exact = turn.double().cumsum(1).remainder(2 * torch.pi)
    assert_within_reference_error(found.cos(), exact.cos(), exact.float().cos())
