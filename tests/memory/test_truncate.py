"""Truncation stays inside its bounds, attacked by means that share no code with them."""

import math

import pytest
import torch

from longstate.layers import S4, S4D, S5
from longstate.memory import hankel
from longstate.memory._difference import error_of, minus
from longstate.memory._refine import refine
from longstate.memory._truncate import WORST_CONDITION, by_halves, by_modes, by_reals
from longstate.systems import DenseSystem, DiagonalSystem

SLACK = 1e-6  # relative, of the bounds' own rounding


def random_pairs(seed, n=8, i=2, o=3, batch=()):
    """Odd sizes and odd norms: inputs and outputs of very different lengths."""
    g = torch.Generator().manual_seed(seed)
    gap = 10 ** (-3 * torch.rand(*batch, n, generator=g, dtype=torch.float64))
    angle = math.pi * torch.rand(*batch, n, generator=g, dtype=torch.float64)
    size = 10 ** (2 * torch.randn(n, 1, generator=g, dtype=torch.float64))
    B = size * torch.randn(*batch, n, i, generator=g, dtype=torch.complex128)
    C = torch.randn(*batch, o, n, generator=g, dtype=torch.complex128) / size.mT.sqrt()
    D = torch.randn(*batch, o, i, generator=g, dtype=torch.float64)
    return DiagonalSystem(torch.polar(1 - gap, angle), B, C, D, conjugate=True, discrete=True)


def attacked(error, lags=1 << 15):
    """Largest gain that the transform of a long response shows: from below, without any pole."""
    kernel = error.impulse_response(lags).movedim(-3, -1)
    spectrum = torch.fft.rfft(kernel, n=4 * lags).movedim(-1, -3)
    return torch.linalg.matrix_norm(spectrum, 2).amax(-1)


@pytest.mark.parametrize("form", [by_halves, by_reals, by_modes])
@pytest.mark.parametrize("seed", range(12))
def test_the_error_is_between_its_bounds(form, seed):
    system, m = random_pairs(seed, n=3 + seed), 1 + seed % 4
    small = form(system, m)
    error = minus(system, small.system)
    seen = float(attacked(error))
    enclosed = error_of(system, small.system)
    least = float(hankel(system).values[2 * m])
    assert seen <= float(small.bound) * (1 + SLACK)
    assert seen <= float(enclosed.high) * (1 + SLACK)
    assert float(enclosed.high) >= least * (1 - SLACK)
    assert float(enclosed.low) <= float(enclosed.high)
    torch.testing.assert_close(
        enclosed.h2, error.impulse_response(1 << 15).norm(), rtol=1e-7, atol=0
    )


def test_the_attack_sees_a_violation():
    """Of a system without its two largest modes, against the bound of one with six of eight."""
    system = random_pairs(0)
    bound = float(by_halves(system, 6).bound)
    every = by_modes(system, 8).system
    share = every.B.norm(dim=1) * every.C.norm(dim=0) / (1 - every.A.abs())
    worst = by_modes(system, 6, -share).system
    assert float(attacked(minus(system, worst))) > bound
    assert float(error_of(system, worst).low) > bound


@pytest.mark.parametrize("seed", range(6))
def test_a_system_far_from_normal(seed):
    """Dense, with a state that grows before it decays."""
    g = torch.Generator().manual_seed(seed)
    A = 0.8 * torch.eye(7).double() + torch.triu(3 * torch.randn(7, 7, generator=g).double(), 1)
    A = A + 1e-3 * torch.randn(7, 7, generator=g).double() - torch.diag(0.1 * torch.arange(7.0))
    A = 0.98 * A / max(1.0, float(torch.linalg.eigvals(A).abs().max()))
    B, C = (torch.randn(*s, generator=g).double() for s in ((7, 1), (2, 7)))
    system = DenseSystem(A, B, C, torch.zeros(2, 1).double(), discrete=True)
    small = by_reals(system, 2)
    seen = float(attacked(minus(system, small.system)))
    assert seen <= float(small.bound) * (1 + SLACK)
    assert seen >= float(hankel(system).values[4]) * (1 - SLACK)


def test_every_state_kept_is_the_system():
    system = random_pairs(3, n=4)
    for form in (by_halves, by_reals):
        small = form(system, 4)
        torch.testing.assert_close(small.system.impulse_response(50), system.impulse_response(50))


