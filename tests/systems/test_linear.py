"""Diagonal, low-rank and dense systems: against each other, SciPy, matrix powers and the FFT."""

import numpy as np
import pytest
import scipy.signal
import torch
from torch.testing import assert_close

from longstate.systems import Bilinear, DenseSystem, DiagonalSystem, DPLRSystem, ZeroOrderHold


def make(kind, conjugate, *, batch=(), n=4, i=2, o=3, seed=0, dtype=torch.complex128):
    g = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*batch, *shape, dtype=dtype, generator=g)

    A = torch.complex(-0.2 - draw(n).real.abs(), 3 * draw(n).real)
    B, C, D = draw(n, i), draw(o, n), draw(o, i)
    D = D.real if conjugate else D
    if kind == "dense":
        return DenseSystem(draw(n, n).real - 3 * torch.eye(n), B.real, C.real, D.real)
    if kind == "dplr":
        P = draw(n, 2)
        return DPLRSystem(A, P, P, B, C, D, conjugate=conjugate)
    return DiagonalSystem(A, B, C, D, conjugate=conjugate)


CASES = [("dense", False), *((k, c) for k in ("diagonal", "dplr") for c in (False, True))]
every_kind = pytest.mark.parametrize(("kind", "conjugate"), CASES)


def full_matrix(system, conjugate):
    """The complex state matrix over the whole spectrum, written down independently."""
    A, B, C = system.A, system.B, system.C
    if isinstance(system, DenseSystem):
        return A.to(torch.complex128), B.to(torch.complex128), C.to(torch.complex128)
    P = system.P if isinstance(system, DPLRSystem) else None
    if conjugate:
        A, B = torch.cat([A, A.conj()], -1), torch.cat([B, B.conj()], -2)
        C = torch.cat([C, C.conj()], -1)
        P = None if P is None else torch.cat([P, P.conj()], -2)
    A = torch.diag_embed(A)
    return (A if P is None else A - P @ P.mH), B, C


def by_powers(A, B, C, D, length):
    k, x = [], B
    for _ in range(length):
        k.append(C @ x)
        x = A @ x
    k[0] = k[0] + D
    return torch.stack(k, dim=-3)


@every_kind
def test_impulse_response_is_powers_of_the_full_matrix(kind, conjugate):
    system = make(kind, conjugate, batch=(2,))
    A, B, C = full_matrix(system, conjugate)
    A_bar, B_bar = Bilinear().dense(A, B, 0.1)
    for length in (1, 2, 7, 32, 45):
        k = system.discretize(Bilinear(), 0.1).impulse_response(length)
        expected = by_powers(A_bar, B_bar, C, system.D, length)
        if conjugate or kind == "dense":
            assert not k.is_complex()
            assert_close(expected.imag, torch.zeros_like(expected.imag))
            expected = expected.real
        assert_close(k, expected)


@every_kind
@pytest.mark.parametrize("rule", [ZeroOrderHold(), Bilinear()])
def test_dense_form_is_the_same_system(kind, conjugate, rule):
    system = make(kind, conjugate)
    dense = system.to_dense()
    assert dense.d_state == system.d_state * (2 if conjugate else 1)
    assert dense.A.is_complex() == (kind != "dense" and not conjugate)
    w = torch.linspace(-20, 20, 9, dtype=torch.float64)
    assert_close(system.frequency_response(w), dense.frequency_response(w))
    one, other = system.discretize(rule, 0.2), dense.discretize(rule, 0.2)
    assert_close(one.impulse_response(9), other.impulse_response(9))
    assert_close(one.to_dense().impulse_response(9), other.impulse_response(9))
    assert_close(one.frequency_response(w / 7), other.frequency_response(w / 7))


@every_kind
def test_frequency_response_is_scipy(kind, conjugate):
    system = make(kind, conjugate, i=1, o=1)
    A, B, C = full_matrix(system, conjugate)
    w = np.linspace(-10, 10, 11)
    numbers = [x.numpy() for x in (A, B, C, system.D)]
    expected = numbers[2] @ np.linalg.solve(
        1j * w[:, None, None] * np.eye(len(numbers[0])) - numbers[0], numbers[1][None]
    )
    assert_close(
        system.frequency_response(torch.from_numpy(w)), torch.from_numpy(expected) + system.D
    )
    if conjugate or kind == "dense":
        real = system.to_dense()
        numbers = [x.numpy() for x in (real.A, real.B, real.C, real.D)]
        _, expected = scipy.signal.freqresp(scipy.signal.StateSpace(*numbers), w)
        actual = system.frequency_response(torch.from_numpy(w))[:, 0, 0]
        assert_close(actual, torch.from_numpy(expected))


