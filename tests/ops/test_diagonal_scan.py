"""diagonal_scan: the reference against hand numbers, every implementation against the reference."""

import pytest
import torch

from longstate.ops import diagonal_scan
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

DTYPES = (torch.float64, torch.complex128)


def call(impl, a, x, h0=None, reset=None):
    return diagonal_scan(x, a, h0, reset=reset, impl=impl)


def decays(*shape, dtype):
    """In and on the unit circle, with exact zeros and ones among them."""
    a = uniform(*shape, low=-1.0, seed=1)
    if dtype.is_complex:
        a = torch.polar(a.abs(), 3.0 * a)
    a = a.to(dtype)
    a[..., ::5] = 0
    a[..., 1::5] = torch.polar(torch.ones(()), torch.tensor(2.0)) if dtype.is_complex else -1
    a[..., 2::5] = 1
    return a


def inputs(b=2, t=9, n=5, dtype=torch.float64, varying=True, h0=True, reset=False):
    return {
        "a": decays(*((b, t, n) if varying else (n,)), dtype=dtype),
        "x": randn(b, t, n, dtype=dtype, seed=2),
        "h0": randn(b, n, dtype=dtype, seed=3) if h0 else None,
        "reset": uniform(b, t, seed=4) < 0.2 if reset else None,
    }


# The reference


def test_hand_numbers():
    a = torch.tensor([[[0.5], [2.0], [-1.0], [0.0]]])
    x = torch.tensor([[[1.0], [1.0], [0.0], [3.0]]])
    h, last = diagonal_scan(x, a, torch.tensor([[4.0]]), impl="reference")
    assert h.flatten().tolist() == [3.0, 7.0, -7.0, 3.0]
    assert last.tolist() == [[3.0]]


def test_constant_decay_is_a_geometric_sum():
    a = decays(7, dtype=torch.complex128) * 0.9
    h, _ = diagonal_scan(torch.ones(1, 40, 7, dtype=a.dtype), a, impl="reference")
    lengths = torch.arange(1, 41, dtype=torch.float64)[:, None]
    torch.testing.assert_close(h[0], (1 - a**lengths) / (1 - a))


def test_reset_starts_a_new_sequence():
    tensors = inputs(b=1, t=10)
    reset = torch.zeros(1, 10, dtype=torch.bool)
    reset[0, 4] = True
    whole, _ = call("reference", **tensors | {"reset": reset})
    tail, _ = call("reference", tensors["a"][:, 4:], tensors["x"][:, 4:])
    torch.testing.assert_close(whole[:, 4:], tail, rtol=0, atol=0)


# Every implementation


@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=("real", "complex"))
@pytest.mark.parametrize("varying", [True, False], ids=("varying", "constant"))
def test_cpu_equals_reference(t, dtype, varying):
    assert_equals_reference(call, "cpu", inputs(t=t, dtype=dtype, varying=varying))


@pytest.mark.parametrize("dtype", DTYPES, ids=("real", "complex"))
@pytest.mark.parametrize("varying", [True, False], ids=("varying", "constant"))
def test_cpu_without_state_and_with_reset(dtype, varying):
    assert_equals_reference(
        call, "cpu", inputs(t=20, dtype=dtype, varying=varying, h0=False, reset=True)
    )


@pytest.mark.parametrize("n", [1, 255, 257])
def test_cpu_at_the_edges_of_a_block(n):
    assert_equals_reference(call, "cpu", inputs(b=1, t=4, n=n, dtype=torch.complex128))


@pytest.mark.parametrize("dtype", DTYPES, ids=("real", "complex"))
def test_cpu_takes_any_strides(dtype):
    tensors = {name: strided(x) for name, x in inputs(t=12, dtype=dtype, reset=True).items()}
    assert_equals_reference(call, "cpu", tensors)


def test_gradient_of_the_last_state_alone():
    tensors = inputs(t=12, dtype=torch.complex128)
    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[1:], "cpu", tensors)
    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[:1], "cpu", tensors)


def test_mixed_real_and_complex_inputs_promote():
    tensors = inputs(t=6, dtype=torch.complex128) | {"x": randn(2, 6, 5), "h0": randn(2, 5)}
    assert_equals_reference(call, "cpu", tensors)


@pytest.mark.parametrize("dtype", DTYPES, ids=("real", "complex"))
@pytest.mark.parametrize("varying", [True, False], ids=("varying", "constant"))
def test_gradcheck(dtype, varying):
    tensors = inputs(b=2, t=5, n=3, dtype=dtype, varying=varying, reset=True)
    a, x, h0 = (tensors[name].requires_grad_() for name in ("a", "x", "h0"))
    torch.autograd.gradcheck(lambda *p: call("cpu", *p, tensors["reset"]), (a, x, h0))


