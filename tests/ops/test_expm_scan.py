"""expm_scan: exponentials of matrices on a state, and the kernel against the reference."""

import mpmath
import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate.ops import expm_scan
from tests.ops.helpers import (
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_same_where_finite,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    assert_within_budget,
    narrow,
    randn,
    results,
    strided,
    uniform,
)

IMPLEMENTATIONS = pytest.mark.parametrize("impl", ["reference", "cpu"])


def call(impl, M, v, h0=None, start=None, reset=None):
    return expm_scan(M, v, h0, start=start, reset=reset, impl=impl)


def inputs(b=2, t=9, g=2, k=5, size=1.0, without=()):
    found = {
        "M": size * randn(b, t, g, k, k, seed=1) / k**0.5, "v": randn(b, t, g, k, seed=2),
        "h0": randn(b, g, k, seed=3), "start": randn(g, k, seed=4),
        "reset": uniform(b, t, seed=5) < 0.2,
    }  # fmt: skip
    return {name: x for name, x in found.items() if name not in without}


def one_step(impl, M, x, v):
    """x exp(M) + v phi(M) of arrays M (k, k), x and v (k)."""
    M, x, v = (torch.from_numpy(np.asarray(a, dtype=np.float64)) for a in (M, x, v))
    h, _ = expm_scan(M[None, None, None], v[None, None, None], x[None, None], impl=impl)
    return h[0, 0, 0].numpy()


# The equation


@IMPLEMENTATIONS
@pytest.mark.parametrize("m", [-900.0, -30.0, -2.0, -1e-9, 0.0, 1e-9, 0.5, 20.0])
def test_of_one_number(impl, m):
    phi = 1.0 if m == 0 else np.expm1(m) / m
    found = one_step(impl, [[m]], [2.0], [3.0])
    np.testing.assert_allclose(found, [2 * np.exp(m) + 3 * phi], rtol=1e-13, atol=1e-15)


@IMPLEMENTATIONS
def test_a_rotation_by_half_a_turn(impl):
    found = one_step(impl, [[0, np.pi], [-np.pi, 0]], [1.0, 0.0], [0.0, 0.0])
    np.testing.assert_allclose(found, [-1, 0], atol=1e-14)


@IMPLEMENTATIONS
def test_a_nilpotent_matrix_gives_powers_of_time(impl):
    shift = 3 * np.eye(4, k=1)
    found = one_step(impl, shift, [1.0, 0, 0, 0], np.zeros(4))
    np.testing.assert_allclose(found, [1, 3, 9 / 2, 27 / 6], rtol=1e-14)


def _hard(kind, size, rng):
    M = rng.standard_normal((6, 6))
    if kind == "skew":
        M = M - M.T
    if kind == "non-normal":
        M = np.triu(M, 1) * 10 - np.diag(rng.uniform(0, 1, 6))
    if kind == "decay":
        M = -M @ M.T
    return size * M / np.abs(M).sum(1).max()


def _exact(M, x, v):
    """x exp(M) + v phi(M), with 50 digits; and the sum of the sizes of all that is added up."""
    k = len(x)
    with mpmath.workdps(50):
        twice = np.block([[M, 0 * M], [np.eye(k), 0 * M]])  # its exponential: exp(M), and phi(M)
        both = mpmath.expm(mpmath.matrix(twice.tolist()))[:, :k]
        row = mpmath.matrix([*x.tolist(), *v.tolist()]).T
        found = np.array([float(number) for number in row * both])
        return found, float(sum(row.apply(abs) * both.apply(abs)))


@pytest.mark.parametrize("kind", ["random", "skew", "non-normal", "decay"])
@pytest.mark.parametrize("size", [1e-8, 0.3, 2.999, 3.0, 3.001, 5.9, 100.0])
def test_the_series_has_the_digits_of_the_exponential(kind, size):
    """Also where the first terms hardly move the state."""
    rng = np.random.default_rng(0)
    for i in range(9):
        M = _hard(kind, size, rng)
        x, v = rng.standard_normal((2, 6)) * 10.0 ** rng.uniform(-12, 0, (2, 6))
        if i % 3 == 0:
            v = -x @ M + 1e-9 * v  # nearly at rest
        wanted, scale = _exact(M, x, v)
        assert np.abs(one_step("cpu", M, x, v) - wanted).sum() < 3e-15 * max(1, size / 3) * scale


