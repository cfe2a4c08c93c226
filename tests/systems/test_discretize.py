"""Discretisation rules against matrix exponentials, SciPy and hand-made numbers."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
import scipy.signal
import torch
from torch.testing import assert_close

from longstate.systems import (
    Bilinear,
    GeneralizedBilinear,
    ZeroOrderHold,
)

RULES = [ZeroOrderHold(), Bilinear(), GeneralizedBilinear(0.0), GeneralizedBilinear(1.0)]
SCIPY_METHOD = {
    ZeroOrderHold(): ("zoh", None),
    Bilinear(): ("gbt", 0.5),
    GeneralizedBilinear(0.0): ("gbt", 0.0),
    GeneralizedBilinear(1.0): ("gbt", 1.0),
}


def double(*values):
    return torch.tensor(values, dtype=torch.float64)


def random_system(n=5, i=2, seed=0):
    g = torch.Generator().manual_seed(seed)
    A = torch.randn(3, n, n, generator=g, dtype=torch.float64) - 2 * torch.eye(n)
    B = torch.randn(n, i, generator=g, dtype=torch.float64)
    return A, B, double(0.1, 0.5, 1.3)


def test_scalar_known_answers():
    A, one = double(-1.0), 1.0
    a, b = Bilinear().diagonal(A, one)
    assert_close(a, double(1 / 3))
    assert_close(b, double(2 / 3))
    a, b = ZeroOrderHold().diagonal(A, one)
    assert_close(a, double(math.exp(-1)))
    assert_close(b, double(1 - math.exp(-1)))


@pytest.mark.parametrize("rule", RULES)
def test_dense_is_scipy(rule):
    A, B, dt = random_system()
    A_bar, B_bar = rule.dense(A, B, dt)
    method, alpha = SCIPY_METHOD[rule]
    for k in range(3):
        system = (A[k].numpy(), B.numpy(), np.zeros((1, 5)), np.zeros((1, 2)))
        # SciPy's `gbt` moves half a step into C and D; A and B are the plain rule.
        expected = scipy.signal.cont2discrete(system, dt[k].item(), method, alpha)
        assert_close(A_bar[k], torch.from_numpy(expected[0]))
        assert_close(B_bar[k], torch.from_numpy(expected[1]))


@pytest.mark.parametrize("rule", RULES)
def test_diagonal_is_dense(rule):
    A = torch.tensor([-0.5 + 3j, -2 - 100j, 0.3 + 0j, -1e-9 + 1e-9j, 0j], dtype=torch.complex128)
    B = torch.ones(5, 1, dtype=torch.complex128)
    dt = double(0.1, 2.0)
    A_bar, scale = rule.diagonal(A, dt[:, None])
    full_A, full_B = rule.dense(torch.diag(A), B, dt)
    assert_close(torch.diag_embed(A_bar), full_A)
    assert_close(scale[..., None], full_B)


def test_hold_of_singular_matrix_is_the_integrator():
    A = double([0.0, 1.0], [0.0, 0.0])
    A_bar, B_bar = ZeroOrderHold().dense(A, double([0.0], [1.0]), 0.5)
    assert_close(A_bar, double([1.0, 0.5], [0.0, 1.0]))
    assert_close(B_bar, double([0.125], [0.5]))


def test_hold_splits_steps_exactly():
    A = torch.tensor([-0.5 + 20j, -3 + 0j], dtype=torch.complex128)
    rule = ZeroOrderHold()
    whole_a, whole_b = rule.diagonal(A, 0.3)
    first_a, first_b = rule.diagonal(A, 0.1)
    second_a, second_b = rule.diagonal(A, 0.2)
    assert_close(second_a * first_a, whole_a)
    assert_close(second_a * first_b + second_b, whole_b)


@pytest.mark.parametrize("rule", [ZeroOrderHold(), Bilinear()])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-6, 1e-3, 0.4, 0.6, 3.0, 100.0])
def test_float32_values_and_gradients_are_accurate(rule, size):
    # The design's promise for single precision: 1e-6 relative, whatever |A dt|.
    A = torch.tensor([-1.0, -0.3 + 1j, -0.01 + 1j, 1j], dtype=torch.complex64) * size
    dt = torch.tensor(0.37)
    results = []
    for dtype in (torch.complex64, torch.complex128):
        lam = A.detach().to(dtype).requires_grad_()
        step = dt.detach().to(lam.real.dtype).requires_grad_()
        a, b = rule.diagonal(lam, step)
        of_a = torch.autograd.grad(a.real.sum() + a.imag.sum(), (lam, step), retain_graph=True)
        of_b = torch.autograd.grad(b.real.sum() + b.imag.sum(), (lam, step))
        results.append((a, b, *of_a, *of_b))
    for single, wide in zip(*results, strict=True):
        error = (single.to(wide.dtype) - wide).abs() / wide.abs()
        assert error.max() < 1e-6


def test_float32_phases_of_hundreds_of_radians_keep_their_digits():
    # LegS with 64 states and dt = 0.1 turns by 130 rad a step; float32 resolves that to 8e-6.
    A = torch.complex(torch.full((64,), -0.5), torch.linspace(1.1, 1303.27, 64))
    dt = torch.tensor([0.1, 0.0371])[:, None]
    exact = torch.exp(A.to(torch.complex128) * dt.double())
    a, _ = ZeroOrderHold().diagonal(A, dt)
    rounding = torch.finfo(torch.float32).eps
    assert ((a - exact).abs() / exact.abs()).max() < rounding


@pytest.mark.parametrize("z", [1e-13, 3e-9, 1e-8, 1e-5, 1e-2, 0.3, 0.49, 0.51, 2.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_hold_in_float64_against_exact_fractions(z, sign):
    # (e^z - 1) / z and its derivative, summed in exact arithmetic: nothing wider is at hand
    x = Fraction(sign * z)
    value = float(sum(x**j / math.factorial(j + 1) for j in range(40)))
    slope = float(sum((j + 1) * x**j / math.factorial(j + 2) for j in range(40)))
    A = double(sign * z).requires_grad_()
    _, scale = ZeroOrderHold().diagonal(A, 1.0)
    few = 16 * torch.finfo(torch.float64).eps
    assert abs(scale.item() - value) < few * value
    (grad,) = torch.autograd.grad(scale, A)
    assert abs(grad.item() - slope) < few * slope


def test_gradient_at_zero_is_finite_and_right():
    A = torch.zeros(2, dtype=torch.complex128, requires_grad=True)
    a, b = ZeroOrderHold().diagonal(A, 0.2)
    assert_close(
        torch.autograd.grad(a.real.sum(), A, retain_graph=True)[0], torch.full_like(A, 0.2)
    )
    assert_close(torch.autograd.grad(b.real.sum(), A)[0], torch.full_like(A, 0.02))


@pytest.mark.parametrize("rule", RULES)
def test_gradients(rule):
    A = torch.tensor([[-0.5 + 3j, -1e-3 + 0j, -2 - 1j]], dtype=torch.complex128)
    dt = double(0.1, 1.2)[:, None]
    leaves = A.requires_grad_(), dt.requires_grad_()
    assert torch.autograd.gradcheck(rule.diagonal, leaves)
    assert torch.autograd.gradgradcheck(rule.diagonal, leaves)
    real_A = double(-0.7, -1.5).requires_grad_()
    assert torch.autograd.gradcheck(rule.diagonal, (real_A, dt.detach().requires_grad_()))


@pytest.mark.parametrize("rule", RULES)
def test_dense_gradients(rule):
    A, B, dt = (x.requires_grad_() for x in random_system(n=3))
    assert torch.autograd.gradcheck(rule.dense, (A, B, dt))


@pytest.mark.parametrize("dt", [0.0, -1.0, math.nan, math.inf])
def test_steps_must_be_positive(dt):
    with pytest.raises(ValueError, match="dt must be positive and finite"):
        ZeroOrderHold().diagonal(double(-1.0), dt)


def test_other_refusals():
    with pytest.raises(ValueError, match="dt must be real"):
        ZeroOrderHold().diagonal(double(-1.0), torch.tensor(1j))
    with pytest.raises(ValueError, match="alpha must lie"):
        GeneralizedBilinear(1.5)