@pytest.mark.parametrize("varying", [True, False], ids=("varying", "constant"))
def test_opcheck(varying):
    tensors = inputs(t=5, n=3, dtype=torch.complex128, varying=varying)
    a, x, h0 = (tensors[name].requires_grad_() for name in ("a", "x", "h0"))
    torch.library.opcheck(torch.ops.longstate.diagonal_scan, (x, a, h0, None, "cpu"))


@pytest.mark.parametrize("dtype", DTYPES, ids=("real", "complex"))
@pytest.mark.parametrize("varying", [True, False], ids=("varying", "constant"))
def test_float32_error_budget(dtype, varying):
    assert_within_budget(
        call, "cpu", inputs(b=2, t=300, n=20, dtype=dtype, varying=varying, reset=True)
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=("real", "complex"))
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_propagate_as_in_the_reference(dtype, bad):
    tensors = inputs(t=12, dtype=dtype, reset=True)
    tensors["x"][0, 3, 1] = bad
    tensors["x"][1, 5, 2] = -bad
    tensors["a"][0, 7, 4] = bad
    h, _ = call("cpu", **tensors)
    expected, _ = call("reference", **tensors)
    assert_same_where_finite(h, expected)
    if not dtype.is_complex:  # which part of a complex product is NaN is anyone's choice
        torch.testing.assert_close(h, expected, equal_nan=True)


def test_a_reset_removes_a_nan():
    tensors = inputs(t=6)
    tensors["x"][:, 2] = float("nan")
    reset = torch.zeros(2, 6, dtype=torch.bool)
    reset[:, 3] = True
    h, last = call("cpu", **tensors | {"reset": reset})
    assert torch.isfinite(h[:, 3:]).all()
    assert torch.isfinite(last).all()


def test_half_precision_is_computed_in_float32():
    tensors = inputs(t=6)
    h, last = call("cpu", tensors["a"].bfloat16(), tensors["x"].half())
    assert h.dtype == last.dtype == torch.float32


# Threads and processes

LARGE = {"b": 4, "t": 130, "n": 300, "dtype": torch.complex128}


@pytest.mark.parametrize("varying", [True, False], ids=("varying", "constant"))
def test_sixteen_threads_at_once(varying):
    assert_concurrent_calls_agree(call, inputs(**LARGE, varying=varying))


@pytest.mark.parametrize("varying", [True, False], ids=("varying", "constant"))
def test_the_number_of_threads_does_not_change_results(varying):
    assert_thread_count_is_invisible(call, inputs(**LARGE, varying=varying))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_diagonal_scan import call, inputs, LARGE; tensors = inputs(**LARGE)"
    )


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3)}, "x must be"),
        ({"x": torch.zeros(2, 0, 5)}, "no time steps"),
        ({"a": torch.zeros(4)}, "a must be"),
        ({"h0": torch.zeros(5)}, "h0 must be"),
        ({"reset": torch.zeros(2, 9)}, "reset must be"),
    ],
)
def test_wrong_shapes_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        call("cpu", **inputs() | change)


def test_a_named_implementation_never_falls_back(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="impl='triton'"):
        call("triton", **inputs())
    with pytest.raises(ValueError, match="impl must be one of"):
        call("fast", **inputs())


# Triton

INTERPRETED = """
import torch
from tests.ops.helpers import assert_equals_reference
from tests.ops.test_diagonal_scan import call, inputs
for dtype in (torch.float64, torch.complex128):
    for varying in (True, False):
        tensors = inputs(b=2, t=4, n=35, dtype=dtype, varying=varying, reset=True)
        assert_equals_reference(call, "triton", tensors)
        assert_equals_reference(call, "triton", tensors | {"h0": None, "reset": None})
print("same")
"""


def test_triton_under_its_interpreter():
    pytest.importorskip("triton")
    assert run_python(INTERPRETED, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("dtype", DTYPES, ids=("real", "complex"))
@pytest.mark.parametrize("varying", [True, False], ids=("varying", "constant"))
def test_triton_on_a_gpu(t, dtype, varying):
    tensors = inputs(t=t, n=40, dtype=dtype, varying=varying, reset=True)
    on_gpu = {name: None if x is None else x.cuda() for name, x in tensors.items()}
    expected, found = results(call, "reference", tensors), results(call, "triton", on_gpu)
    for name, value in expected.items():
        torch.testing.assert_close(found[name].cpu(), value)
