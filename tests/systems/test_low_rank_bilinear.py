"""DPLRSystem.bilinear: the recurrence of the bilinear rule keeps the low rank."""

import pytest
import torch
from torch.testing import assert_close

from longstate.systems import Bilinear, DPLRSystem
from tests.systems.test_linear import make


@pytest.mark.parametrize("conjugate", [False, True])
@pytest.mark.parametrize("steps", ["one", "for each system"])
def test_the_bilinear_rule_keeps_a_low_rank(conjugate, steps):
    system = make("dplr", conjugate, batch=(3,))
    dt = 0.1 if steps == "one" else torch.tensor([0.03, 0.3, 3.0], dtype=torch.float64)
    other = DPLRSystem(
        system.A, system.P, 0.3 * system.B, system.B, system.C, system.D, conjugate=conjugate
    )
    for given in (system, other):  # Q is P, and it is not
        expected, found = given.discretize(Bilinear(), dt), given.bilinear(dt)
        assert isinstance(found, DPLRSystem)
        for name in "ABCD":
            assert_close(getattr(found.to_dense(), name), getattr(expected, name))
    with pytest.raises(ValueError, match="continuous"):
        found.bilinear(dt)


def test_the_bilinear_rule_rounds_once():
    narrow = make("dplr", True, dtype=torch.complex64)
    wide = DPLRSystem(
        *(x.to(torch.complex128) for x in (narrow.A, narrow.P, narrow.Q, narrow.B, narrow.C)),
        narrow.D.double(), conjugate=True,
    )  # fmt: skip
    found, expected = narrow.bilinear(1e-4), wide.bilinear(torch.tensor(1e-4).double())
    for name in "APQB":
        a, e = getattr(found, name), getattr(expected, name)
        assert a.dtype == torch.complex64
        assert_close(a, e.to(torch.complex64), rtol=3e-7, atol=1e-12)
