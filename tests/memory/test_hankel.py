import time

import pytest
import torch

from longstate.layers import S4, S4D, S5, LinOSS
from longstate.memory import hankel
from longstate.systems import DiagonalSystem
from tests.memory.test_gramians import pairs


def test_values_are_singular_values_of_the_hankel_matrix():
    """The independent view: the matrix of the kernel itself, as large as its tail asks."""
    system, m = pairs(n=3, i=1, o=1, batch=()), 300
    kernel = system.impulse_response(2 * m)[:, 0, 0]
    index = torch.arange(m)
    values = torch.linalg.svdvals(kernel[index[:, None] + index])[:6]
    torch.testing.assert_close(hankel(system).values, values)


def test_values_do_not_depend_on_coordinates():
    system = pairs(i=1, o=1)
    torch.testing.assert_close(hankel(system).values, hankel(system.to_dense()).values)


def test_squares_sum_to_the_energy_that_the_past_sends_into_the_future():
    """tr(P Q): the sum of squares of the Hankel matrix, each lag l counted l + 1 times."""
    system = pairs(i=1, o=1, batch=())
    kernel = system.impulse_response(2000)[:, 0, 0]
    energy = (kernel.square() * torch.arange(1, 2001)).sum()
    torch.testing.assert_close(hankel(system).values.square().sum(), energy)


def test_one_number_uses_one_direction():
    one = torch.ones(1, 1).double()
    a = torch.tensor([0.5]).double()
    spectrum = hankel(DiagonalSystem(a, one, one, 0 * one, discrete=True))
    torch.testing.assert_close(spectrum.values, torch.tensor([1 / (1 - 0.25)]).double())
    assert float(spectrum.participation) == float(spectrum.entropy_rank) == 1.0
    assert int(spectrum.needed(0.999)) == 1
    assert spectrum.kind == "exact"
    assert spectrum.scope == "all inputs"


@pytest.mark.parametrize("layer", [S4, S4D, S5, LinOSS], ids=lambda c: c.__name__)
def test_of_layers(layer):
    torch.manual_seed(0)
    spectrum = hankel(layer(4).system())
    assert bool((spectrum.values.diff() <= 0).all())
    assert bool((spectrum.participation >= 1).all())


def test_half_of_the_sum():
    values = torch.tensor([4.0, 2.0, 1.0, 1.0])
    spectrum = hankel(pairs())
    object.__setattr__(spectrum, "values", values)
    assert [int(spectrum.needed(s)) for s in (0.5, 0.6, 0.75, 0.9, 1.0)] == [1, 2, 2, 4, 4]


def test_512_channels_of_32_modes_take_less_than_a_second():
    torch.manual_seed(0)
    A = torch.polar(0.8 + 0.19 * torch.rand(512, 32).double(), 3 * torch.rand(512, 32).double())
    B, C = (torch.randn(512, *s, dtype=torch.complex128) for s in ((32, 1), (1, 32)))
    zero = torch.zeros(512, 1, 1).double()
    system = DiagonalSystem(A, B, C, zero, conjugate=True, discrete=True)
    best = min(_seconds(system) for _ in range(3))
    assert best < 1, f"{best:.2f} s of processor time"


def _seconds(system):
    began = time.thread_time()
    hankel(system)
    return time.thread_time() - began
