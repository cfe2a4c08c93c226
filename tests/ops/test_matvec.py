"""matvec: panels and 8 bits, the kernel against the products of matrices, both against float64."""

import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close

from longstate.ops.matvec import from_panels, matvec, quantise_rows, to_panels
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import (
    assert_survives_fork,
    randn,
    strided,
)

SIZES = [(1, 1), (3, 5), (63, 7), (64, 64), (65, 3), (300, 129)]
FORMATS = ("float32", "bfloat16", "float16", "int8")


def stored(W, kind):
    """Panels, scale, and the matrix that they mean, in float64."""
    if kind == "int8":
        q, scale = quantise_rows(W.float())
        return to_panels(q), scale, q.double() * scale.double()[:, None]
    W = W.to(getattr(torch, kind))
    return to_panels(W), None, W.double()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int8])
def test_panels_hold_the_matrix(size, dtype):
    W = (randn(*size) * 50).to(dtype)
    panels = to_panels(strided(W))
    assert panels.shape == (-(-size[0] // 64), size[1], 64)
    assert torch.equal(from_panels(panels, size[0]), W)
    assert panels[1, 2, 3] == W[67, 2] if size[0] > 67 else True
    spare = panels.transpose(1, 2).flatten(0, 1)[size[0] :]
    assert torch.equal(spare, torch.zeros_like(spare))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("b", [1, 2, 3, 4, 5, 8, 9])
def test_is_the_product(size, impl, b):
    x, W, bias = randn(b, size[1], seed=1), randn(*size, seed=2), randn(size[0], seed=3)
    panels = to_panels(W)
    assert_close(matvec(x, panels, size[0], impl=impl), x @ W.T)
    assert_close(matvec(strided(x), panels, size[0], bias=bias, impl=impl), x @ W.T + bias)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_many_vectors(impl):
    x, W = randn(130, 9, seed=1), randn(70, 9, seed=2)
    assert_close(matvec(x, to_panels(W), 70, impl=impl), x @ W.T)


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [(64, 64), (65, 300), (300, 1030)])
@pytest.mark.parametrize("b", [1, 6])
def test_error_is_that_of_the_reference(kind, dtype, size, b):
    x, bias = randn(b, size[1], seed=1).to(dtype), randn(size[0], seed=3).float()
    panels, scale, W = stored(randn(*size, seed=2), kind)
    exact = x.double() @ W.T + bias.double()
    plain = matvec(x, panels, size[0], scale, bias, impl="reference")
    y = matvec(x, panels, size[0], scale, bias, impl="cpu")
    assert_within_reference_error(y, exact, plain)


@pytest.mark.parametrize("columns", [0, 1, 4])
@pytest.mark.parametrize("b", [0, 1])
def test_empty(columns, b):
    y = matvec(torch.ones(b, columns), torch.ones(1, columns, 64), 3, bias=torch.ones(3))
    assert torch.equal(y, torch.full((b, 3), columns + 1.0))


# 8 bits


def test_the_error_of_eight_bits_is_at_most_half_a_step():
    W = randn(40, 100, seed=1).float() * torch.logspace(-30, 30, 40)[:, None]
    W[3] = 0
    W[4, 1:] = 0
    q, scale = quantise_rows(W)
    assert q.abs().amax(1).tolist() == [127 if i != 3 else 0 for i in range(40)]
    off = (q.double() * scale.double()[:, None] - W.double()).abs()
    # half a step, and the rounding of the scale itself
    assert (off <= scale.double()[:, None] * (0.5 + 127 * 2**-23)).all()
    assert torch.equal(q[3] * scale[3], W[3])
    assert q[4].tolist() == [127 if W[4, 0] > 0 else -127] + 99 * [0]


def test_eight_bits_of_no_columns():
    q, scale = quantise_rows(torch.ones(3, 0))
    assert q.shape == (3, 0)
    assert torch.equal(scale, torch.ones(3))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_eight_bits_refuse_what_is_not_finite(bad):
    W = torch.ones(2, 2)
    W[1, 0] = bad
    with pytest.raises(ValueError, match="not finite"):
        quantise_rows(W)


# Values that are not finite


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("b", [1, 5])
@pytest.mark.parametrize("kind", FORMATS)
def test_nonfinite_values_spread_as_in_a_product(impl, b, kind):
    x, W = randn(b, 10, seed=1).float(), randn(70, 10, seed=2).float()
    panels, scale, W = stored(W, kind)
    x[0, 3] = torch.nan
    if b > 1:
        x[1, 9], x[2, 0] = torch.inf, -torch.inf
    y = matvec(x, panels, 70, scale, impl=impl)
    assert_close(y, (x.double() @ W.T).float(), equal_nan=True)
    if kind in ("int8", "float16"):
        return
    panels[0, 2, 5], panels[1, 2, 1] = torch.nan, torch.inf
    y = matvec(torch.ones(b, 10), panels, 70, impl=impl)
    assert y[:, 5].isnan().all()
    assert (y[:, 65] == torch.inf).all()
    assert y.isfinite().sum() == b * 68


# Which implementation


def test_a_gradient_goes_to_the_reference():
    x, W = randn(2, 9, seed=1).requires_grad_(), randn(70, 9, seed=2)
    panels, weight = to_panels(W), randn(2, 70, seed=3)
    (grad,) = torch.autograd.grad((matvec(x, panels, 70) * weight).sum(), x)
    assert_close(grad, weight @ W)
    with pytest.raises(ValueError, match="without gradients"):
        matvec(x, panels, 70, impl="cpu")
    with torch.no_grad():
        assert_close(matvec(x, panels, 70, impl="cpu"), x @ W.T)


def test_gradcheck():
    x, panels = randn(2, 3).requires_grad_(), to_panels(randn(5, 3, seed=1)).requires_grad_()
    scale, bias = randn(5, seed=2).requires_grad_(), randn(5, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x, panels, scale, bias: matvec(x, panels, 5, scale, bias), (x, panels, scale, bias)
    )


def test_forward_mode_tangents_are_computed():
    x, tangent, W = randn(2, 9, seed=1), randn(2, 9, seed=4), randn(70, 9, seed=2)
    _, found = torch.func.jvp(lambda x: matvec(x, to_panels(W), 70), (x,), (tangent,))
    assert_close(found, tangent @ W.T)


def test_compiles_and_traces():
    x, panels = randn(2, 9, seed=1), to_panels(randn(70, 9, seed=2))
    expected = matvec(x, panels, 70)
    call = torch.compile(lambda x: matvec(x, panels, 70), fullgraph=True, backend="aot_eager")
    assert_close(call(x), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing looks at shapes
        traced = torch.jit.trace(lambda x: matvec(x, panels, 70), (x,))
    assert_close(traced(2 * x), 2 * expected)
    fake = torch._subclasses.FakeTensorMode()
    with fake:
        assert matvec(fake.from_tensor(x), fake.from_tensor(panels), 70).shape == (2, 70)


def test_views_that_are_lazy():
    z = randn(2, 9, dtype=torch.complex128).conj().imag
    assert z.is_neg()
    W = randn(70, 9, seed=2)
    assert_close(matvec(z, to_panels(W), 70), z.resolve_neg() @ W.T)


def test_many_python_threads_at_once():
    x, panels = randn(3, 300, seed=1).float(), to_panels(randn(640, 300, seed=2).float())
    expected = matvec(x, panels, 640)
    with ThreadPoolExecutor(16) as pool:
        every = list(pool.map(lambda _: matvec(x, panels, 640), range(64)))
    assert all(torch.equal(found, expected) for found in every)


LARGE = """
import torch
from longstate.ops.matvec import matvec
from longstate.ops.matvec import to_panels
torch.manual_seed(0)
W = torch.randn(1280, 3000)
tensors = {"x": torch.randn(2, 3000), "panels": to_panels(W)}
def call(impl, x, panels):
    return (matvec(x, panels, 1280, impl=impl),)
"""


def test_the_number_of_threads_does_not_change_results():
    x, panels = randn(2, 3000, seed=1).float(), to_panels(randn(1280, 3000, seed=2).float())
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(matvec(x, panels, 1280))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_survives_fork():
    assert_survives_fork(LARGE)


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.ones(9)}, "x must be"),
        ({"x": torch.ones(2, 9, dtype=torch.int32)}, "x must be"),
        ({"panels": torch.ones(2, 8, 64)}, "panels must be"),
        ({"panels": torch.ones(70, 9)}, "panels must be"),
        ({"panels": torch.ones(2, 9, 64, dtype=torch.int32)}, "panels must be"),
        ({"rows": 64}, "rows must be"),
        ({"rows": 129}, "rows must be"),
        ({"scale": torch.ones(128)}, "scale must be"),
        ({"bias": torch.ones(1)}, "bias must be"),
        ({"impl": "rocket"}, "impl must be"),
        ({"impl": "triton"}, "impl must be"),
    ],
)
def test_refuses(change, message):
    good = {"x": torch.ones(2, 9), "panels": torch.ones(2, 9, 64), "rows": 70}
    matvec(**good)
    with pytest.raises(ValueError, match=message):
        matvec(**good | change)


def test_refuses_what_is_no_matrix():
    with pytest.raises(ValueError, match="W must be"):
        to_panels(torch.ones(3))
