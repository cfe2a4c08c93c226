import math

import pytest
import torch

from longstate.errors import InputError
from longstate.layers import S4, S4D, S5
from longstate.memory import gains
from longstate.memory._h_infinity import _storage
from longstate.systems import DenseSystem, DiagonalSystem


def system_of(layer):
    torch.manual_seed(0)
    return layer.double().system()


LAYERS = {"S4": lambda: S4(2, d_state=8), "S4D": lambda: S4D(3), "S5": lambda: S5(4)}


@pytest.mark.parametrize("name", LAYERS)
def test_contain_what_the_response_shows(name):
    """H2 and l1 of a long response, and H-infinity of its transform: a grid, so from below."""
    system = system_of(LAYERS[name]())
    found = gains(system)
    with torch.no_grad():
        response = system.impulse_response(2**15)
    h2 = response.square().sum((-3, -2, -1)).sqrt()
    torch.testing.assert_close(found.h2, h2)
    l1 = response.abs().sum((-3, -1)).amax(-1)
    assert bool((found.l1 >= l1 * (1 - 1e-12)).all())
    assert bool((found.l1 <= l1 * (1 + 1e-6)).all())
    spectrum = torch.fft.rfft(response.movedim(-3, -1), n=2**17).movedim(-1, -3)
    grid = torch.linalg.matrix_norm(spectrum, 2).amax(-1)
    assert bool((found.h_infinity >= grid * (1 - 1e-9)).all())
    assert bool((found.h_infinity <= grid * 1.01).all())
    assert bool((found.h_infinity_below <= found.h_infinity).all())
    assert bool((found.h_infinity <= found.h_infinity_below * 1.0011).all())


def test_one_pole():
    """All three in closed form, with a direct path."""
    a, d = 0.9, 0.5
    one = torch.ones(1, 1).double()
    found = gains(
        DiagonalSystem(torch.tensor([a], dtype=torch.float64), one, one, d * one, discrete=True),
        tolerance=1e-3,
    )
    largest = 1 / (1 - a) + d
    assert found.h_infinity / (1 + 1e-3) <= found.h_infinity_below
    assert found.h_infinity_below <= largest <= found.h_infinity
    assert found.l1_below <= largest <= found.l1
    torch.testing.assert_close(float(found.l1), largest)
    torch.testing.assert_close(float(found.h2), math.sqrt(1 / (1 - a * a) + 2 * d + d * d))


def test_a_peak_between_the_points_of_a_grid_is_found():
    """A sharp resonance: a grid of 1000 frequencies sees a small part of its height."""
    pole = torch.polar(*torch.tensor([1 - 1e-6, 1.00037], dtype=torch.float64)[:, None])
    one = torch.ones(1, 1, dtype=torch.complex128)
    system = DiagonalSystem(
        pole, one, one, torch.zeros(1, 1).double(), conjugate=True, discrete=True
    )
    found = gains(system)
    true = float(system.frequency_response(torch.tensor([1.00037], dtype=torch.float64)).abs())
    grid = system.frequency_response(torch.linspace(0, math.pi, 1000).double()).abs().max()
    assert float(grid) < 0.01 * true
    assert true * (1 - 1e-9) <= float(found.h_infinity) <= 1.01 * true


@pytest.mark.parametrize("seed", range(20))
def test_no_input_exceeds_the_gains(seed):
    """Random systems, each with its worst sinusoid and its worst sequence of signs."""
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(4, 4, generator=g).double()
    A = 0.95 * torch.rand(1, generator=g).double() * A / torch.linalg.eigvals(A).abs().max()
    B, C, D = (torch.randn(*s, generator=g).double() for s in ((4, 1), (1, 4), (1, 1)))
    system = DenseSystem(A, B, C, D, discrete=True)
    found = gains(system)
    response = system.impulse_response(500)[:, 0, 0]
    signs = response.flip(0).sign()
    assert abs(float((response.flip(0) * signs).sum())) <= float(found.l1) * (1 + 1e-12)
    u = torch.randn(4000, generator=g).double()
    y = torch.nn.functional.conv1d(
        torch.nn.functional.pad(u, (499, 0))[None, None], response.flip(0)[None, None]
    )
    assert float(y.norm()) <= float(found.h_infinity) * float(u.norm())


