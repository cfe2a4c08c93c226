import pytest
import torch

from longstate.errors import InputError
from longstate.memory._gramians import factor, gramians, real_matrices
from longstate.systems import DenseSystem, DiagonalSystem


def pairs(n=5, i=2, o=3, batch=(2,)):
    torch.manual_seed(0)
    A = torch.polar(0.5 + 0.45 * torch.rand(*batch, n).double(), 3 * torch.rand(*batch, n).double())
    B, C = (torch.randn(*batch, *s, dtype=torch.complex128) for s in ((n, i), (o, n)))
    D = torch.zeros(*batch, o, i).double()
    return DiagonalSystem(A, B, C, D, conjugate=True, discrete=True)


def summed(system, length):
    A, B, C = real_matrices(system)
    reach, observe, power = 0, 0, torch.eye(A.shape[-1]).double()
    for _ in range(length):
        reach = reach + power @ B @ B.mT @ power.mT
        observe = observe + power.mT @ C.mT @ C @ power
        power = A @ power
    return reach, observe


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("length", [1, 2, 7, 64])
def test_are_the_sums_that_define_them(dense, length):
    system = pairs().to_dense() if dense else pairs()
    for given, expected in zip(gramians(system, length), summed(system, length), strict=True):
        torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("dense", [False, True])
def test_solve_the_equation_of_stein(dense):
    system = pairs().to_dense() if dense else pairs()
    A, B, C = real_matrices(system)
    P, Q = gramians(system)
    torch.testing.assert_close(P, A @ P @ A.mT + B @ B.mT)
    torch.testing.assert_close(Q, A.mT @ Q @ A + C.mT @ C)


def test_real_diagonal_system():
    a = torch.tensor([0.5, -0.9]).double()
    B, C, D = (torch.randn(*s).double() for s in ((2, 1), (1, 2), (1, 1)))
    system = DiagonalSystem(a, B, C, D, discrete=True)
    for given, expected in zip(gramians(system), gramians(system.to_dense()), strict=True):
        torch.testing.assert_close(given, expected)


@pytest.mark.parametrize("length", [1, 5, 100])
def test_an_oscillation_that_never_ends_has_them_over_a_length(length):
    one = torch.ones(1, 1, dtype=torch.complex128)
    A = torch.polar(torch.ones(1).double(), torch.tensor([0.7]).double())
    system = DiagonalSystem(A, one, one, torch.zeros(1, 1).double(), conjugate=True, discrete=True)
    for given, expected in zip(gramians(system, length), summed(system, length), strict=True):
        torch.testing.assert_close(given, expected)
    with pytest.raises(InputError, match="modulus 1"):
        gramians(system)
    with pytest.raises(InputError, match="modulus 1"):
        gramians(system.to_dense())


def test_float32_systems_are_analysed_in_float64():
    s = pairs()
    parts = (v.to(torch.complex64) for v in (s.A, s.B, s.C))
    narrow = DiagonalSystem(*parts, s.D.float(), conjugate=True, discrete=True)
    assert gramians(narrow).reach.dtype == torch.float64


def test_factor_of_a_singular_matrix():
    torch.manual_seed(0)
    v = torch.randn(3, 6, 2).double()
    S = v @ v.mT
    L = factor(S)
    torch.testing.assert_close(L @ L.mT, S)


def test_refuses_what_it_cannot_analyse():
    s = pairs()
    with pytest.raises(InputError, match="continuous"):
        gramians(DiagonalSystem(-s.A.abs(), s.B, s.C, s.D))
    with pytest.raises(InputError, match="complex"):
        gramians(DiagonalSystem(s.A, s.B, s.C, s.D, discrete=True))
    with pytest.raises(InputError, match="length"):
        gramians(s, 0)
    one = torch.ones(1, 1)
    with pytest.raises(InputError, match="modulus"):
        gramians(DenseSystem(2 * one, one, one, 0 * one, discrete=True))