@every_kind
def test_frequency_response_is_the_transform_of_the_impulse_response(kind, conjugate):
    system = make(kind, conjugate).discretize(ZeroOrderHold(), 0.5)
    length = 512  # the slowest mode has decayed to rounding
    k = system.impulse_response(length)
    w = torch.arange(length, dtype=torch.float64) * (2 * torch.pi / length)
    assert_close(system.frequency_response(w), torch.fft.fft(k, dim=0))


@pytest.mark.parametrize("conjugate", [False, True])
def test_a_low_rank_system_may_be_a_recurrence(conjugate):
    """Not made by a rule, but as it stands."""
    g = torch.Generator().manual_seed(0)
    A = torch.polar(torch.rand(4, generator=g) / 2, 3 * torch.rand(4, generator=g)).to(
        torch.complex128
    )
    P, B = (0.2 * torch.randn(4, 2, dtype=torch.complex128, generator=g) for _ in range(2))
    C, D = B.mT, torch.ones(2, 2, dtype=torch.float64)
    system = DPLRSystem(A, P, P, B, C, D, conjugate=conjugate, discrete=True)
    length = 256  # the slowest mode has decayed to rounding
    k = system.impulse_response(length)
    w = torch.arange(length, dtype=torch.float64) * (2 * torch.pi / length)
    assert_close(system.frequency_response(w), torch.fft.fft(k, dim=0))


def test_convention_against_scipy_is_one_delay():
    system = make("dense", False).discretize(Bilinear(), 0.1)
    numbers = tuple(x.numpy() for x in (system.A, system.B, system.C, 0 * system.D))
    _, responses = scipy.signal.dimpulse((*numbers, 1), n=6)
    ours = system.impulse_response(5) - 0
    for i, response in enumerate(responses):
        assert_close(ours[1:, :, i], torch.from_numpy(response[2:]))


@every_kind
def test_state_response_is_powers(kind, conjugate):
    system = make(kind, conjugate, batch=(2,)).discretize(Bilinear(), 0.1)
    n = system.d_state
    h0 = torch.randn(2, n, dtype=torch.complex128)
    if kind == "dense" or (kind, conjugate) == ("dplr", True):
        h0 = h0.real
    A, _, C = full_matrix(system, conjugate)
    h = torch.cat([h0, h0.conj()], -1) if conjugate and n * 2 == A.shape[-1] else h0
    h = h.to(torch.complex128)
    for length in (1, 6):
        expected, x = [], h.unsqueeze(-1)
        for _ in range(length):
            x = A @ x
            expected.append((C @ x).squeeze(-1))
        expected = torch.stack(expected, dim=-2)
        actual = system.state_response(h0, length)
        assert_close(actual, expected if actual.is_complex() else expected.real)


def test_low_rank_discrete_system():
    system = make("dplr", True)
    discrete = DPLRSystem(
        0.1 * system.A, 0.1 * system.P, system.P, system.B, system.C, system.D,
        conjugate=True, discrete=True,
    )  # fmt: skip
    k = discrete.impulse_response(5)
    A, B, C = full_matrix(system, True)
    assert_close(k, by_powers(0.1 * A, B, C, system.D, 5).real)
    h0 = torch.randn(4, dtype=torch.complex128)
    expected = by_powers(0.1 * A, 0.1 * A @ torch.cat([h0, h0.conj()])[:, None], C, 0, 5).real
    assert_close(discrete.state_response(h0, 5), expected.squeeze(-1))


def test_real_diagonal_system():
    A = torch.tensor([-1.0, -3.0, 0.0], dtype=torch.float64)
    one = torch.ones(3, 1, dtype=torch.float64)
    system = DiagonalSystem(A, one, one.mT, torch.zeros(1, 1, dtype=torch.float64))
    discrete = system.discretize(ZeroOrderHold(), 0.5)
    k = discrete.impulse_response(20)
    assert not k.is_complex()
    assert_close(k, discrete.to_dense().impulse_response(20))


def test_steps_broadcast_over_the_batch():
    dt = torch.tensor([0.1, 0.3], dtype=torch.float64)
    for kind, conjugate in CASES:
        system = make(kind, conjugate)
        many = system.discretize(ZeroOrderHold(), dt).impulse_response(5)
        for row, step in zip(many, dt, strict=True):
            assert_close(row, system.discretize(ZeroOrderHold(), step).impulse_response(5))


def test_scalar_kernel_by_hand():
    one = torch.ones(1, 1, dtype=torch.float64)
    system = DenseSystem(-one, one, one, 5 * one).discretize(Bilinear(), 1.0)
    expected = torch.tensor([5 + 2 / 3, 2 / 9, 2 / 27], dtype=torch.float64)
    assert_close(system.impulse_response(3).flatten(), expected)


