"""The three sums: the reference against closed forms, implementations against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from longstate.ops.ssm_kernel import cauchy, moments, vandermonde
from tests.ops.helpers import (
    LENGTHS,
    assert_equals_reference,
    randn,
    strided,
    uniform,
)
from tests.ops.kernel_cases import (
    C128,
    Cauchy,
    Vandermonde,
    bases,
    call_moments,
    case,
    every_sum,
    points,
    poles,
)

# The reference


def test_vandermonde_by_hand():
    w = torch.tensor([2.0 + 1j, 3.0], dtype=C128)
    a = torch.tensor([1j, 0.5], dtype=C128)
    expected = torch.tensor([5.0, -1 + 1.5, -2 + 0.75, 1 + 0.375], dtype=torch.float64)
    assert_close(vandermonde(w, a, 4, impl="reference"), expected)


def test_moments_by_hand():
    u = torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64)
    a = torch.tensor([1j, 0.0, 3.0], dtype=C128)
    expected = torch.tensor([1 + 2j - 4, 1, 1 + 6 + 36], dtype=C128)
    assert_close(moments(u, a, impl="reference"), expected)


def test_cauchy_is_a_geometric_series():
    # 1 / (z - a) = sum_l a^l / z^{l+1}, so the Cauchy sum is a transform of the Vandermonde sum
    w, a = randn(4, dtype=C128), bases(5)[1:] * 0.5
    z = torch.polar(torch.ones(4, dtype=torch.float64), uniform(4, high=6))
    lags = torch.arange(60, dtype=torch.float64)
    k = (w[:, None] * a[:, None] ** lags).sum(0)
    expected = (k * z[:, None] ** (-lags - 1)).sum(-1)
    assert_close(cauchy(w[None], z, a, impl="reference")[0], expected)


def test_the_first_two_are_adjoint():
    w, a, u = randn(3, 5, dtype=C128), bases(3, 5), randn(3, 20)
    left = (vandermonde(w, a, 20) * u).sum()
    assert_close(left, (w * moments(u, a)).sum().real)


# Every implementation


@every_sum
@pytest.mark.parametrize("t", LENGTHS)
def test_cpu_equals_reference(kind, t):
    call, tensors = case(kind, t)
    assert_equals_reference(call, "cpu", tensors)


@every_sum
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8])
def test_cpu_at_every_remainder_of_the_unrolling(kind, n):
    call, tensors = case(kind, 257, r=1, n=n)
    assert_equals_reference(call, "cpu", tensors)


@every_sum
@pytest.mark.parametrize("batch", [(2,), (5, 2), (1,), (17,)])
def test_cpu_shares_bases_over_a_batch(kind, batch):
    call, tensors = case(kind, 20, batch=batch)
    assert_equals_reference(call, "cpu", tensors)


@settings(max_examples=30, deadline=None)
@given(
    shape=st.sampled_from([(), (2,), (3, 2), (4, 3, 2)]),
    keep=st.lists(st.booleans(), min_size=6, max_size=6),
    t=st.integers(1, 12),
)
def test_leading_axes_broadcast_as_everywhere(shape, keep, t):
    mine = tuple(s if k else 1 for s, k in zip(shape, keep, strict=False))
    other = tuple(s if k else 1 for s, k in zip(shape, keep[3:], strict=False))
    tensors = {"w": randn(*mine, 3, dtype=C128), "a": bases(*other, 3)}
    assert_equals_reference(Vandermonde(t), "cpu", tensors)
    assert_equals_reference(call_moments, "cpu", {"u": randn(*mine, t), "a": bases(*other, 3)})
    tensors = {"v": randn(*mine, 2, 3, dtype=C128), "poles": poles(*other, 3)}
    assert_equals_reference(Cauchy(t), "cpu", tensors)


@every_sum
def test_cpu_takes_any_strides(kind):
    call, tensors = case(kind, 40, batch=(2,))
    tensors = {name: strided(x) for name, x in tensors.items()}
    assert_equals_reference(call, "cpu", tensors)


def test_real_arguments():
    w, a, u = randn(2, 5), uniform(2, 5, low=-1), randn(2, 70)
    assert_equals_reference(Vandermonde(70), "cpu", {"w": w, "a": a})
    assert_equals_reference(call_moments, "cpu", {"u": u, "a": a})


def test_growing_powers():
    tensors = {"w": randn(1, 3, dtype=C128), "a": 40 * bases(1, 3)}
    assert_equals_reference(Vandermonde(20), "cpu", tensors)
    assert_equals_reference(call_moments, "cpu", {"u": randn(1, 20), "a": tensors["a"]})


@every_sum
def test_gradcheck(kind):
    call, tensors = case(kind, 6, r=2, n=8)
    leaves = [x.requires_grad_() for x in tensors.values()]
    assert torch.autograd.gradcheck(lambda *x: call("cpu", *x), leaves)


@pytest.mark.parametrize("kind", ["vandermonde", "moments"])
def test_gradgradcheck(kind):
    call, tensors = case(kind, 4, r=2, n=4)
    leaves = [x.requires_grad_() for x in tensors.values()]
    assert torch.autograd.gradgradcheck(lambda *x: call("cpu", *x), leaves)


def test_opcheck():
    w, a = randn(2, 3, 4, dtype=C128).requires_grad_(), bases(2, 4).requires_grad_()
    u, v = randn(2, 3, 6).requires_grad_(), randn(2, 3, 4, dtype=C128).requires_grad_()
    ops = torch.ops.longstate
    torch.library.opcheck(ops.vandermonde, (w, a, 6, "cpu"))
    torch.library.opcheck(ops.moments, (u, a, "cpu"))
    torch.library.opcheck(ops.cauchy, (v, points(6), poles(2, 4).requires_grad_(), "cpu"))
    grad = randn(2, 3, 6, dtype=C128)
    torch.library.opcheck(ops.cauchy_backward, (v.detach(), points(6), poles(2, 4), grad, "cpu"))


@every_sum
def test_traces_without_breaks(kind):
    call, tensors = case(kind, 30)
    compiled = torch.compile(lambda *x: call("auto", *x), fullgraph=True, backend="aot_eager")
    assert_close(compiled(*tensors.values()), call("auto", *tensors.values()))
