"""Activation checkpointing recomputes a layer in the backward pass: bit-identical gradients."""

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from longstate import layers

HEADS = {"Mamba2": {"d_head": 4}, "Mamba3": {"d_head": 4}}
NAMES = ["S4", "S4D", "DSS", "S5", "LinOSS", "Mamba", "Mamba2", "Mamba3", "Longhorn", "GatedSSM"]


@pytest.mark.parametrize("name", NAMES)
def test_gradients_do_not_change(name):
    torch.manual_seed(0)
    layer = getattr(layers, name)(4, d_state=4, **HEADS.get(name, {}))
    u = torch.randn(2, 70, 4, requires_grad=True)
    wanted = [u, *layer.parameters()]
    plain = torch.autograd.grad(layer(u)[0].sum(), wanted)
    again = torch.autograd.grad(checkpoint(layer, u, use_reentrant=False)[0].sum(), wanted)
    for x, y in zip(plain, again, strict=True):
        assert torch.equal(x, y)
