"""The published Mamba module: the library's own layer by its parameters, and how it generates."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from longstate import layers
from longstate.errors import InputError
from longstate.interop.mamba_ssm.cache import InferenceParams
from longstate.interop.mamba_ssm.mamba import Mamba
from tests.ops.helpers import randn


def make(**options):
    torch.manual_seed(0)
    layer = Mamba(12, **{"d_state": 5, "layer_idx": 3} | options).double()
    nn.init.normal_(layer.D)
    return layer


U = randn(2, 9, 12, seed=1)


def test_state_dicts_go_both_ways_and_mean_the_same():
    theirs, ours = make(), layers.Mamba(12, d_state=5).double()
    ours.load_state_dict(theirs.state_dict())
    assert_close(theirs(U), ours(U)[0])
    nn.init.normal_(ours.A_log)
    theirs.load_state_dict(ours.state_dict())
    assert_close(theirs(U), ours(U)[0])


def by_the_equations(layer, u):
    """The layer sample by sample, with all biases."""
    x, z = layer.in_proj(u).chunk(2, dim=-1)
    x = F.silu(layer.conv1d(x.mT)[..., : u.shape[1]].mT)
    low, B, C = layer.x_proj(x).split([layer.dt_rank, layer.d_state, layer.d_state], dim=-1)
    step = F.softplus(layer.dt_proj(low))
    h, out = u.new_zeros(len(u), layer.d_inner, layer.d_state), []
    for t in range(u.shape[1]):
        decay = torch.exp(-step[:, t, :, None] * layer.A_log.exp())
        h = decay * h + (step[:, t] * x[:, t])[..., None] * B[:, t, None]
        out.append((h * C[:, t, None]).sum(-1) + layer.D * x[:, t])
    return layer.out_proj(torch.stack(out, 1) * F.silu(z))


OPTIONS = [
    {"bias": True},
    {"conv_bias": False, "d_conv": 2, "expand": 1.5},
    {"dt_rank": 4, "dt_init": "constant", "dt_scale": 0.5, "use_fast_path": False},
    {"d_conv": 1, "expand": 3},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_the_equations_with_gradients(options):
    layer = make(**options)
    expected, found = by_the_equations(layer, U), layer(U)
    assert_close(found, expected)
    parameters, cotangent = list(layer.parameters()), randn(*found.shape, seed=2)
    pairs = (torch.autograd.grad(y, parameters, cotangent) for y in (found, expected))
    for (name, _), a, b in zip(layer.named_parameters(), *pairs, strict=True):
        assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("options", [{}, *OPTIONS])
def test_steps_are_the_forward_pass(options):
    layer = make(**options)
    conv_state, ssm_state = layer.allocate_inference_cache(2, 100)
    found = []
    for t in range(9):
        y, again, same = layer.step(U[:, t : t + 1], conv_state, ssm_state)
        assert again is conv_state
        assert same is ssm_state
        found.append(y)
    assert_close(torch.cat(found, 1), layer(U))
    assert not conv_state.requires_grad
    assert not ssm_state.requires_grad


def test_a_prompt_may_come_in_pieces_and_a_new_one_clears_the_states():
    layer, params = make(), InferenceParams(max_seqlen=100, max_batch_size=2)
    for _ in range(2):
        found = []
        for piece in U.split([2, 1, 5, 1], dim=1):
            found.append(layer(piece, inference_params=params))
            params.seqlen_offset += piece.shape[1]
        assert_close(torch.cat(found, 1), layer(U))
        assert list(params.key_value_memory_dict) == [3]
        params.lengths_per_sample = torch.ones(2)
        params.reset(50, 1)
        assert (params.seqlen_offset, params.max_seqlen, params.max_batch_size) == (0, 50, 1)
        assert not params.lengths_per_sample.any()


def test_states_have_the_published_shapes_and_types():
    layer = Mamba(8, d_state=5, d_conv=3, dtype=torch.bfloat16)
    conv_state, ssm_state = layer.allocate_inference_cache(4, 100)
    assert (conv_state.shape, ssm_state.shape) == ((4, 16, 3), (4, 16, 5))
    assert conv_state.dtype == ssm_state.dtype == torch.bfloat16
    narrow, _ = layer.allocate_inference_cache(4, 100, dtype=torch.float16)
    assert narrow.dtype == torch.float16
    y, _, _ = layer.step(torch.randn(4, 1, 8).bfloat16(), conv_state, ssm_state)
    assert y.dtype == torch.bfloat16


def test_parameters_have_the_published_types_and_marks():
    layer = Mamba(8, dtype=torch.bfloat16, dt_min=0.01, dt_max=0.02, dt_init_floor=0.015)
    wide = {k for k, p in layer.named_parameters() if p.dtype == torch.float32}
    assert wide == {"A_log", "D"}
    assert layer.A_log._no_weight_decay
    assert layer.D._no_weight_decay
    assert layer.dt_proj.bias._no_reinit
    steps = F.softplus(Mamba(64, dt_min=0.01, dt_max=0.02, dt_init_floor=0.015).dt_proj.bias)
    assert 0.0149 < steps.min() < 0.0151
    assert steps.max() < 0.0201
    constant = Mamba(8, dt_init="constant", dt_scale=3.0, dt_rank=4).dt_proj.weight
    assert (constant == 1.5).all()
    assert all(p.is_meta for p in Mamba(8, device="meta").parameters())


class Scaled(nn.Module):
    """A replacement for LoRA or quantised layers."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    @property
    def weight(self):
        return self.inner.weight

    def forward(self, u):
        return 2 * self.inner(u)


