"""Norms of powers with their rounding, against mpmath at 80 digits and against sums one by one."""

import math

import pytest
import torch

from longstate.layers import S4
from longstate.memory import gains
from longstate.memory._grid_bound import by_grid
from longstate.memory._h_infinity import Matrices, Poles, by_poles, nearest
from longstate.memory._powers import Bounded, Powers, _envelope
from longstate.memory._response import row_sums
from longstate.systems import DenseSystem
from tests.memory.test_certify_linear import Given, certify, ill_conditioned


def exact_powers(A, count):
    """A^(2^j) for j < count, at 80 digits."""
    from mpmath import matrix, mp, mpf

    with mp.workdps(80):
        M = matrix([[mpf(float(x)) for x in row] for row in A])
        found = []
        for _ in range(count):
            found.append(M)
            M = M * M
        return found


@pytest.mark.parametrize("seed", range(6))
def test_the_error_of_a_computed_power_stays_below_its_bound(seed):
    from mpmath import mp, mpf

    A = ill_conditioned(seed).A
    powers = Powers(A)
    count = min(6, len(powers.squares))
    for true, square in zip(exact_powers(A, count), powers.squares[:count], strict=True):
        with mp.workdps(80):
            n = len(A)
            off = mp.sqrt(
                sum(
                    (true[i, j] - mpf(float(square.value[i, j]))) ** 2
                    for i in range(n)
                    for j in range(n)
                )
            )
            assert off <= mpf(float(square.error)) * mp.sqrt(n)
    # and it says something: not so much that every matrix would do
    assert float(powers.squares[3].error) <= 1e-6 * float(powers.squares[3].high())


def test_an_initial_error_is_propagated():
    """A factor that is off by 1e-3: the product may be off by as much times the other's norm."""
    A = torch.diag(torch.tensor([3.0, 0.5])).double()
    off = torch.tensor(1e-3).double()
    product = Bounded(A, off).times(Bounded(A, off))
    other = A + torch.diag(torch.tensor([1e-3, 0.0])).double()
    assert float(torch.linalg.matrix_norm(other @ other - A @ A, 2)) <= float(product.error)
    assert float(product.error) <= 6.1e-3


def test_an_envelope_is_checked():
    """A W that does not shrink proves nothing, however good its condition."""
    A = torch.tensor([[0.5, 10.0], [0.0, 0.5]]).double()
    assert float(_envelope(A, torch.eye(2).double()).root) == math.inf
    W = torch.diag(torch.tensor([1e4, 1.0])).double()
    found = _envelope(A, W)
    assert float(found.root) == pytest.approx(100)
    some = [torch.linalg.matrix_power(A, k) for k in range(40)]
    norms = [float(torch.linalg.matrix_norm(P, 2)) for P in some]
    assert all(x <= float(found.root * found.rate**k) * (1 + 1e-12) for k, x in enumerate(norms))
    indefinite = torch.diag(torch.tensor([-1.0, 1.0])).double()
    assert float(_envelope(A, indefinite).root) == math.inf


@pytest.mark.parametrize("size", [0.3, 0.9, 0.999])
def test_the_sum_of_all_powers_is_bounded(size):
    """In closed form: 1 / (1 - a); and for a block that grows first, summed one by one."""
    one = Powers(torch.tensor([[size]], dtype=torch.float64))
    assert float(one.total(one.growth()[0])) >= 1 / (1 - size)
    assert float(one.total(one.growth()[0])) <= 2.1 / (1 - size)
    A = torch.tensor([[size, 2.0], [0.0, 0.5 * size]], dtype=torch.float64)
    two, total, now = Powers(A), 0.0, torch.eye(2).double()
    for _ in range(20_000):
        total += float(torch.linalg.matrix_norm(now, 2))
        now = A @ now
    assert total <= float(two.total(two.growth()[0])) <= 30 * total


def test_a_modulus_of_one_does_not_decay():
    from longstate.systems import DiagonalSystem

    one = torch.ones(1, 1).double()
    found = certify(Given(DiagonalSystem(one[0], one, one, one, discrete=True)))
    assert not found.passed
    assert found.claims[0].certified == 1