def test_refuses_what_is_not_stable():
    one = torch.ones(1, 1)
    with pytest.raises(InputError, match="modulus 1"):
        gains(DenseSystem(one, one, one, one, discrete=True))
    with pytest.raises(InputError, match="continuous"):
        gains(DenseSystem(-one, one, one, one))


def test_a_state_that_forgets_at_once_has_gains():
    """A = 0: y = C B u + D u, in complex arithmetic too, where 0 ** 0 is NaN."""
    one = torch.ones(1, 1).to(torch.complex128)
    s = DiagonalSystem(
        torch.zeros(1).to(torch.complex128), one, 0.5 * one, torch.ones(1, 1).double(),
        conjugate=True, discrete=True,
    )  # fmt: skip
    found = gains(s)
    assert float(found.l1) == pytest.approx(2.0)
    assert float(found.h_infinity_below) <= 2 * (1 + 1e-12)
    assert float(found.h_infinity) >= 2 * (1 - 1e-12)


@pytest.mark.parametrize("condition", [1e4, 1e6, 1e8])
def test_bounds_hold_whatever_the_condition(condition):
    """Against mpmath at 60 digits, for systems whose eigenvectors are nearly dependent."""
    from mpmath import matrix, mp, mpf

    g = torch.Generator().manual_seed(round(condition))
    for _ in range(6):
        n = int(torch.randint(3, 8, (1,), generator=g))
        U, W = (torch.linalg.qr(torch.randn(n, n, generator=g).double()).Q for _ in range(2))
        V = U * torch.logspace(0, -math.log10(condition), n, dtype=torch.float64) @ W
        A = V @ torch.diag(0.2 + 0.7 * torch.rand(n, generator=g).double()) @ torch.linalg.inv(V)
        B, C, D = (torch.randn(*s, generator=g).double() for s in ((n, 1), (1, n), (1, 1)))
        found = gains(DenseSystem(A, B, C, D, discrete=True))
        with mp.workdps(60):
            A, B, C = (matrix([[mpf(float(x)) for x in row] for row in v]) for v in (A, B, C))
            z = mp.expj(-mpf(float(found.peak)))
            size = abs((C * mp.lu_solve(mp.eye(n) - A * z, B))[0] + mpf(float(D)))
            assert size >= mpf(float(found.h_infinity_below)) * (1 - mpf(10) ** -12)
            assert size <= mpf(float(found.h_infinity))
        if condition <= 1e6:  # and they say something
            assert float(found.h_infinity_below) >= 0.99 * float(size)
            assert float(found.h_infinity) <= 10 * float(size)


def test_a_companion_matrix_with_near_poles_is_no_traceback():
    """Its Hamiltonian matrix is singular to rounding, so that no proof succeeds."""
    assert _storage(torch.zeros(4, 4).double()).isnan().all()
    for seed in range(12):
        g = torch.Generator().manual_seed(seed)
        poles = 0.6 + 0.35 * torch.rand(8, generator=g).double()
        coefficients = torch.ones(1).double()
        for pole in poles:
            zero = torch.zeros(1).double()
            coefficients = torch.cat([coefficients, zero]) - pole * torch.cat([zero, coefficients])
        A = torch.cat([-coefficients[None, 1:], torch.eye(7, 8).double()])
        B, C, D = (torch.randn(*s, generator=g).double() for s in ((8, 1), (1, 8), (1, 1)))
        found = gains(DenseSystem(A, B, C, D, discrete=True))
        assert found.h_infinity_below <= found.h_infinity
        assert found.l1_below <= found.l1