@pytest.mark.parametrize("size", [999.0, 1001.0, 1e5])
@pytest.mark.parametrize("impl", ["auto", "cpu"])
def test_large_norms(size, impl):
    rng = np.random.default_rng(0)
    M = _hard("decay", size, rng)
    x, v = rng.standard_normal((2, 6))
    np.testing.assert_allclose(one_step(impl, M, x, v), _exact(M, x, v)[0], rtol=1e-8)


def test_a_series_of_seconds_is_refused_where_nothing_else_can_be_chosen():
    """In a compiled graph; alone, "auto" takes the exponentials there."""
    tensors = inputs(t=3)
    tensors["M"][1, 2] *= 1e9
    with pytest.raises(ValueError, match=r"the norm of a matrix is .* takes up to 200000"):
        call("cpu", **tensors)
    scan = torch.compile(lambda M, v: expm_scan(M, v)[0], backend="eager")
    with pytest.raises(ValueError, match="the norm of a matrix"):
        scan(tensors["M"], tensors["v"])
    call("auto", **tensors)


def test_gradients_at_large_norms():
    tensors = inputs(t=4)
    tensors["M"][1, 2] -= 3000 * torch.eye(5, dtype=torch.float64)
    for impl in ("cpu", "auto"):
        assert_equals_reference(call, impl, tensors)


def test_gradients_do_not_depend_on_how_large_those_of_the_results_are():
    """Those of `torch.linalg.matrix_exp` lose digits where they are large."""
    tensors = inputs(size=2.0)
    leaves = {k: x.requires_grad_() for k, x in tensors.items() if x.is_floating_point()}
    h, _ = call("cpu", **tensors)
    small = torch.autograd.grad(h.sum(), leaves.values(), retain_graph=True)
    large = torch.autograd.grad(2.0**60 * h.sum(), leaves.values())
    for s, x in zip(small, large, strict=True):
        assert torch.equal(2.0**60 * s, x)


def test_where_the_series_ends_at_once_its_derivative_does_not():
    tensors = inputs()
    tensors["M"] *= 0
    assert_equals_reference(call, "cpu", tensors)
    at_rest = inputs(t=1, without=("reset", "start"))
    at_rest["v"] = -(at_rest["h0"][..., None, :] @ at_rest["M"][:, 0])[:, None, :, 0]
    expected, found = results(call, "reference", at_rest), results(call, "cpu", at_rest)
    for name, value in expected.items():
        assert_close(found[name], value, rtol=1e-12, atol=1e-12)


# Every implementation


@pytest.mark.parametrize("size", [0.01, 1.0, 2.0])
@pytest.mark.parametrize("k", [1, 2, 5, 8, 17, 32])
def test_cpu_equals_the_reference(k, size):
    assert_equals_reference(call, "cpu", inputs(t=5, k=k, size=size))


@pytest.mark.parametrize("without", [("h0",), ("start",), ("reset",), ("h0", "start", "reset")])
def test_cpu_without_optional_arguments(without):
    tensors = inputs(without=without)
    if "reset" in without:
        tensors.pop("start", None)
    assert_equals_reference(call, "cpu", tensors)


def test_cpu_takes_any_strides():
    assert_equals_reference(call, "cpu", {k: strided(x) for k, x in inputs().items()})


def test_gradient_of_one_result_alone():
    def last(impl, **tensors):
        h, last = call(impl, **tensors)
        return h[:, :0], last

    assert_equals_reference(lambda impl, **kw: call(impl, **kw)[:1], "cpu", inputs())
    assert_equals_reference(last, "cpu", inputs())


