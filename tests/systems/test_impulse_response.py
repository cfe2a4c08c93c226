"""Impulse responses against powers, the S4 paper's own kernels, and its generating function."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from torch.testing import assert_close

from longstate.systems import Bilinear, DenseSystem, DiagonalSystem, DPLRSystem, ZeroOrderHold
from longstate.testing import assert_within_reference_error
from tests.golden import assert_parity, golden
from tests.layers.s4_oracle import dplr_kernel, fft_conv
from tests.ops.helpers import randn, uniform

C128 = torch.complex128
LENGTHS = [1, 2, 3, 4, 5, 17, 64, 100]


def bases(*shape):
    """In and on the unit circle, with zeros, ones and negative numbers among them."""
    a = torch.polar(uniform(*shape, low=0.5, seed=1), uniform(*shape, low=-3, high=3, seed=2))
    a[..., 0::7], a[..., 1::7], a[..., 2::7] = 0, 1, -0.9
    return a


def recurrence(A, B, C, length):
    """C A^l B (..., length, o, i), one product after another."""
    batch = torch.broadcast_shapes(A.shape[:-2], B.shape[:-2])
    found, B = [], B.expand(*batch, *B.shape[-2:])
    for _ in range(length):
        found.append(C @ B)
        B = A @ B
    return torch.stack(found, dim=-3)


def diagonal(dtype=C128, conjugate=False, n=9):
    a, B, C = (x.to(dtype) for x in (bases(3, n), randn(n, 2, dtype=C128), randn(2, 1, 4, n)))
    D = torch.zeros(4, 2, dtype=dtype.to_real())
    return DiagonalSystem(a, B, C, D, conjugate=conjugate, discrete=True)


@pytest.mark.parametrize("conjugate", [True, False])
@pytest.mark.parametrize("length", LENGTHS)
def test_diagonal_is_the_recurrence(conjugate, length):
    system = diagonal(conjugate=conjugate)
    expected = recurrence(torch.diag_embed(system.A), system.B, system.C, length)
    h0 = randn(3, 9, dtype=C128, seed=5)
    left = recurrence(torch.diag_embed(system.A), (system.A * h0)[..., None], system.C, length)
    if conjugate:
        expected, left = 2 * expected.real, 2 * left.real
    assert_close(system.impulse_response(length), expected)
    assert_close(system.state_response(h0, length), left[..., 0])


def test_a_real_diagonal_system_has_a_real_response():
    A, B, C = uniform(5, low=-1), randn(5, 1), randn(1, 5, seed=1)
    k = DiagonalSystem(A, B, C, torch.zeros(1, 1), discrete=True).impulse_response(20)
    assert_close(k, recurrence(torch.diag(A), B, C, 20))


@pytest.mark.parametrize("length", LENGTHS)
def test_dense_is_the_recurrence(length):
    A, B, C = randn(2, 1, 4, 4, seed=1) / 3, randn(3, 4, 2, seed=2), randn(4, 4, dtype=C128)[:3]
    system = DenseSystem(A, B, C, torch.zeros(3, 2), discrete=True)
    expected = recurrence(A.to(C128), B.to(C128), C, length).expand(2, 3, length, 3, 2)
    assert_close(system.impulse_response(length), expected)


def test_gradients():
    A, B, C = (randn(*s, seed=i).requires_grad_() for i, s in enumerate([(3, 3), (3, 1), (2, 3)]))
    a = bases(3).requires_grad_()
    D = torch.zeros(2, 1, dtype=torch.float64)

    def dense(A, B, C):
        return DenseSystem(A, B, C, D, discrete=True).impulse_response(6)

    def diagonal(a, B, C):
        return DiagonalSystem(a, B, C, D, conjugate=True, discrete=True).impulse_response(6)

    assert torch.autograd.gradcheck(dense, (A, B, C))
    assert torch.autograd.gradcheck(diagonal, (a, B, C))
    assert torch.autograd.gradgradcheck(diagonal, (a, B, C))


def test_float32_error_budget():
    A = (torch.linalg.qr(randn(16, 16))[0] * 0.999).float()
    B, C, D = randn(16, 1, seed=1).float(), randn(1, 16, seed=2).float(), torch.zeros(1, 1)
    exact = recurrence(A.double(), B.double(), C.double(), 500)
    k = DenseSystem(A, B, C, D, discrete=True).impulse_response(500)
    assert_within_reference_error(k, exact, recurrence(A, B, C, 500))
    system = diagonal(torch.complex64, conjugate=True)
    full = torch.diag_embed(system.A)
    exact = 2 * recurrence(full.to(C128), system.B.to(C128), system.C.to(C128), 500).real
    plain = 2 * recurrence(full, system.B, system.C, 500).real
    assert_within_reference_error(system.impulse_response(500), exact, plain)


def test_float32_powers_stay_accurate():
    # One state on the unit circle: the table, the weight and the sum round once each, at any lag.
    length = 16384
    a = torch.polar(torch.ones(1), torch.tensor([0.3]))
    one = torch.ones(1, 1, dtype=a.dtype)
    k = DiagonalSystem(a, one, one, torch.zeros(1, 1), discrete=True).impulse_response(length)
    exact = a.to(C128) ** torch.arange(length, dtype=torch.float64)
    assert (k.flatten() - exact).abs().max() < 2 * torch.finfo(torch.float32).eps


def test_traces_as_one_graph():
    def response(A):
        one = torch.ones(4, 1, dtype=A.dtype)
        return DiagonalSystem(A, one, one.mT, torch.zeros(1, 1), discrete=True).impulse_response(12)

    compiled = torch.compile(response, fullgraph=True, backend="aot_eager")
    assert_close(compiled(bases(4)), response(bases(4)))


# The paper's own route


def low_rank(n=4, rank=1, batch=(3,), tied=True):
    """A stable system near the imaginary axis, as S4's are."""
    A = torch.complex(-0.5 - uniform(*batch, n, seed=1), 20 * randn(*batch, n, seed=2))
    P = randn(*batch, n, rank, dtype=C128, seed=3)
    Q = P if tied else 0.3 * randn(*batch, n, rank, dtype=C128, seed=4)
    B, C = randn(*batch, n, dtype=C128, seed=5), randn(*batch, n, dtype=C128, seed=6)
    return A, P, Q, B, C, 0.02 + 0.1 * uniform(1, *batch, seed=7)[0]


