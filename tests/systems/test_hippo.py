"""HiPPO matrices against printed numbers, closed forms and each other."""

import math

import numpy as np
import pytest
import torch
from numpy.polynomial.legendre import legval
from torch.testing import assert_close

from longstate.systems import (
    Bilinear,
    DenseSystem,
    DPLRSystem,
    ZeroOrderHold,
    diagonalize,
    fout,
    lagt,
    legs,
    legt,
    s4d_inv,
    s4d_legs,
    s4d_lin,
    s4d_real,
)

FAMILIES = [legs, legt, fout, lagt]


def printed(*rows, digits=6):
    """A check against numbers printed to a given number of digits."""
    expected = torch.tensor(rows, dtype=torch.float64)
    return {"expected": expected, "rtol": 0, "atol": 0.51 * 10**-digits}


def test_legs_printed():
    A, B, P = legs(4)
    assert_close(A, **printed(
        [-1, 0, 0, 0], [-1.732051, -2, 0, 0], [-2.236068, -3.872983, -3, 0],
        [-2.645751, -4.582576, -5.916080, -4],
    ))  # fmt: skip
    assert_close(B, **printed(1, 1.732051, 2.236068, 2.645751))
    assert_close(P[:, 0], **printed(0.707107, 1.224745, 1.581139, 1.870829))
    imag = diagonalize(legs(4)).A.imag
    assert_close(imag, **printed(0.556501, 4.603293))
    for n, top, digits in ((8, 19.857, 3), (16, 80.97, 2), (64, 1303.27, 2)):
        assert round(diagonalize(legs(n)).A.imag[-1].item(), digits) == top


def test_legt_printed():
    A, B, _ = legt(4)
    assert_close(A, **printed(
        [-0.5, 0.866025, -1.118034, 1.322876], [-0.866025, -1.5, 1.936492, -2.291288],
        [-1.118034, -1.936492, -2.5, 2.958040], [-1.322876, -2.291288, -2.958040, -3.5],
    ))  # fmt: skip
    assert_close(B, **printed(0.5, 0.866025, 1.118034, 1.322876))


def test_fout_and_lagt_printed():
    A, B, _ = fout(4)
    assert_close(A, **printed(
        [-1, 0, -1.414214, 0], [0, 0, 0, 0], [-1.414214, 0, -2, -3.141593], [0, 0, 3.141593, 0]
    ))  # fmt: skip
    assert_close(B, **printed(1, 0, 1.414214, 0))
    A, B, _ = lagt(3)
    assert_close(A, **printed([-0.5, 0, 0], [-1, -0.5, 0], [-1, -1, -0.5]))
    assert_close(B, **printed(1, 1, 1))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_low_rank_part_leaves_a_skew_matrix(family, n):
    A, _, P = family(n)
    S = A + P @ P.T
    S = S - S.diagonal().mean() * torch.eye(n)
    assert_close(S, -S.T)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [2, 4, 16, 64])
def test_half_spectrum_rebuilds_the_matrix(family, n):
    hippo = family(n)
    A, P, B, V = diagonalize(hippo)
    whole = torch.cat([V, V.conj()], dim=-1)
    assert_close(whole @ whole.mH, torch.eye(n, dtype=torch.complex128))
    assert_close(2 * (V * A @ V.mH).real, hippo.A + hippo.P @ hippo.P.T)
    assert_close(2 * (V @ P).real, hippo.P)
    assert_close(2 * (V @ B).real, hippo.B)
    assert (A.imag >= 0).all()
    assert (A.imag.diff() > 0).all()
    assert (B.real >= 0).all()
    assert not B.imag.any()


@pytest.mark.parametrize("family", FAMILIES)
def test_low_rank_system_is_the_hippo_system(family):
    hippo = family(8)
    spectrum = diagonalize(hippo)
    C = torch.randn(1, 8, dtype=torch.float64)
    D = torch.zeros(1, 1, dtype=torch.float64)
    dense = DenseSystem(hippo.A, hippo.B[:, None], C, D)
    low_rank = DPLRSystem(
        spectrum.A, spectrum.P, spectrum.P, spectrum.B[:, None],
        C.to(spectrum.V.dtype) @ spectrum.V, D, conjugate=True,
    )  # fmt: skip
    for rule in (Bilinear(), ZeroOrderHold()):
        expected = dense.discretize(rule, 0.05).impulse_response(20)
        assert_close(low_rank.discretize(rule, 0.05).impulse_response(20), expected)


def test_legs_basis_is_warped_legendre():
    n = 6
    A, B, _ = legs(n)
    for t in (0.0, 0.3, 1.0, 2.5):
        actual = torch.linalg.matrix_exp(t * A) @ B
        x = 2 * math.exp(-t) - 1
        polynomials = [legval(x, np.eye(n)[k]) for k in range(n)]
        expected = torch.tensor(polynomials, dtype=torch.float64) * B * math.exp(-t)
        assert_close(actual, expected)


def test_legs_bilinear_and_hold_printed():
    A, B, _ = legs(4)
    one, zero = torch.ones(1, 4, dtype=torch.float64), torch.zeros(1, 1, dtype=torch.float64)
    system = DenseSystem(A, B[:, None], one, zero)
    bilinear = system.discretize(Bilinear(), 0.1)
    assert_close(bilinear.A[0], **printed(0.90476190, 0, 0, 0, digits=8))
    assert_close(
        bilinear.A[3], **printed(-0.14192342, -0.27169421, -0.42870143, 0.66666667, digits=8)
    )
    assert_close(
        bilinear.B[:, 0], **printed(0.09523810, 0.14996111, 0.15992957, 0.14192342, digits=8)
    )
    assert_close(
        bilinear.impulse_response(6).flatten(),
        **printed(
            0.54705220, 0.22343937, 0.06399393, -0.00459942, -0.02562155, -0.02392916, digits=8
        ),
    )
    hold = system.discretize(ZeroOrderHold(), 0.1)
    assert_close(hold.A[0, :1], **printed(0.90483742, digits=8))
    assert_close(hold.A[3], **printed(-0.12973409, -0.25510951, -0.41707283, 0.67032005, digits=8))
    assert_close(hold.B[:, 0], **printed(0.09516258, 0.14914112, 0.15589508, 0.12973409, digits=8))


def test_s4d_initial_values():
    A, B = s4d_lin(4)
    assert_close(A, torch.tensor([-0.5, -0.5 + math.pi * 1j], dtype=torch.complex128))
    assert_close(B, torch.ones(2, dtype=torch.complex128))
    A, _ = s4d_inv(4)
    assert_close(A.imag, **printed(3.8197, 0.42441, digits=4))
    A, B = s4d_legs(4)
    assert_close(A.imag, **printed(0.556501, 4.603293))
    assert_close(B.abs().square().sum() * 2, legs(4).B.square().sum())
    A, B = s4d_real(3)
    assert_close(A, torch.tensor([-1.0, -2.0, -3.0], dtype=torch.float64))
    assert_close(B, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("make", [fout, s4d_lin, s4d_inv, s4d_legs])
def test_odd_sizes_are_refused(make):
    with pytest.raises(ValueError, match="n must be even and at least 2"):
        make(5)


@pytest.mark.parametrize("make", [legs, legt, lagt, s4d_real])
def test_empty_sizes_are_refused(make):
    with pytest.raises(ValueError, match="n must be at least 1; got 0"):
        make(0)
