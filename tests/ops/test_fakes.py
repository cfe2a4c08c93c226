"""What ops promise to a compiler is what they do, whatever the strides of what they are given."""

import pytest
import torch
from torch import Tensor

from tests.layers.test_contract import LAYERS
from tests.ops.every_op import OPS
from tests.ops.fakes import ComparedWithFakes
from tests.ops.helpers import results, strided


def turned(x: Tensor) -> Tensor:
    """The same values, the first axis varying fastest."""
    axes = tuple(reversed(range(x.dim())))
    return x.permute(axes).contiguous().permute(axes)


@pytest.mark.parametrize("lay", [Tensor.contiguous, strided, turned], ids=lambda f: f.__name__)
@pytest.mark.parametrize(("call", "inputs"), OPS.values(), ids=OPS)
def test_results_are_laid_out_as_promised(call, inputs, lay):
    tensors = {name: lay(x) for name, x in inputs().items()}
    with ComparedWithFakes() as compared:
        results(call, "cpu", tensors)
    assert len(compared.seen) == 2  # forward and backward


@pytest.mark.parametrize("name", LAYERS)
def test_results_within_layers_are_laid_out_as_promised(name):
    layer = LAYERS[name]()
    for batch, time in ((2, 17), (2, 30), (3, 64)):
        u = torch.randn(batch, time, layer.d_model, requires_grad=True)
        with ComparedWithFakes():
            y, state = layer(u)
            y, _ = layer(u, state, mask=torch.rand(batch, time) < 0.8)
            y.square().sum().backward()