def test_an_unreachable_state_is_removed_without_error():
    system = random_pairs(5, n=5)
    B = system.B.clone()
    B[2] = 0
    system = DiagonalSystem(system.A, B, system.C, system.D, conjugate=True, discrete=True)
    small = by_halves(system, 4)
    torch.testing.assert_close(small.system.impulse_response(50), system.impulse_response(50))


def test_channels_are_truncated_separately():
    system = random_pairs(7, n=6, i=1, o=1, batch=(3,))
    together = by_reals(system, 2)
    for k in range(3):
        one = DiagonalSystem(
            system.A[k], system.B[k], system.C[k], system.D[k], conjugate=True, discrete=True
        )
        alone = by_reals(one, 2)
        torch.testing.assert_close(together.bound[k], alone.bound)
        torch.testing.assert_close(
            together.system.impulse_response(20)[k], alone.system.impulse_response(20)
        )


def test_real_poles_stay_real_and_what_cannot_is_refused():
    torch.manual_seed(0)
    system = S4D(3, d_state=6, init="real").double().system()
    small = by_reals(system, 3, only_real=True)
    assert not small.system.A.is_complex()
    assert bool((attacked(minus(system, small.system)) <= small.bound * (1 + SLACK)).all())
    pair = DenseSystem(  # a rotation: one pole of it cannot be real
        0.9 * torch.tensor([[0.0, 1], [-1, 0]]).double(), torch.ones(2, 1).double(),
        torch.ones(1, 2).double(), torch.zeros(1, 1).double(), discrete=True,
    )  # fmt: skip
    assert float(by_reals(pair, 2, only_real=True).condition) in (math.inf, 1.0)


def test_the_condition_says_when_poles_cannot_be_told_apart():
    """A Jordan block: two poles in one place, and no system of pairs that is the same."""
    block = DenseSystem(
        torch.tensor([[0.5, 1], [0, 0.5]]).double(), torch.tensor([[0.0], [1]]).double(),
        torch.tensor([[1.0, 0]]).double(), torch.zeros(1, 1).double(), discrete=True,
    )  # fmt: skip
    whole = by_reals(block, 2)
    assert float(whole.condition) < WORST_CONDITION
    assert float(attacked(minus(block, whole.system))) <= float(whole.bound) * (1 + SLACK)


def test_float32_is_widened():
    torch.manual_seed(1)
    layer = S5(3, d_state=12)
    with torch.no_grad():
        system = layer.system()
        small = by_halves(system, 3)
    assert small.system.A.dtype == torch.complex128
    wide = DiagonalSystem(
        *(v.to(torch.complex128) for v in (system.A, system.B, system.C)), system.D.double(),
        conjugate=True, discrete=True,
    )  # fmt: skip
    assert float(attacked(minus(wide, small.system))) <= float(small.bound) * (1 + SLACK)


@pytest.mark.parametrize("form", [by_halves, by_reals, by_modes])
def test_refinement_improves_what_it_starts_from(form):
    torch.manual_seed(2)
    with torch.no_grad():
        system = S4D(4, d_state=16, init="inv").double().system()
        near = form(system, 4).system
    better = refine(system, near)
    assert bool((better.A.abs() < 1).all())
    old, new = error_of(system, near).h2, error_of(system, better).h2
    assert bool((new <= old * (1 + 1e-9)).all())
    assert float(new.norm()) < 0.95 * float(old.norm())


def test_outputs_of_a_refined_system_are_the_best_for_its_poles():
    """Against least squares on the explicit responses."""
    system = random_pairs(4, n=6)
    better = refine(system, by_halves(system, 2).system, steps=5)
    lags = 1 << 14
    kernel = system.impulse_response(lags)
    kernel[0] -= system.D
    modes = better.B * better.A[:, None] ** torch.arange(lags)[:, None, None]  # l m i
    basis = 2 * torch.cat([modes.real, -modes.imag], 1).movedim(1, 2).flatten(0, 1)
    best = torch.linalg.lstsq(basis, kernel.movedim(1, 2).flatten(0, 1)).solution.mT
    torch.testing.assert_close(torch.complex(*best.chunk(2, 1)), better.C)


def test_systems_of_different_kinds_have_a_difference():
    torch.manual_seed(0)
    with torch.no_grad():
        dense = S4(2, d_state=6).double().system()
    small = by_reals(dense, 2).system
    wanted = dense.impulse_response(40) - small.impulse_response(40)
    torch.testing.assert_close(minus(dense, small).impulse_response(40), wanted)
