"""The three sums: the reference against closed forms, implementations against the reference."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from longstate.ops.ssm_kernel import cauchy, moments, vandermonde
from tests.ops.helpers import (
    LENGTHS,
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_same_where_finite,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    assert_within_budget,
    randn,
    results,
    run_python,
    strided,
    uniform,
)

C128 = torch.complex128


def bases(*shape):
    """In and on the unit circle, with zeros, ones and negative numbers among them."""
    a = torch.polar(uniform(*shape, low=0.5, seed=1), uniform(*shape, low=-3, high=3, seed=2))
    a = a.clone()
    a[..., 0::7] = 0
    a[..., 1::7] = 1
    a[..., 2::7] = -0.9
    a[..., 3::7] = torch.polar(torch.ones(()), torch.tensor(2.0))
    return a


def points(f):
    """On the imaginary axis, as in S4; the poles are at its left."""
    return torch.complex(torch.zeros(f, dtype=torch.float64), 5 * randn(f, seed=4))


def poles(*shape):
    return torch.complex(-uniform(*shape, low=0.01, seed=5), 5 * randn(*shape, seed=6))


class Vandermonde:
    def __init__(self, length):
        self.length = length

    def __call__(self, impl, w, a):
        return (vandermonde(w, a, self.length, impl=impl),)


def call_moments(impl, u, a):
    return (moments(u, a, impl=impl),)


class Cauchy:
    """Holds the points, which are a constant; in the precision of the other arguments."""

    def __init__(self, f):
        self.z = points(f)

    def __call__(self, impl, v, poles):
        return (cauchy(v, self.z.to(poles), poles, impl=impl),)


def case(kind, t, r=3, n=9, batch=()):
    """A call and its tensors. `batch`: leading axes that do not vary the bases."""
    if kind == "vandermonde":
        return Vandermonde(t), {"w": randn(*batch, r, n, dtype=C128), "a": bases(r, n)}
    if kind == "moments":
        return call_moments, {"u": randn(*batch, r, t), "a": bases(r, n)}
    return Cauchy(t), {"v": randn(*batch, r, 4, n, dtype=C128), "poles": poles(r, n)}


every_sum = pytest.mark.parametrize("kind", ["vandermonde", "moments", "cauchy"])


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
