"""S4's kernel and the dense kernels, against powers of the full matrix and the authors' numbers."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate.ops.ssm_kernel import (
    dense_final_state,
    dense_kernel,
    dplr_kernel,
    dplr_state_response,
    vandermonde,
)
from longstate.systems import Bilinear, ZeroOrderHold, diagonalize, legs
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import randn, uniform

GOLDEN = Path(__file__).parents[1] / "golden"
C128 = torch.complex128


def draw(n=4, rank=1, batch=(3,), tied=True):
    """A stable system near the imaginary axis, as S4's are."""
    A = torch.complex(-0.5 - uniform(*batch, n, seed=1), 20 * randn(*batch, n, seed=2))
    P = randn(*batch, n, rank, dtype=C128, seed=3)
    Q = P if tied else 0.3 * randn(*batch, n, rank, dtype=C128, seed=4)
    B, C = randn(*batch, n, dtype=C128, seed=5), randn(*batch, n, dtype=C128, seed=6)
    return A, P, Q, B, C, 0.02 + 0.1 * uniform(1, *batch, seed=7)[0]


def full(A, P, Q, B, C, conjugate):
    """The matrices over the whole spectrum, written down."""
    if conjugate:
        A, B, C = (torch.cat([x, x.conj()], -1) for x in (A, B, C))
        P, Q = (torch.cat([x, x.conj()], -2) for x in (P, Q))
    return torch.diag_embed(A) - P @ Q.mH, B, C


def discrete(A, P, Q, B, C, dt, conjugate):
    A, B, C = full(A, P, Q, B, C, conjugate)
    half = dt[..., None, None] / 2 * A
    eye = torch.eye(A.shape[-1], dtype=A.dtype)
    A_bar = torch.linalg.solve(eye - half, eye + half)
    B_bar = torch.linalg.solve(eye - half, (dt[..., None] * B)[..., None])
    return A_bar, B_bar, C.unsqueeze(-2)


def powers(A, B, C, length):
    """C A^l B, by the recurrence; the plain reference."""
    k = []
    for _ in range(length):
        k.append((C @ B)[..., 0, 0])
        B = A @ B
    return torch.stack(k, dim=-1)


both = pytest.mark.parametrize("conjugate", [True, False])


@both
@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("length", [1, 2, 3, 4, 16, 45, 128])
def test_kernel_is_powers(conjugate, rank, length):
    for tied in (True, False):
        system = draw(rank=rank, tied=tied)
        expected = powers(*discrete(*system, conjugate), length)
        k = dplr_kernel(*system, length, conjugate=conjugate)
        assert k.is_complex() != conjugate
        assert_close(k, expected.real if conjugate else expected)
        assert_close(dplr_kernel(*system, length, conjugate=conjugate, impl="reference"), k)


@pytest.mark.parametrize(("n", "length", "dt"), [(4, 16, 0.1), (64, 256, 0.01), (64, 255, 0.01)])
def test_kernel_of_legs(n, length, dt):
    A, P, B, V = diagonalize(legs(n))
    C = (torch.ones(n, dtype=C128) @ V).conj().resolve_conj()
    step = torch.tensor(dt, dtype=torch.float64)
    k = dplr_kernel(A, P, P, B, C, step, length)
    hippo = legs(n)
    half = dt / 2 * hippo.A
    A_bar = torch.linalg.solve(torch.eye(n) - half, torch.eye(n) + half)
    B_bar = torch.linalg.solve(torch.eye(n) - half, dt * hippo.B)
    assert_close(k, powers(A_bar, B_bar[:, None], (V @ C.conj()).real[None] * 2, length))


@both
def test_limit_at_minus_one(conjugate):
    # The transform of the kernel at w = -1 is its alternating sum.
    length = 32
    A, P, Q, B, C, dt = draw()
    k = dplr_kernel(A, P, Q, B, C, dt, length, conjugate=conjugate)
    sign = 1 - 2 * (torch.arange(length) % 2)
    A_bar, _, _ = discrete(A, P, Q, B, C, dt, conjugate)
    _, B_full, C_full = full(A, P, Q, B, C, conjugate)
    C_tilde = C_full - (C_full.unsqueeze(-2) @ torch.linalg.matrix_power(A_bar, length)).squeeze(-2)
    expected = dt / 2 * (C_tilde * B_full).sum(-1)
    assert_close((k * sign).sum(-1), expected.real if conjugate else expected)


@both
@pytest.mark.parametrize("length", [1, 5, 20])
def test_state_response_is_powers(conjugate, length):
    A, P, Q, _, C, dt = draw(rank=2)
    h0 = randn(2, 3, 4, dtype=C128, seed=8)
    A_bar, _, C_full = discrete(A, P, Q, h0[0], C, dt, conjugate)
    h = torch.cat([h0, h0.conj()], -1) if conjugate else h0
    expected = powers(A_bar, A_bar @ h.unsqueeze(-1), C_full, length)
    y = dplr_state_response(A, P, Q, h0, C, dt, length, conjugate=conjugate)
    assert_close(y, expected.real if conjugate else expected)