def test_inputs_are_not_overwritten():
    tensors = inputs()
    before = {name: x.clone() for name, x in tensors.items()}
    results(call, "cpu", tensors)
    for name, x in tensors.items():
        assert torch.equal(x, before[name])


def test_gradcheck():
    tensors = inputs(t=3, k=3)
    reset = tensors.pop("reset")
    leaves = [x.requires_grad_() for x in tensors.values()]
    torch.autograd.gradcheck(lambda *p: call("cpu", *p, reset=reset), leaves)


def test_opcheck():
    tensors = inputs(t=3, k=3)
    for name, x in tensors.items():
        x.requires_grad_(name != "reset")
    torch.library.opcheck(torch.ops.longstate.expm_scan, (*tensors.values(), "cpu"))


@pytest.mark.parametrize("size", [0.3, 2.0])
def test_float32_error_budget(size):
    assert_within_budget(call, "cpu", inputs(t=40, k=16, size=size))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_stay_in_their_row_and_block(bad):
    for dtype in (torch.float64, torch.float32):
        tensors = inputs(b=3, without=("reset", "start"))
        if dtype == torch.float32:
            tensors = {name: narrow(x) for name, x in tensors.items()}
        clean = call("cpu", **tensors)[0]
        tensors["v"][0, 3, 1, 2] = bad
        tensors["M"][1, 4, 0, 1, 1] = bad
        tensors["h0"][2, 0] = bad
        found = call("cpu", **tensors)[0]
        for row, first, block in ((0, 3, 1), (1, 4, 0), (2, 0, 0)):
            assert not found[row, first:, block].isfinite().any(-1).all()
            clean[row, first:, block] = found[row, first:, block]
        assert_same_where_finite(found, clean)


def test_a_nan_leaves_the_gradients_of_other_rows():
    clean = inputs(b=4, without=("reset", "start"))
    broken = {name: x.clone() for name, x in clean.items()}
    broken["v"][1, 0] = float("nan")  # the last that is seen of its row
    expected, found = results(call, "cpu", clean), results(call, "cpu", broken)
    for name, value in expected.items():
        assert_close(found[name][[0, 2, 3]], value[[0, 2, 3]])


def test_a_reset_removes_a_nan():
    tensors = inputs(t=6)
    tensors["v"][:, 2] = float("nan")
    tensors["reset"][:] = False
    tensors["reset"][:, 3] = True
    h, last = call("cpu", **tensors)
    assert h[:, 3:].isfinite().all()
    assert last.isfinite().all()


# Threads and processes

LARGE = {"b": 4, "t": 20, "g": 3, "k": 16}


def test_sixteen_threads_at_once():
    assert_concurrent_calls_agree(call, inputs(**LARGE))


def test_the_number_of_threads_does_not_change_results():
    assert_thread_count_is_invisible(call, inputs(**LARGE))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_expm_scan import LARGE, call, inputs; tensors = inputs(**LARGE)"
    )


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"M": torch.zeros(2, 9, 5, 5)}, "M must be"),
        ({"M": torch.zeros(2, 0, 2, 5, 5)}, "M must be .* time > 0"),
        ({"M": torch.zeros(2, 9, 2, 5, 5, dtype=torch.complex64)}, "M must be .* real"),
        ({"v": torch.zeros(2, 9, 2, 4)}, "v must be"),
        ({"h0": torch.zeros(2, 5)}, "h0 must be"),
        ({"start": torch.zeros(5)}, "start must be"),
        ({"h0": torch.zeros(2, 2, 5, dtype=torch.complex128)}, "real"),
        ({"reset": torch.zeros(2, 9)}, "reset must be"),
    ],
)
def test_wrong_inputs_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        call("cpu", **inputs() | change)


@pytest.mark.parametrize("impl", ["triton", "magic"])
def test_names_the_implementations_there_are(impl):
    with pytest.raises(ValueError, match="impl"):
        call(impl, **inputs())
