"""Layers in 16 bits: what sets their dynamics stays in float32, as the state does."""

import copy

import pytest
import torch
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

from longstate.layers import Layer
from longstate.layers._dynamics import Dynamic
from longstate.testing import assert_within_reference_error
from tests.layers.test_contract import LAYERS

NARROW = [torch.bfloat16, torch.float16]
every_layer = pytest.mark.parametrize("name", LAYERS)


def made(name: str) -> Layer:
    torch.manual_seed(0)
    return LAYERS[name]()


def types(layer: Layer) -> dict[str, torch.dtype]:
    return {key: p.dtype for key, p in layer.named_parameters()}


def dynamics(layer: Layer) -> list[str]:
    """Names of the parameters that stay wide, those of modules inside included."""
    return [
        f"{name}.{key}".lstrip(".")
        for name, module in layer.named_modules()
        if isinstance(module, Dynamic)
        for key in module.dynamics
        if getattr(module, key) is not None
    ]


@pytest.mark.parametrize("dtype", NARROW)
@every_layer
def test_dynamics_stay_in_float32(name, dtype):
    layer = made(name)
    before = {key: layer.get_parameter(key).clone() for key in dynamics(layer)}
    for p in layer.parameters():
        p.grad = torch.full_like(p, 1 / 3)
    layer.to(dtype)
    for key, value in before.items():
        assert_close(layer.get_parameter(key).detach(), value.detach(), rtol=0, atol=0)
        assert layer.get_parameter(key).grad.dtype == torch.float32
    others = set(types(layer)) - set(before)
    assert {layer.get_parameter(key).dtype for key in others} == {dtype}
    assert types(copy.deepcopy(layer)) == types(layer)
    again = made(name).to(dtype)
    again.load_state_dict(layer.state_dict())
    assert types(again) == types(layer)
    u = torch.randn(2, 9, layer.d_model, dtype=dtype)
    assert_close(again(u), layer(u), rtol=0, atol=0)
    assert set(types(layer.double()).values()) == {torch.float64}
    assert set(types(layer.to("cpu", dtype).float()).values()) == {torch.float32}
    for key, value in before.items():
        assert_close(layer.get_parameter(key).detach(), value.detach(), rtol=0, atol=0)
    with torch.device("meta"):
        empty = LAYERS[name]()
    assert types(empty.to(dtype)) == types(again)


@every_layer
def test_only_projections_and_signals_are_rounded(name):
    """Against the same layer whose projections alone hold rounded weights, computed in float32."""
    layer = made(name)
    rounded = copy.deepcopy(layer)
    with torch.no_grad():
        for key, p in rounded.named_parameters():
            if key not in dynamics(layer):
                p.copy_(p.bfloat16())
    u = torch.randn(2, 40, layer.d_model).bfloat16()
    y, state = copy.deepcopy(layer).bfloat16()(u)
    assert all(s.dtype in (torch.float32, torch.complex64) for s in tree_leaves(state))
    exact, plain = copy.deepcopy(rounded).double()(u.double())[0], rounded(u)[0]
    if not any(isinstance(m, torch.nn.Linear) for m in layer.modules()):
        assert_close(y, plain, rtol=0, atol=0)
        return
    # products of matrices are rounded to bfloat16 too: PyTorch's autocast is the plain reference
    with torch.autocast("cpu", torch.bfloat16):
        plain = copy.deepcopy(rounded)(u)[0]
    assert_within_reference_error(y, exact, plain)


@every_layer
def test_backward_within_autocast(name):
    """PyTorch advises against it, and people do it: as good as a backward outside."""
    layer = made(name)
    wide = copy.deepcopy(layer).double()
    u = torch.randn(2, 30, layer.d_model)

    def gradients(layer, u, within):
        u = u.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=u.dtype == torch.float32):
            y, _ = layer(u)
            loss = y.to(u.dtype).square().sum()
            if within:
                return torch.autograd.grad(loss, u)[0]
        return torch.autograd.grad(loss, u)[0]

    exact, plain = gradients(wide, u.double(), False), gradients(layer, u, False)
    assert_within_reference_error(gradients(layer, u, True).bfloat16(), exact, plain.bfloat16())
