"""Oracles from outside: more digits, other formulas, the worst course of steps."""

import math

import mpmath
import pytest
import torch

from longstate.layers import LinOSS
from longstate.memory import certify, hankel, memory_curve
from longstate.memory._gramians import gramians, real_matrices
from longstate.systems import DiagonalSystem
from tests.memory.test_gramians import pairs


def test_hankel_values_to_sixty_digits():
    """Eight pairs of modes, close to each other: eigenvalues of P Q where rounding is no matter."""
    system = pairs(n=8, i=1, o=1, batch=())
    a, b, c = (v.flatten().tolist() for v in (system.A, system.B, system.C))
    a, b, c = ([*v, *(z.conjugate() for z in v)] for v in (a, b, c))
    with mpmath.workdps(60):
        a, b, c = ([mpmath.mpc(z) for z in v] for v in (a, b, c))
        n = range(16)
        P = mpmath.matrix(16, 16)
        Q = mpmath.matrix(16, 16)
        for i in n:
            for j in n:
                P[i, j] = b[i] * mpmath.conj(b[j]) / (1 - a[i] * mpmath.conj(a[j]))
                Q[i, j] = mpmath.conj(c[i]) * c[j] / (1 - mpmath.conj(a[i]) * a[j])
        squares = mpmath.eig(P * Q, left=False, right=False)
        true = sorted((float(mpmath.sqrt(abs(z))) for z in squares), reverse=True)
    found = hankel(system).values
    true = torch.tensor(true, dtype=torch.float64)
    # A rounding of the largest, of which small ones are differences; and of each of 16 terms.
    rounding = torch.finfo(torch.float64).eps * (true[0] + 16 * true)
    assert ((found - true).abs() <= rounding).all()


def test_gain_of_white_noise_from_either_side():
    """trace C P C' = trace B' Q B = the sum of squares of the kernel."""
    system = pairs(n=4, i=2, o=3, batch=())
    P, Q = gramians(system)
    _, B, C = real_matrices(system)
    energy = (C @ P @ C.mT).trace()
    torch.testing.assert_close((B.mT @ Q @ B).trace(), energy)
    kernel = system.impulse_response(4000)  # without a direct path, all of it comes from states
    torch.testing.assert_close(kernel.square().sum(), energy)


@pytest.mark.parametrize("rate", [0.1, 1.0, 4.0])
def test_no_sequence_of_steps_exceeds_the_sampling_bound(rate):
    """Random steps below a limit, and input at its largest, of either sign."""
    torch.manual_seed(0)
    longest, h, worst = 0.8, torch.zeros(500).double(), 0.0
    bound = longest / -math.expm1(-rate * longest)
    for _ in range(400):
        dt = longest * torch.rand(500).double() ** torch.linspace(0, 3, 500)
        h = torch.exp(-rate * dt) * h + dt * torch.where(torch.rand(500) < 0.95, 1.0, -1.0)
        worst = max(worst, float(h.abs().max()))
    assert 0.8 * bound < worst <= bound


@pytest.mark.parametrize("seed", range(3))
def test_moduli_of_linoss(seed):
    """1 / sqrt(1 + dt^2 A) under the implicit rule, 1 under IMEX, which fails the gate."""
    torch.manual_seed(seed)
    layer = LinOSS(4, d_state=6, variant="im").double()
    A, step = (v.detach() for v in layer.oscillators())
    largest = float((1 + step.square() * A).rsqrt().max())
    found = certify(layer)
    assert found.passed
    torch.testing.assert_close(found.claims[0].certified, largest)
    assert certify(LinOSS(4, d_state=6, variant="imex")).claims[0].certified == pytest.approx(1)


def test_narrow_systems_are_widened():
    """Analysis of a float32 system is that of the same numbers in float64."""
    system = pairs(n=3, i=1, o=1, batch=())
    narrow = DiagonalSystem(
        *(getattr(system, k).to(torch.complex64) for k in "ABC"), system.D.float(),
        conjugate=True, discrete=True,
    )  # fmt: skip
    wide = DiagonalSystem(
        *(getattr(narrow, k).to(torch.complex128) for k in "ABC"), narrow.D.double(),
        conjugate=True, discrete=True,
    )  # fmt: skip
    assert hankel(narrow).values.dtype == torch.float64
    torch.testing.assert_close(hankel(narrow).values, hankel(wide).values, rtol=0, atol=0)
    one, two = (memory_curve(s, 20, noise=0.1).bits for s in (narrow, wide))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
