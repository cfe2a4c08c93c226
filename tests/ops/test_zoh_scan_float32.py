"""zoh_scan in float32: large phases, tiny poles, the error budget."""

import pytest
import torch

from longstate.ops import zoh_scan
from longstate.ops.zoh_scan.reference import phi1
from tests.ops.helpers import assert_within_budget, narrow, uniform
from tests.ops.test_zoh_scan import COMPLEX, call, inputs


@pytest.mark.parametrize("project", [True, False], ids=("from u", "from the drive"))
def test_float32_error_budget(project):
    assert_within_budget(call, "cpu", inputs(b=2, t=300, n=40, project=project, reset=True))


@pytest.mark.parametrize("largest", [1e-3, 1.0, 1e3])
def test_float32_factors_keep_six_digits_up_to_large_phases(largest):
    """exp(A dt) and (exp(A dt) - 1) / A, to 1e-6 of their size, against float64."""
    n = 4000
    radius = largest * 10 ** -uniform(n, high=6.0, seed=1)
    angle = uniform(n, low=torch.pi / 2, high=3 * torch.pi / 2, seed=2)
    A = torch.polar(radius, angle).to(torch.complex64)
    A.real.clamp_(min=-60)  # below, exp leaves the range of float32
    dt = torch.rand(1, 1, generator=torch.Generator().manual_seed(3)) + 0.5
    one, zero = torch.ones(1, 1, n, dtype=A.dtype), torch.zeros(1, n, dtype=A.dtype)
    z = A.to(COMPLEX) * dt.double()
    a, _ = zoh_scan(0 * one, A, dt, zero + 1, impl="cpu")
    b, _ = zoh_scan(one, A, dt, impl="cpu")
    exact = dt.double() * phi1(z)[0]
    assert ((a[0, 0] - torch.exp(z)[0]).abs() <= 1e-6 * torch.exp(z)[0].abs()).all()
    assert ((b[0, 0] - exact).abs() <= 1e-6 * exact.abs()).all()


def test_float32_gradient_has_no_cancellation_near_zero():
    """d/dA of (exp(A dt) - 1) / A tends to dt^2 / 2; the closed form would lose every digit."""
    A = torch.polar(10 ** -uniform(500, low=-0.5, high=8, seed=1), 10 * uniform(500, seed=2))
    dt = torch.full((1, 1), 0.7)
    low = A.to(torch.complex64).requires_grad_()
    exact = low.detach().to(COMPLEX).requires_grad_()
    for x in (low, exact):
        h, _ = zoh_scan(torch.ones(1, 1, 500, dtype=x.dtype), x, dt.to(x.real.dtype))
        h.sum().real.backward()
    assert ((low.grad - exact.grad).abs() <= 1e-6 * exact.grad.abs()).all()


@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_is_computed_in_float32(autocast):
    tensors = {k: None if x is None else narrow(x) for k, x in inputs(t=6).items()}
    tensors["u"] = tensors["u"].bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        h, last = call("cpu", **tensors)
    expected, _ = call("cpu", **tensors | {"u": tensors["u"].float()})
    assert h.dtype == last.dtype == torch.complex64
    assert torch.equal(h, expected)