def by_system(A, P, Q, B, C, dt, length):
    D = torch.zeros(1, 1, dtype=A.dtype.to_real())
    system = DPLRSystem(A, P, Q, B[..., None], C[..., None, :], D, conjugate=True)
    return system.discretize(Bilinear(), dt).impulse_response(length)[..., 0, 0]


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 16, 45, 128])
def test_low_rank_response_is_the_generating_function(rank, length):
    for tied in (True, False):
        system = low_rank(rank=rank, tied=tied)
        assert_close(by_system(*system, length), dplr_kernel(*system, length))


def parameters(name):
    """Of a golden file, with its complex numbers put together, and the kernel made from them."""
    arrays = golden(name)
    p = {k.removeprefix("kernel__"): v for k, v in arrays.items() if k.startswith("kernel__")}
    p |= {k: torch.view_as_complex(p[k]) for k in ("B", "C", "P") if k in p}
    p["A"] = torch.complex(-p["A_real"].exp(), -p["A_imag"])
    p["dt"] = p["inv_dt"].exp().squeeze(-1)
    return p, arrays["K"]


@pytest.mark.parametrize("sides", ["", "_bi"])
@pytest.mark.parametrize("name", ["legs_zoh", "diag-lin_bilinear", "diag-inv_zoh"])
def test_diagonal_response_is_the_papers_code(name, sides):
    p, K = parameters(f"s4_diag_{name}{sides}")
    rule = ZeroOrderHold() if name.endswith("zoh") else Bilinear()
    D = torch.zeros(1, 1)
    system = DiagonalSystem(p["A"], p["B"][0, ..., None], p["C"][..., None, :], D, conjugate=True)
    k = system.discretize(rule, p["dt"]).impulse_response(K.shape[-1])
    assert_parity(k[..., 0, 0], K)


@pytest.mark.parametrize("sides", ["", "_bi"])
@pytest.mark.parametrize("make", [dplr_kernel, by_system])
def test_low_rank_response_is_the_papers_code(make, sides):
    p, K = parameters(f"s4_dplr_legs_bilinear{sides}")
    A, B, P, dt = p["A"], p["B"][0], p["P"][0].unsqueeze(-1), p["dt"]
    # The file's C is C~ = C (I - A_bar^length); ours is C.
    wide = DPLRSystem(*(x.to(C128) for x in (A, P, P, B[..., None], B[..., None, :])),
                      torch.zeros(1, 1).double(), conjugate=True)  # fmt: skip
    A_bar = wide.discretize(Bilinear(), dt.double()).A  # over the real state (Re x, Im x)
    whole = torch.eye(A_bar.shape[-1]).double() - torch.linalg.matrix_power(
        A_bar, int(p["l_kernel"])
    )
    row = torch.cat([p["C"].real, -p["C"].imag], -1).double()
    re, im = torch.linalg.solve(whole.mT, row[..., None])[..., 0].chunk(2, dim=-1)
    C = torch.complex(re, -im).to(torch.complex64)
    assert_parity(make(A, P, P, B, C, dt, K.shape[-1]), K)


@pytest.mark.parametrize(
    "name", ["dplr_legs_bilinear", "diag_legs_zoh", "diag_diag-lin_bilinear", "diag_diag-inv_zoh"]
)
@pytest.mark.parametrize("sides", ["", "_bi"])
def test_convolution_is_the_papers_code(name, sides):
    file = golden(f"s4_{name}{sides}")
    u, K = file["x"].mT, file["K"]
    y = fft_conv(u, K[0], K[1] if sides else None) + file["D"] * u
    assert_parity(y, file["y"].mT)


def test_the_oracles_convolution_is_scipys():
    u, k, k_reverse = randn(1, 20, 1), randn(1, 20, seed=1), randn(1, 20, seed=2)
    whole = np.concatenate([k_reverse[0].flip(0).numpy(), k[0].numpy()])
    expected = scipy.signal.convolve(u[0, :, 0].numpy(), whole)[20:40]
    assert_close(fft_conv(u, k, k_reverse)[0, :, 0], torch.from_numpy(expected))


def test_dss_softmax_printed():
    # k_l = 2 Re sum_n (1 / lambda_n) softmax over l of (lambda_n dt l), S4D-Lin with n = 4
    lam, dt, length = -0.5 + 1j * math.pi * torch.arange(2, dtype=torch.float64), 0.1, 5
    w = (torch.exp(lam * dt) - 1) / (torch.exp(lam * dt * length) - 1) / lam
    one, D = torch.ones(2, 1, dtype=C128), torch.zeros(1, 1, dtype=torch.float64)
    system = DiagonalSystem(torch.exp(lam * dt), one, w[None], D, conjugate=True, discrete=True)
    k = system.impulse_response(length).flatten()
    printed = torch.tensor([-0.98678695, -0.90091496, -0.81529917, -0.73428111, -0.66153592])
    assert_parity(k, printed.double())