def test_s4d_lin_kernel_known_answer():
    A = -0.5 + 1j * torch.pi * torch.arange(2, dtype=torch.float64)
    one = torch.ones(2, 1, dtype=torch.complex128)
    D = torch.zeros(1, 1, dtype=torch.float64)
    system = DiagonalSystem(A, one, one.mT, D, conjugate=True)
    hold = [0.38701121, 0.35034119, 0.30098495, 0.24402016, 0.18480892]
    bilinear = [0.38576660, 0.34987723, 0.30144490, 0.24536250, 0.18682839]
    for rule, expected in ((ZeroOrderHold(), hold), (Bilinear(), bilinear)):
        k = system.discretize(rule, 0.1).impulse_response(5).flatten()
        assert [round(x, 8) for x in k.tolist()] == expected


def test_rate_identity_of_the_hold():
    system = make("diagonal", True)
    system = DiagonalSystem(system.A, system.B, system.C, 0 * system.D, conjugate=True)
    slow = system.discretize(ZeroOrderHold(), 0.2).impulse_response(8)
    fast = system.discretize(ZeroOrderHold(), 0.1).impulse_response(16)
    assert_close(slow, fast[0::2] + fast[1::2])


@every_kind
def test_gradients(kind, conjugate):
    system = make(kind, conjugate, n=2)
    names = [k for k in ("A", "P", "Q", "B", "C", "D") if hasattr(system, k)]
    flags = {} if kind == "dense" else {"conjugate": conjugate}
    w = torch.tensor([0.3, 2.0], dtype=torch.float64)

    def responses(*matrices):
        one = type(system)(*matrices, **flags)
        return one.discretize(Bilinear(), 0.3).impulse_response(5), one.frequency_response(w)

    leaves = [getattr(system, k).clone().requires_grad_() for k in names]
    assert torch.autograd.gradcheck(responses, leaves)


@every_kind
def test_float32_keeps_six_digits(kind, conjugate):
    single, wide = (
        make(kind, conjugate, dtype=dtype) for dtype in (torch.complex64, torch.complex128)
    )
    names = [k for k in ("A", "P", "Q", "B", "C", "D") if hasattr(single, k)]
    flags = {} if kind == "dense" else {"conjugate": conjugate}
    wide = type(single)(*(getattr(single, k).to(getattr(wide, k).dtype) for k in names), **flags)
    for rule in (ZeroOrderHold(), Bilinear()):
        one, other = single.discretize(rule, 0.1), wide.discretize(rule, 0.1)
        for k in ("A", "B"):
            exact = getattr(other, k)
            error = (getattr(one, k).to(exact.dtype) - exact).abs().max() / exact.abs().max()
            assert error < 1e-6


@every_kind
def test_refusals(kind, conjugate):
    system = make(kind, conjugate)
    with pytest.raises(ValueError, match="impulse_response needs a discrete system"):
        system.impulse_response(3)
    with pytest.raises(ValueError, match="state_response needs a discrete system"):
        system.state_response(system.A[..., 0], 3)
    discrete = system.discretize(Bilinear(), 0.1)
    with pytest.raises(ValueError, match="discrete already"):
        discrete.discretize(Bilinear(), 0.1)
    with pytest.raises(ValueError, match="length must be at least 1; got 0"):
        discrete.impulse_response(0)
    with pytest.raises(ValueError, match="w must be real"):
        system.frequency_response(torch.ones(2, dtype=torch.complex64))


def test_shapes_are_checked():
    A, M = torch.zeros(3), torch.zeros(3, 3)
    B, C, D = torch.zeros(3, 1), torch.zeros(2, 3), torch.zeros(2, 1)
    for wrong, message in [
        (lambda: DiagonalSystem(A, B.mT, C, D), r"B must be \(\.\.\., 3, i\); got \(1, 3\)"),
        (lambda: DiagonalSystem(A, B, C.mT, D), r"C must be \(\.\.\., o, 3\); got \(3, 2\)"),
        (lambda: DiagonalSystem(A, B, torch.zeros(2, 4), D), r"C must be .*; got \(2, 4\)"),
        (lambda: DiagonalSystem(A, torch.zeros(4, 1), C, D), r"B must be .*; got \(4, 1\)"),
        (lambda: DiagonalSystem(A, B, C, D.mT), r"D must be \(\.\.\., 2, 1\); got \(1, 2\)"),
        (lambda: DiagonalSystem(A, B, C, D[0]), r"D must be a matrix"),
        (lambda: DiagonalSystem(A.expand(2, 3), B.expand(5, 3, 1), C, D), "do not broadcast"),
        (lambda: DiagonalSystem(A, B, C, D * 1j, conjugate=True), "D must be real"),
        (lambda: DenseSystem(C, B, C, D), r"A must be \(\.\.\., n, n\); got \(2, 3\)"),
        (lambda: DPLRSystem(A, C, B, B, C, D), r"P must be \(\.\.\., 3, r\); got \(2, 3\)"),
        (lambda: DPLRSystem(A, B, M, B, C, D), "same rank"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()
