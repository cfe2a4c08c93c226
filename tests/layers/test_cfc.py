"""CfC against its equations as a loop, and at the ends of time."""

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import CfC

VARIANTS = ("default", "no_gate", "pure")


def made(variant: str, **options: int) -> tuple[CfC, torch.Tensor]:
    torch.manual_seed(0)
    layer = CfC(3, d_state=5, d_backbone=4, variant=variant, **options).double()
    for p in layer.parameters():  # also those that begin at 0 or 1
        torch.nn.init.normal_(p)
    return layer, torch.randn(2, 9, 3, dtype=torch.float64)


def by_equations(layer: CfC, u, dt):
    """One row, one sample and one block of weights at a time."""
    n = layer.d_state
    W, b = layer.heads.weight, layer.heads.bias
    outputs = torch.zeros_like(u)
    for row in range(len(u)):
        h = torch.zeros(n, dtype=u.dtype)
        for t in range(u.shape[1]):
            v = torch.cat([u[row, t], h])
            for linear in layer.backbone:
                v = 1.7159 * torch.tanh(0.666 * (linear.weight @ v + linear.bias))
            heads = [W[i : i + n] @ v + b[i : i + n] for i in range(0, len(W), n)]
            if layer.variant == "pure":
                (p,) = heads
                h = layer.A - layer.A * torch.exp(-dt[row, t] * (layer.w.abs() + p.abs())) * p
            else:
                g, k = torch.tanh(heads[0]), torch.tanh(heads[1])
                s = 1 / (1 + torch.exp(-(dt[row, t] * heads[2] + heads[3])))
                h = (g if layer.variant == "no_gate" else (1 - s) * g) + s * k
            outputs[row, t] = layer.out_proj.weight @ h + layer.out_proj.bias
    return outputs, h


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("n_backbone", [1, 3])
def test_the_layer_is_its_equations(variant, n_backbone):
    layer, u = made(variant, n_backbone=n_backbone)
    dt = 3 * torch.rand(2, 9, dtype=torch.float64)
    for given in (dt, None):
        y, state = layer(u, dt=given)
        expected, last = by_equations(layer, u, torch.ones_like(dt) if given is None else given)
        assert_close(y, expected)
        assert_close(state["h"][-1], last)


@pytest.mark.parametrize("variant", ["default", "no_gate"])
def test_after_a_long_time_the_sign_of_a_decides(variant):
    layer, u = made(variant)
    h = torch.randn(2, 5, dtype=torch.float64)
    _, state = layer.step(u[:, 0], {"h": h}, dt=torch.full((2,), 1e6))
    linear = layer.backbone[0]
    v = 1.7159 * torch.tanh(0.666 * linear(torch.cat([u[:, 0], h], dim=1)))
    g, k, a, _ = layer.heads(v).chunk(4, dim=1)
    late = (a > 0).double()
    assert 0 < late.sum() < late.numel()
    g = g.tanh() if variant == "no_gate" else (1 - late) * g.tanh()
    assert_close(state["h"], g + late * k.tanh())


def test_after_a_long_time_the_pure_form_is_at_its_limit():
    layer, u = made("pure")
    _, state = layer(u, dt=torch.full((2, 9), 1e6))
    assert_close(state["h"], layer.A.expand(2, -1))


def test_first_values():
    torch.manual_seed(0)
    layer = CfC(3, d_state=5, d_backbone=400)
    bound = (6 / (400 + 5)) ** 0.5  # Xavier's, of each head by itself
    for block in layer.heads.weight.split(5):
        assert 0.9 * bound < block.abs().max() <= bound
    pure = CfC(3, variant="pure")
    assert not pure.w.any()
    assert bool((pure.A == 1).all())


@pytest.mark.parametrize("variant", VARIANTS)
def test_derivatives(variant):
    layer, u = made(variant)
    u, dt = u[:, :4].requires_grad_(), torch.rand(2, 4, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda u, dt: layer(u, dt=dt)[0], (u, dt))


def test_wrong_options_are_named():
    with pytest.raises(ValueError, match="n_backbone must be at least 1; got 0"):
        CfC(3, n_backbone=0)
    with pytest.raises(ValueError, match="'default', 'no_gate' or 'pure'; got 'mixed'"):
        CfC(3, variant="mixed")
