"""Transposing: values, memory, gradients, and no copy where none is needed."""

import torch

from longstate.interop.mamba_ssm.layout import swapped, time_last, time_second
from tests.ops.helpers import randn


def test_swapped_is_a_transpose_with_gradients():
    x = randn(3, 70, 65, seed=1).requires_grad_()
    for v in (x, x[:, 2:, 1:], x[::2], x.bfloat16()):
        y = swapped(v)
        assert torch.equal(y, v.mT)
        assert y.is_contiguous()
    cotangent = randn(3, 65, 70, seed=2)
    (grad,) = torch.autograd.grad(swapped(x), x, cotangent)
    assert torch.equal(grad, cotangent.mT)
    assert grad.is_contiguous()
    small = randn(2, 3, 2, seed=3).requires_grad_()
    assert torch.autograd.gradgradcheck(lambda v: swapped(v).square(), small)


def test_nothing_is_copied_without_need():
    channels_together = randn(2, 9, 8).mT  # (b, d, t), as halves of a projection are
    half = channels_together[:, :4]
    assert time_second(half).data_ptr() == half.data_ptr()
    y = randn(2, 9, 4)
    assert time_last(y, like=half).data_ptr() == y.data_ptr()
    assert time_last(y, like=half.contiguous()).is_contiguous()
    assert swapped(y.mT).data_ptr() == y.data_ptr()
