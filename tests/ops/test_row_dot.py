import pytest
import torch
from torch.testing import assert_close

from longstate.ops.row_dot import row_dot
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import randn

SIZES = [(1, 1), (1, 63), (63, 1), (128, 300), (300, 65)]


@pytest.mark.parametrize(("o", "i"), SIZES)
@pytest.mark.parametrize("b", [1, 3])
@pytest.mark.parametrize("bias", [True, False])
def test_is_a_product_of_matrices(o, i, b, bias):
    x, W = randn(b, i, seed=1), randn(o, i, seed=2)
    v = randn(o, seed=3) if bias else None
    assert_close(row_dot(x, W, v, impl="cpu"), row_dot(x, W, v, impl="reference"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_narrow_inputs(dtype):
    x, W, bias = (v.to(dtype) for v in (randn(2, 300), randn(63, 300), randn(63)))
    exact = row_dot(x.double(), W.double(), bias.double(), impl="reference")
    plain = row_dot(x, W, bias, impl="reference")
    assert_within_reference_error(row_dot(x, W, bias, impl="cpu"), exact, plain)


def test_awkward_strides():
    x, W = randn(2, 600)[:, ::2], randn(300, 65).T
    assert_close(row_dot(x, W, impl="cpu"), x @ W.T)


def test_auto_keeps_gradients_and_leaves_many_vectors_to_pytorch(monkeypatch):
    from longstate.ops.row_dot import cpu

    ran = []
    forward = cpu.forward
    monkeypatch.setattr(cpu, "forward", lambda *args: ran.append(len(args[0])) or forward(*args))
    W = randn(5, 4).requires_grad_()
    assert row_dot(randn(2, 4), W).requires_grad
    with torch.no_grad():
        for b in (1, 8, 9):
            row_dot(randn(b, 4), W)
    assert ran == [1, 8]


def test_thread_count_is_invisible():
    x, W = randn(1, 512, dtype=torch.float32), randn(2048, 512, dtype=torch.float32)
    before = torch.get_num_threads()
    try:
        found = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(row_dot(x, W, impl="cpu"))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((randn(4), randn(3, 4)), r"x \(b, i\) and W \(o, i\) must fit"),
        ((randn(1, 5), randn(3, 4)), "must fit"),
        ((randn(1, 4).float(), randn(3, 4)), "must fit"),
        ((randn(1, 4), randn(3, 4), randn(4)), r"bias must be \(3,\)"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        row_dot(*arguments)


def test_the_kernel_refuses_gradients():
    with pytest.raises(ValueError, match="without gradients"):
        row_dot(randn(1, 4), randn(3, 4).requires_grad_(), impl="cpu")