@pytest.mark.parametrize("name", ["in_proj", "x_proj", "dt_proj", "out_proj"])
def test_projections_are_called(name):
    layer, doubled = make(), make()
    setattr(layer, name, Scaled(getattr(layer, name)))
    with torch.no_grad():
        for parameter in getattr(doubled, name).parameters():
            parameter.mul_(2)
    assert_close(layer(U), doubled(U))


def test_the_steps_bias_is_added_in_float32():
    """bfloat16 near the bias of a small step has 2 digits; the package does not lose them."""
    torch.manual_seed(0)
    layer = Mamba(64, dt_min=1e-3, dt_max=1e-3).bfloat16()
    low = torch.randn(2, 5, layer.dt_rank).bfloat16()
    step, bias = layer._step(low)
    with torch.no_grad():
        exact = F.linear(low.double(), layer.dt_proj.weight.double()) + bias.double()
        ours, narrow = (v.double() - exact for v in (step.float() + bias, layer.dt_proj(low)))
    assert ours.abs().mean() < narrow.abs().mean() / 3


def test_autocast_keeps_scan_and_state_wide():
    layer, params = Mamba(8, layer_idx=0), InferenceParams(10, 2)
    u = torch.randn(2, 6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(u, inference_params=params)
        params.seqlen_offset = 6
        layer(u[:, :1], inference_params=params)
    assert y.dtype == torch.bfloat16
    assert all(state.dtype == torch.float32 for state in params.key_value_memory_dict[0])


def test_refusals():
    with pytest.raises(InputError, match="dt_init must be 'random' or 'constant'; got 'zero'"):
        Mamba(8, dt_init="zero")
    with pytest.raises(InputError, match="dt_min must be in"):
        Mamba(8, dt_min=0.2)
    layer, params = make(layer_idx=None), InferenceParams(10, 2)
    for u, message in (
        (U[0], r"hidden_states must be \(batch, time, channels\); got \(9, 12\)"),
        (U[..., :8], r"hidden_states must be \(2, 9, 12\)"),
        (U[:, :0], "hidden_states has no samples"),
    ):
        with pytest.raises(InputError, match=message):
            layer(u)
    with pytest.raises(InputError, match="Mamba needs layer_idx"):
        layer(U, inference_params=params)
    with pytest.raises(InputError, match=r"hidden_states must be \(2, 1, 12\)"):
        layer.step(U, *layer.allocate_inference_cache(2, 10))
    with pytest.raises(InputError, match=r"conv_state must be \(2, 24, 4\); got \(1, 24, 4\)"):
        layer.step(U[:, :1], *layer.allocate_inference_cache(1, 10))
    layer.layer_idx = 0
    layer(U, inference_params=params)
    with pytest.raises(InputError, match="conv_state must be"):
        layer(U[:1], inference_params=params)
