"""The S4 kernels in reduced precision, in threads, under Triton, and with what they refuse."""

import pytest
import torch
from torch.testing import assert_close

from longstate.ops.ssm_kernel import cauchy, moments, vandermonde
from tests.ops.helpers import (
    LENGTHS,
    assert_concurrent_calls_agree,
    assert_same_where_finite,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    assert_within_budget,
    randn,
    results,
    run_python,
    uniform,
)
from tests.ops.kernel_cases import (
    C128,
    case,
    every_sum,
)

# Reduced precision


@every_sum
def test_float32_error_budget(kind):
    call, tensors = case(kind, 600, r=2, n=20)
    assert_within_budget(call, "cpu", tensors)


def test_float32_powers_do_not_wear_out():
    # One state on the unit circle: table, weight, products and sum round once each, at any lag.
    length = 16384
    a = torch.polar(torch.ones(1, 1), torch.tensor([[0.3]]))
    k = vandermonde(torch.ones_like(a), a, length)
    exact = vandermonde(torch.ones_like(a, dtype=C128), a.to(C128), length)
    lags = torch.arange(length, dtype=torch.float64)
    assert_close(exact[0], (a.to(C128) ** lags).real[0])
    assert (k - exact).abs().max() < 2 * torch.finfo(torch.float32).eps


def test_wide_bases_make_float32_exact():
    length = 16384
    w = randn(1, 8, dtype=C128).to(torch.complex64)
    wide = torch.exp(torch.complex(-1e-4 * uniform(1, 8), 3 * randn(1, 8)))
    exact = vandermonde(w.to(C128), wide, length)
    k = vandermonde(w, wide, length)
    assert k.dtype == torch.float32
    # Three roundings of each term, and one in each addition.
    assert (k - exact).abs().max() < 12 * torch.finfo(torch.float32).eps * w.abs().sum()
    rounded = vandermonde(w, wide.to(torch.complex64), length)
    assert (rounded - exact).abs().max() > 20 * (k - exact).abs().max()
    u = randn(1, length).float()
    m = moments(u, wide)
    assert m.dtype == torch.complex64
    exact_m = moments(u.double(), wide)
    assert (m - exact_m).abs().max() < 1e-6 * exact_m.abs().max()


def test_cauchy_near_a_pole_keeps_its_digits():
    # Points at +-i 100 from poles a distance 1e-4 away: float32 differences would be worthless.
    z = 1j * torch.tensor([99.9999, 100.0, 100.1], dtype=torch.float64)
    pole = torch.tensor([[-1e-4 + 100j]], dtype=C128)
    v = torch.ones(1, 1, 1, dtype=torch.complex64)
    r, exact = cauchy(v, z, pole), cauchy(v.to(C128), z, pole, impl="reference")
    assert r.dtype == torch.complex64
    assert ((r - exact).abs() / exact.abs()).max() < 4 * torch.finfo(torch.float32).eps


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_propagate_as_in_the_reference(bad):
    for kind in ("vandermonde", "moments", "cauchy"):
        call, tensors = case(kind, 12)
        name = next(iter(tensors))
        tensors[name][1, ..., 2] = bad
        assert_same_where_finite(call("cpu", **tensors)[0], call("reference", **tensors)[0])
        call, tensors = case(kind, 12)
        tensors[list(tensors)[1]][2, 1] = float("nan")
        assert_same_where_finite(call("cpu", **tensors)[0], call("reference", **tensors)[0])


# Threads and processes


@every_sum
def test_sixteen_threads_at_once(kind):
    assert_concurrent_calls_agree(*case(kind, 2000, r=6))


@every_sum
def test_number_of_threads_does_not_show(kind):
    assert_thread_count_is_invisible(*case(kind, 2000, r=6))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_ssm_kernel import case; call, tensors = case('vandermonde', 2000, r=6)"
    )


# What it refuses


def test_refusals():
    w, a, u = torch.zeros(2, 3), torch.zeros(2, 3), torch.zeros(2, 5)
    v, p, z = (torch.zeros(*shape, dtype=C128) for shape in ((2, 4, 3), (2, 3), (6,)))
    for wrong, message in [
        (lambda: vandermonde(w, a[:, :2], 3), "w and the states do not fit"),
        (lambda: vandermonde(w, torch.zeros(5, 3), 3), "leading axes of w"),
        (lambda: vandermonde(w, a, 0), "length must be at least 1; got 0"),
        (lambda: vandermonde(w[:, :0], a[:, :0], 3), "do not fit"),
        (lambda: moments(u * 1j, a), "u must be real"),
        (lambda: moments(u[:, :0], a), "t > 0"),
        (lambda: moments(torch.zeros(5, 5), a), "leading axes of u"),
        (lambda: cauchy(v.real, z, p), "v must be complex"),
        (lambda: cauchy(v, z.real, p), "z must be complex"),
        (lambda: cauchy(v, z[None], p), r"z must be complex \(f\)"),
        (lambda: cauchy(v, z, p.real), "poles must be complex"),
        (lambda: cauchy(v, z.requires_grad_(), p), "z is a constant"),
        (lambda: cauchy(v, z.detach(), p[:, :2]), "v and the states do not fit"),
    ]:
        with pytest.raises(ValueError, match=message):
            wrong()


@every_sum
def test_a_named_implementation_never_falls_back(kind, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    call, tensors = case(kind, 4)
    with pytest.raises(ValueError, match="impl='triton'"):
        call("triton", **tensors)
    with pytest.raises(ValueError, match="impl must be one of"):
        call("fast", **tensors)


# Triton

INTERPRETED = """
from tests.ops.helpers import assert_equals_reference, assert_within_budget
from tests.ops.test_ssm_kernel import case
for kind in ("vandermonde", "moments", "cauchy"):
    for t in (1, 2, 7, 40):
        call, tensors = case(kind, t, r=2, n=3, batch=(2,))
        assert_equals_reference(call, "triton", tensors)
    call, tensors = case(kind, 300, r=1, n=18)
    assert_equals_reference(call, "triton", tensors)
    assert_within_budget(call, "triton", tensors)
print("same")
"""


def test_triton_under_its_interpreter():
    pytest.importorskip("triton")
    assert run_python(INTERPRETED, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@every_sum
@pytest.mark.parametrize("t", LENGTHS)
def test_triton_on_a_gpu(kind, t):
    call, tensors = case(kind, t, n=20, batch=(5,))
    on_gpu = {name: x.cuda() for name, x in tensors.items()}
    found = results(call, "triton", on_gpu)
    for name, value in results(call, "reference", tensors).items():
        assert_close(found[name].cpu(), value, msg=lambda text, name=name: f"{name}: {text}")