@both
@pytest.mark.parametrize("length", [6, 7])
def test_gradients(conjugate, length):
    leaves = [x.clone().requires_grad_() for x in draw(n=2, rank=2, batch=(), tied=False)]
    assert torch.autograd.gradcheck(lambda *x: dplr_kernel(*x, length, conjugate=conjugate), leaves)
    assert torch.autograd.gradcheck(
        lambda *x: dplr_state_response(*x, length, conjugate=conjugate), leaves
    )


def test_arguments_broadcast():
    A, P, Q, B, _, _ = draw(batch=())
    many_C, many_dt = randn(2, 1, 4, dtype=C128), 0.1 * uniform(3)
    k = dplr_kernel(A, P, Q, B, many_C, many_dt, 10)
    assert k.shape == (2, 3, 10)
    assert_close(k[1, 2], dplr_kernel(A, P, Q, B, many_C[1, 0], many_dt[2], 10))


@pytest.mark.parametrize("length", [255, 256])
def test_float32_error_budget(length):
    A, P, B, _ = (x.to(torch.complex64) for x in diagonalize(legs(64)))
    C = randn(4, 32, dtype=C128).to(torch.complex64)
    dt = torch.tensor([1e-3, 1e-2, 0.03, 0.1])
    wide = [x.to(C128) for x in (A, P, P, B, C)]
    exact = powers(*discrete(*wide, dt.double(), True), length).real
    plain = powers(*discrete(A, P, P, B, C, dt, True), length).real
    k = dplr_kernel(A, P, P, B, C, dt, length)
    assert_within_reference_error(k, exact, plain)
    h0 = randn(4, 32, dtype=C128).to(torch.complex64)
    y = dplr_state_response(A, P, P, h0, C, dt, length)
    results = []
    for dtype, step in ((C128, dt.double()), (torch.complex64, dt)):
        low = [x.to(dtype) for x in (A, P, P, h0, C)]
        A_bar, _, C_full = discrete(*low, step, True)
        h = torch.cat([low[3], low[3].conj()], -1).unsqueeze(-1)
        results.append(powers(A_bar, A_bar @ h, C_full, length).real)
    assert_within_reference_error(y, *results)


def test_traces_without_breaks():
    system = draw()
    compiled = torch.compile(dplr_kernel, fullgraph=True, backend="aot_eager")
    assert_close(compiled(*system, 12), dplr_kernel(*system, 12))


