"""Mamba and Longhorn against their equations; names of parameters; the meaning of a step."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.layers import FalconMamba, Longhorn, Mamba


def make(layer, **options):
    torch.manual_seed(0)
    made = layer(8, d_state=5, **options).double()
    nn.init.normal_(made.D)
    return made


def steered(layer, u):
    """x, z and the parameters of the scan, from the published definition."""
    x, z = (u @ layer.in_proj.weight.T).chunk(2, dim=-1)
    x = F.silu(layer.conv1d(x.mT)[..., : u.shape[1]].mT)
    n = layer.d_state
    return x, z, *(x @ layer.x_proj.weight.T).split([layer.rank, n, n], dim=-1)


def outputs(layer, h, x, z, read):
    y = (h * read[:, :, None]).sum(-1) + layer.D * x
    return (y * F.silu(z)) @ layer.out_proj.weight.T


def mamba_by_the_equations(layer, u, normalise=lambda v: v):
    x, z, *read_off = steered(layer, u)
    low, B, C = map(normalise, read_off)
    step = F.softplus(layer.dt_proj(low))
    h, states = u.new_zeros(len(u), layer.d_inner, layer.d_state), []
    for t in range(u.shape[1]):
        decay = torch.exp(-step[:, t, :, None] * layer.A_log.exp())
        h = decay * h + (step[:, t] * x[:, t])[..., None] * B[:, t, None]
        states.append(h)
    return outputs(layer, torch.stack(states, 1), x, z, C)


def longhorn_by_the_objective(layer, u):
    """The minimiser from its normal equations, solved for every sample and channel."""
    x, z, low, k, q = steered(layer, u)
    beta = torch.sigmoid(layer.dt_head(low))
    h, states = u.new_zeros(len(u), layer.d_inner, layer.d_state), []
    eye = torch.eye(layer.d_state, dtype=u.dtype)
    for t in range(u.shape[1]):
        key = k[:, t, None]
        left = eye + beta[:, t, :, None, None] * key[..., None] * key[..., None, :]
        h = torch.linalg.solve(left, h + (beta[:, t] * x[:, t])[..., None] * key)
        states.append(h)
    return outputs(layer, torch.stack(states, 1), x, z, q)


def test_mamba_is_its_equations():
    layer, u = make(Mamba), torch.randn(2, 40, 8, dtype=torch.float64)
    assert_close(layer(u)[0], mamba_by_the_equations(layer, u))


def test_falcon_mamba_is_mamba_with_norms_on_its_parameters():
    layer, u = make(FalconMamba, eps=0.01), torch.randn(2, 40, 8, dtype=torch.float64)

    def normalise(v):
        return v / (v.square().mean(-1, keepdim=True) + 0.01).sqrt()

    assert_close(layer(u)[0], mamba_by_the_equations(layer, u, normalise))
    plain = make(Mamba)
    assert {k: v.shape for k, v in layer.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }


def test_the_rank_of_the_step_is_an_option():
    layer, u = make(Mamba, dt_rank=3), torch.randn(2, 40, 8, dtype=torch.float64)
    assert layer.dt_proj.weight.shape == (16, 3)
    assert_close(layer(u)[0], mamba_by_the_equations(layer, u))


def test_exact_longhorn_minimises_its_objective():
    layer = make(Longhorn, variant="exact")
    u = torch.randn(2, 40, 8, dtype=torch.float64)
    assert_close(layer(u)[0], longhorn_by_the_objective(layer, u))


def test_longhorns_updates_differ_beyond_the_first_sample():
    exact, diagonal = make(Longhorn, variant="exact"), make(Longhorn)
    u = torch.randn(2, 5, 8, dtype=torch.float64)
    a, b = exact(u)[0], diagonal(u)[0]
    assert_close(a[:, 0], b[:, 0])  # from a state of zero the two agree
    assert not torch.allclose(a[:, 1:], b[:, 1:])


def test_names_and_shapes_are_the_authors():
    frame = {
        "D": (1536,),
        "in_proj.weight": (3072, 768),
        "conv1d.weight": (1536, 1, 4),
        "conv1d.bias": (1536,),
        "x_proj.weight": (48 + 32, 1536),
        "out_proj.weight": (768, 1536),
    }
    step = {"weight": (1536, 48), "bias": (1536,)}
    mamba = {"A_log": (1536, 16), **{f"dt_proj.{k}": v for k, v in step.items()}}
    longhorn = {f"dt_head.{k}": v for k, v in step.items()}
    for layer, own in ((Mamba, mamba), (Longhorn, longhorn)):
        shapes = {k: tuple(v.shape) for k, v in layer(768).state_dict().items()}
        assert shapes == frame | own


def test_mambas_steps_begin_in_their_range():
    torch.manual_seed(0)
    steps = F.softplus(Mamba(256, dt_min=1e-2, dt_max=1e-1).dt_proj.bias)
    assert steps.min() >= 0.0099
    assert steps.max() <= 0.101


def test_zero_time_does_not_change_mambas_state():
    layer, u = make(Mamba), torch.randn(2, 6, 8, dtype=torch.float64)
    _, state = layer(u)
    _, after = layer(u, state, dt=torch.zeros(2, 6, dtype=torch.float64))
    assert torch.equal(after["ssm"], state["ssm"])


def test_longhorn_refuses_irregular_time_and_names_mamba():
    with pytest.raises(ValueError, match="Mamba does"):
        Longhorn(4)(torch.zeros(1, 3, 4), dt=torch.ones(1, 3))


def test_options_are_checked():
    with pytest.raises(ValueError, match="d_conv"):
        Mamba(4, d_conv=0)
    with pytest.raises(ValueError, match="dt_rank must be at least 1; got 0"):
        Mamba(4, dt_rank=0)
    with pytest.raises(ValueError, match="variant"):
        Longhorn(4, variant="best")


@pytest.mark.parametrize(("learned", "limited"), [(1.0, 0.05), (0.02, 0.02), (1e-3, 0.01)])
def test_limits_apply_to_the_learned_step_and_not_to_time(learned, limited):
    torch.manual_seed(0)
    with_limits, without = Mamba(8, dt_limit=(0.01, 0.05)).double(), Mamba(8).double()
    without.load_state_dict(with_limits.state_dict())
    with torch.no_grad():
        for layer, step in ((with_limits, learned), (without, limited)):
            layer.dt_proj.weight.zero_()
            layer.dt_proj.bias.fill_(math.log(math.expm1(step)))  # softplus of it is the step
    u = torch.randn(2, 9, 8, dtype=torch.float64)
    dt = 10 * torch.rand(2, 9, dtype=torch.float64)
    assert_close(with_limits(u, dt=dt), without(u, dt=dt))
    assert_close(with_limits(u), without(u))
