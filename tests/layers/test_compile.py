"""Training under `torch.compile` as users call it: its default backend, and lengths that change."""

import os
import shutil

import pytest
import torch
import torch._inductor.config
from torch.testing import assert_close
from torch.utils._pytree import tree_map

from tests.layers.test_contract import LAYERS

COMPILED = (
    "s4-legs", "s4d-lin", "s4d-bilinear", "dss-exp", "s5-zoh", "linoss-im", "linoss-imex", "mamba",
    "falcon-mamba", "longhorn-diagonal", "longhorn-exact", "mamba2", "mamba2-groups",
    "mamba3-rational", "gated-ssm", "gated-ssm-floor", "attention",
)  # fmt: skip
SHAPES = [(2, 17), (2, 30), (2, 64), (3, 41), (0, 5)]
COMPILER = shutil.which(os.environ.get("CXX", "g++")) or shutil.which("clang++")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # PyTorch's own: on complex numbers, its old names
@pytest.mark.skipif(COMPILER is None, reason="the default backend needs a C++ compiler")
@pytest.mark.parametrize("name", COMPILED)
def test_trains_with_the_default_backend(name):
    assert torch._inductor.config.size_asserts  # wrong strides are an error
    torch.manual_seed(0)
    torch._dynamo.reset()
    layer = LAYERS[name]().double()
    compiled = torch.compile(layer)
    for batch, time in SHAPES:
        u = torch.randn(batch, time, layer.d_model, dtype=torch.float64, requires_grad=True)
        start = tree_map(torch.Tensor.detach, layer(u)[1])
        wanted, results = [u, *layer.parameters()], []
        for run in (compiled, layer):
            y, after = run(u, start)
            gradients = torch.autograd.grad(y.square().sum(), wanted, allow_unused=True)
            results.append([y, after, [g for g in gradients if g is not None]])
        assert_close(*results)