def test_refusals():
    A, P, Q, B, C, dt = draw(batch=())
    for wrong, message in [
        (lambda: dplr_kernel(A.real, P, Q, B, C, dt, 3), "A must be complex"),
        (lambda: dplr_kernel(A, P, Q, B, C.real, dt, 3), "C must be complex"),
        (lambda: dplr_kernel(A, P, Q, B[:2], C, dt, 3), r"B must be \(\.\.\., 4\)"),
        (lambda: dplr_kernel(A, P.mT, Q, B, C, dt, 3), r"P must be \(\.\.\., 4, r\)"),
        (lambda: dplr_kernel(A, P, Q[:, :0], B, C, dt, 3), "same rank"),
        (lambda: dplr_kernel(A, P, Q, B, C, dt * 1j, 3), "dt must be real"),
        (lambda: dplr_kernel(A, P, Q, B, C, dt, 0), "length must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()


# Dense


@pytest.mark.parametrize("length", [1, 2, 3, 4, 5, 17, 64, 100])
def test_dense_kernel_is_powers(length):
    A, B, C = randn(2, 1, 4, 4, seed=1) / 3, randn(3, 4, 2, seed=2), randn(4, 4, dtype=C128)[:3]
    k = dense_kernel(A, B, C, length)
    expected, x = [], B.to(C128)
    for _ in range(length):
        expected.append(C @ x)
        x = A.to(C128) @ x
    expected = torch.stack([e.expand(2, 3, 3, 2) for e in expected], dim=-3)
    assert_close(k, expected)


@pytest.mark.parametrize("t", [1, 2, 3, 4, 5, 17, 64, 100])
def test_dense_final_state_is_the_recurrence(t):
    A, B, u = randn(3, 4, 4, seed=1) / 3, randn(4, 2, seed=2), randn(5, 1, t, 2, seed=3)
    h = torch.zeros(5, 3, 4, 1, dtype=torch.float64)
    for step in range(t):
        h = A @ h + B @ u[..., step, :, None]
    assert_close(dense_final_state(A, B, u), h.squeeze(-1))


def test_dense_gradients():
    A, B, C = (randn(*s, seed=i).requires_grad_() for i, s in enumerate([(3, 3), (3, 1), (2, 3)]))
    assert torch.autograd.gradcheck(lambda *x: dense_kernel(*x, 6), (A, B, C))
    u = randn(6, 1).requires_grad_()
    assert torch.autograd.gradcheck(dense_final_state, (A, B, u))


def test_dense_float32_error_budget():
    A = torch.linalg.qr(randn(16, 16))[0] * 0.999
    A, B, C = A.float(), randn(16, 1, seed=1).float(), randn(1, 16, seed=2).float()
    exact = powers(A.double(), B.double(), C.double(), 500)
    k = dense_kernel(A, B, C, 500)[:, 0, 0]
    assert_within_reference_error(k, exact, powers(A, B, C, 500))


def test_dense_refusals():
    A, B, C, u = torch.zeros(3, 3), torch.zeros(3, 1), torch.zeros(2, 3), torch.zeros(5, 1)
    for wrong, message in [
        (lambda: dense_kernel(C, B, C, 3), r"A must be \(\.\.\., n, n\)"),
        (lambda: dense_kernel(A, C, C, 3), r"B must be \(\.\.\., 3, i\)"),
        (lambda: dense_kernel(A, B, B, 3), r"C must be \(\.\.\., o, n\)"),
        (lambda: dense_kernel(A, B, C, 0), "length must be at least 1"),
        (lambda: dense_final_state(A, B, u.expand(5, 2)), r"u must be \(\.\.\., t, 1\)"),
        (lambda: dense_final_state(A, B, u[:0]), "u has no time steps"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()


# The authors' own code


def golden(name):
    path = GOLDEN / f"s4_{name}.npz"
    if not path.exists():
        pytest.skip(f"needs {path.name} of the shared golden files beside the repository")
    arrays = {k: torch.from_numpy(v) for k, v in np.load(path).items()}
    p = {k.removeprefix("kernel__"): v for k, v in arrays.items() if k.startswith("kernel__")}
    p |= {k: torch.view_as_complex(p[k]) for k in ("B", "C", "P") if k in p}
    p["A"] = torch.complex(-p["A_real"].exp(), -p["A_imag"])
    p["dt"] = p["inv_dt"].exp().squeeze(-1)
    return p, arrays["K"]


def assert_relative(k, expected, bound=1e-5):
    assert k.dtype == expected.dtype
    assert (k - expected).abs().max() < bound * expected.abs().max()


@pytest.mark.parametrize("sides", ["", "_bi"])
@pytest.mark.parametrize("name", ["legs_zoh", "diag-lin_bilinear", "diag-inv_zoh"])
def test_diagonal_golden(name, sides):
    p, K = golden(f"diag_{name}{sides}")
    rule = ZeroOrderHold() if name.endswith("zoh") else Bilinear()
    a, scale = rule.diagonal(p["A"], p["dt"][:, None])
    assert_relative(2 * vandermonde(p["C"] * p["B"] * scale, a, K.shape[-1]), K)


@pytest.mark.parametrize("sides", ["", "_bi"])
def test_low_rank_golden(sides):
    p, K = golden(f"dplr_legs_bilinear{sides}")
    length = int(p["l_kernel"])
    A, B, P, dt = p["A"], p["B"][0], p["P"][0].unsqueeze(-1), p["dt"]
    # The file's C is C~ = C (I - A_bar^length); this library stores C.
    wide = [x.to(C128) for x in (A, P, P, B)]
    tilde = p["C"].to(C128)
    A_bar, _, C_full = discrete(*wide, tilde, dt.double(), True)
    remaining = torch.eye(A_bar.shape[-1], dtype=C128) - torch.linalg.matrix_power(A_bar, length)
    C = torch.linalg.solve(remaining.mT, C_full.mT).squeeze(-1)[..., : A.shape[-1]]
    C = C.to(torch.complex64)
    assert_relative(dplr_kernel(A, P, P, B, C, dt, K.shape[-1]), K)


def test_dss_softmax_printed():
    # k_l = 2 Re sum_n (1 / lambda_n) softmax over l of (lambda_n dt l), S4D-Lin with n = 4
    lam, dt, length = -0.5 + 1j * math.pi * torch.arange(2, dtype=torch.float64), 0.1, 5
    w = (torch.exp(lam * dt) - 1) / (torch.exp(lam * dt * length) - 1) / lam
    k = vandermonde(2 * w, torch.exp(lam * dt), length)
    printed = torch.tensor([-0.98678695, -0.90091496, -0.81529917, -0.73428111, -0.66153592])
    assert_close(k, printed.double(), rtol=0, atol=1e-7)