@pytest.mark.parametrize("seed", range(60))
def test_no_peak_is_missed_between_frequencies(seed):
    """Few intervals, as the tolerance is wide: the bound is above a fine grid all the same."""
    g = torch.Generator().manual_seed(seed)
    parts = []
    for n in (3, 2):
        angle, size = 3 * torch.rand(n, generator=g), 0.5 + 0.499 * torch.rand(n, generator=g)
        p = torch.polar(size.double(), angle.double())
        B, C = (torch.randn(*s, generator=g, dtype=torch.complex128) for s in ((n, 1), (1, n)))
        parts.append(
            Poles(torch.cat([p, p.conj()]), torch.cat([B, B.conj()]), torch.cat([C, C.conj()], 1))
        )
    ahead, behind = parts[0], parts[1] if seed % 3 else None
    D = torch.randn(1, 1, generator=g).double()
    w = torch.linspace(0, math.pi, 40001).double()
    turn = torch.polar(torch.ones_like(w), w)[:, None]
    G = (ahead.C / (1 - ahead.p / turn)) @ ahead.B + D
    if behind is not None:
        G = G + turn * ((behind.C / (1 - behind.p * turn)) @ behind.B)
    for tolerance in (1.0, 0.1, 1e-3):
        found = by_poles(ahead, behind, D, tolerance)
        assert float(G.abs().max()) <= found.high * (1 + 1e-12)
        assert found.low <= float(G.abs().max()) * (1 + 1e-3)
        assert found.high <= found.low * (1 + tolerance) * (1 + 1e-9)


def test_the_nearest_point_of_an_arc():
    """Against every one of its points."""
    g = torch.Generator().manual_seed(0)
    angle, size = 6 * torch.rand(40, generator=g).double() - 3, torch.rand(40, generator=g).double()
    middle, half = 3 * torch.rand(30, generator=g).double(), torch.rand(30, generator=g).double()
    poles = torch.polar(size, angle)
    arc = middle[:, None] + half[:, None] * torch.linspace(-1, 1, 4001).double()
    points = torch.polar(torch.ones_like(arc), arc)
    true = torch.stack([(points - p).abs().square().amin(1) for p in poles], 1)
    found = nearest(angle, size, middle, half)
    assert bool((found <= true * (1 + 1e-12)).all())
    assert bool((found.sqrt() >= true.sqrt() - half[:, None] / 2000).all())  # a point lies so near


@pytest.mark.parametrize("both", [False, True])
def test_a_grid_of_frequencies_with_its_proof(both):
    """Peaks between the points of a coarse grid, and a response that is cut off."""
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        parts = []
        for n in (4, 3):
            A = torch.randn(n, n, generator=g).double()
            A = (0.9 + 0.09 * torch.rand(1, generator=g)) * A / torch.linalg.eigvals(A).abs().max()
            B, C = torch.randn(n, 1, generator=g).double(), torch.randn(1, n, generator=g).double()
            parts.append(Matrices(A, B, C))
        D = torch.randn(1, 1, generator=g).double()
        w = torch.linspace(0, math.pi, 20001).double()
        one = torch.zeros(1, 1).double()
        ahead = DenseSystem(*parts[0], D, discrete=True).frequency_response(w)
        behind = DenseSystem(*parts[1], one, discrete=True).frequency_response(-w)
        G = ahead + both * torch.polar(torch.ones_like(w), w)[:, None, None] * behind
        found = by_grid(parts[0], parts[1] if both else None, D)
        assert found.low * (1 - 1e-9) <= float(G.abs().max()) * (1 + 1e-4)
        assert float(G.abs().max()) <= found.high
        assert found.high <= 1.0015 * found.low


def test_a_bidirectional_s4_of_its_usual_size_is_enclosed():
    torch.manual_seed(0)
    found = gains(S4(1, d_state=64, bidirectional=True).double().two_sided())
    assert float(found.h_infinity) <= 1.01 * float(found.h_infinity_below)


def test_what_lies_beyond_the_computed_lags_is_added():
    """A response that has not ended: found and rest together are above the whole sum."""
    a = 1 - 1e-7
    one = torch.ones(1, 1).double()
    found = row_sums(DenseSystem(a * one, one, one, 0 * one, discrete=True))
    assert float(found.found + found.rest) >= 1 / (1 - a) * (1 - 1e-9)
    assert float(found.found) < 1 / (1 - a)
