"""Training under `torch.compile` as users call it: its default backend, and lengths that change."""

import os
import shutil

import pytest
import torch
import torch._inductor.config
from torch.testing import assert_close

from tests.layers.test_contract import LAYERS

COMPILED = (
    "s4-legs", "s4d-lin", "s4d-bilinear", "dss-exp", "s5-zoh", "linoss-im", "linoss-imex", "mamba",
    "falcon-mamba", "longhorn-diagonal", "longhorn-exact", "mamba2", "mamba2-groups",
    "mamba3-rational", "attention",
)  # fmt: skip
SHAPES = [(2, 17), (2, 30), (2, 64), (3, 41), (0, 5)]
COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Torchinductor does not support code generation for complex")
@pytest.mark.filterwarnings("ignore::FutureWarning")  # PyTorch's own
@pytest.mark.skipif(COMPILER is None, reason="the default backend needs a C++ compiler")
@pytest.mark.parametrize("name", COMPILED)
def test_trains_with_the_default_backend(name):
    assert torch._inductor.config.size_asserts  # wrong strides are an error
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = LAYERS[name]().double()
    compiled = torch.compile(layer)
    state = layer.init_state(2)
    for batch, time in SHAPES:
        u = torch.randn(batch, time, layer.d_model, dtype=torch.float64, requires_grad=True)
        start = layer(u)[1] if batch != 2 else state
        wanted = [u, *layer.parameters()]
        found, expected = [], []
        for run, into in ((compiled, found), (layer, expected)):
            y, after = run(u, start)
            into += [y, after, torch.autograd.grad(y.square().sum(), wanted, allow_unused=True)]
        assert_close(found, expected)
        if batch == 2:
            state = torch.utils._pytree.tree_map(torch.Tensor.detach, expected[1])
