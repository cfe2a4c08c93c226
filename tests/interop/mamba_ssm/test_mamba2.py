"""The published Mamba2 module: the library's own layer by its parameters, and how it generates."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from longstate import layers
from longstate.errors import InputError
from longstate.interop.mamba_ssm.cache import InferenceParams
from longstate.interop.mamba_ssm.mamba2 import Mamba2
from tests.ops.helpers import randn


def make(**options):
    torch.manual_seed(0)
    layer = Mamba2(16, **{"d_state": 5, "headdim": 8, "layer_idx": 3} | options).double()
    nn.init.normal_(layer.D)
    if layer.rmsnorm:
        nn.init.normal_(layer.norm.weight)
    return layer


U = randn(2, 9, 16, seed=1)


@pytest.mark.parametrize("groups", [1, 2])
def test_state_dicts_go_both_ways_and_mean_the_same(groups):
    theirs = make(ngroups=groups)
    ours = layers.Mamba2(16, d_state=5, d_head=8, n_groups=groups).double()
    ours.load_state_dict(theirs.state_dict())
    assert_close(theirs(U), ours(U)[0])
    nn.init.normal_(ours.A_log)
    theirs.load_state_dict(ours.state_dict())
    assert_close(theirs(U), ours(U)[0])


def by_the_equations(layer, u):
    """One sample after the other; channels beside the heads, every option."""
    h, p, n, g = layer.nheads, layer.headdim, layer.d_state, layer.ngroups
    inner, beside = h * p, layer.d_inner - h * p
    sizes = [beside, beside, inner, inner + 2 * g * n, h]
    z0, x0, z, xBC, dt = layer.in_proj(u).split(sizes, dim=-1)
    xBC = F.silu(layer.conv1d(xBC.mT)[..., : u.shape[1]].mT)
    x, B, C = xBC.split([inner, g * n, g * n], dim=-1)
    dt = F.softplus(dt + layer.dt_bias).clamp(*layer.dt_limit)
    D = layer.D.view(h, p) if layer.D_has_hdim else layer.D[:, None]
    state, out = u.new_zeros(len(u), h, p, n), []
    for t in range(u.shape[1]):
        x_t = x[:, t].view(-1, h, p)
        B_t, C_t = (v[:, t].view(-1, g, n).repeat_interleave(h // g, 1) for v in (B, C))
        decay = torch.exp(-dt[:, t] * layer.A_log.exp())[..., None, None]
        state = decay * state + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x_t, B_t)
        out.append((torch.einsum("bhpn,bhn->bhp", state, C_t) + D * x_t).flatten(1))
    y, gate = torch.stack(out, 1), F.silu(z)
    first = layer.rmsnorm and layer.norm_before_gate
    y = y if first else y * gate
    if layer.rmsnorm:
        v = y.unflatten(2, (g, -1))
        y = (v / (v.square().mean(-1, keepdim=True) + 1e-5).sqrt()).flatten(2) * layer.norm.weight
    return layer.out_proj(torch.cat([F.silu(z0) * x0, y * gate if first else y], dim=-1))


OPTIONS = [
    {"bias": True, "use_mem_eff_path": False},
    {"conv_bias": False, "d_conv": 3, "conv_init": 0.5, "chunk_size": 4},
    {"ngroups": 2, "D_has_hdim": True, "norm_before_gate": True},
    {"rmsnorm": False, "D_has_hdim": True, "sequence_parallel": False},
    {"d_ssm": 16, "ngroups": 2, "dt_limit": (0.01, 0.03)},
    {"d_ssm": 8, "rmsnorm": False, "expand": 3},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_options_are_the_equations_with_gradients(options):
    layer = make(**options)
    expected, found = by_the_equations(layer, U), layer(U)
    assert_close(found, expected)
    assert_close(layer(U.flatten(0, 1), seqlen=9), expected.flatten(0, 1))
    parameters, cotangent = list(layer.parameters()), randn(*found.shape, seed=2)
    pairs = (torch.autograd.grad(y, parameters, cotangent) for y in (found, expected))
    for (name, _), a, b in zip(layer.named_parameters(), *pairs, strict=True):
        assert_close(a, b, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("options", [{}, *OPTIONS])
def test_steps_are_the_forward_pass(options):
    layer = make(**options)
    states = layer.allocate_inference_cache(2, 100)
    found = [layer.step(U[:, t : t + 1], *states)[0] for t in range(9)]
    assert_close(torch.cat(found, 1), layer(U))
    assert not any(state.requires_grad for state in states)


def test_a_prompt_may_come_in_pieces():
    layer, params = make(ngroups=2), InferenceParams(max_seqlen=100, max_batch_size=2)
    found = []
    for piece in U.split([2, 1, 5, 1], dim=1):
        found.append(layer(piece, inference_params=params))
        params.seqlen_offset += piece.shape[1]
    assert_close(torch.cat(found, 1), layer(U))


def packed():
    u, bounds = U.flatten(0, 1)[None], torch.tensor([0, 3, 10, 15], dtype=torch.int32)
    ids = torch.repeat_interleave(torch.tensor([0, 1, 2, -1]), torch.tensor([3, 7, 5, 3]))[None]
    return u, bounds, ids.int()


def test_packed_sequences_equal_single_ones():
    layer = make()
    u, bounds, ids = packed()
    y = layer(u, seq_idx=ids)
    assert torch.equal(layer(u, seq_idx=ids, cu_seqlens=bounds), y)
    for begin, end in ((0, 3), (3, 10), (10, 15)):
        assert_close(y[:, begin:end], layer(u[:, begin:end]))
    assert not y[:, 15:].any()


def test_packed_prompts_continue_from_their_own_states():
    layer, params = make(), InferenceParams(max_seqlen=100, max_batch_size=3)
    u, bounds, ids = packed()
    y = layer(u, seq_idx=ids, cu_seqlens=bounds, inference_params=params)
    assert_close(y, layer(u, seq_idx=ids))
    params.seqlen_offset = 7
    following = randn(3, 2, 16, seed=5)
    found = layer(following, inference_params=params)
    for i, (begin, end) in enumerate(((0, 3), (3, 10), (10, 15))):
        whole = torch.cat([u[0, begin:end], following[i]])[None]
        assert_close(found[i], layer(whole)[0, -2:])


def test_states_and_parameters_have_the_published_shapes_types_and_marks():
    layer = Mamba2(16, d_state=5, headdim=8, d_conv=3, dtype=torch.bfloat16)
    conv_state, ssm_state = layer.allocate_inference_cache(2, 100)
    assert (conv_state.shape, ssm_state.shape) == ((2, 32 + 10, 3), (2, 4, 8, 5))
    assert conv_state.dtype == ssm_state.dtype == torch.bfloat16
    y, _, _ = layer.step(torch.randn(2, 1, 16).bfloat16(), conv_state, ssm_state)
    assert y.dtype == layer(torch.randn(2, 7, 16).bfloat16()).dtype == torch.bfloat16
    assert {k for k, p in layer.named_parameters() if p.dtype == torch.float32} == {"D"}
    for parameter in (layer.A_log, layer.D, layer.dt_bias):
        assert parameter._no_weight_decay
    wide = Mamba2(256, headdim=2, A_init_range=(2, 3), dt_min=0.01, dt_max=0.02)
    assert 2 <= wide.A_log.exp().min() < 2.1 < 2.9 < wide.A_log.exp().max() <= 3
    assert 0.0099 < F.softplus(wide.dt_bias).min() < F.softplus(wide.dt_bias).max() < 0.0201
    assert all(p.is_meta for p in Mamba2(16, headdim=8, device="meta").parameters())


def test_autocast_keeps_scan_and_state_wide():
    layer, params = Mamba2(16, headdim=8, layer_idx=0), InferenceParams(10, 2)
    u = torch.randn(2, 6, 16)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(u, inference_params=params)
        params.seqlen_offset = 6
        layer(u[:, :1], inference_params=params)
    assert y.dtype == torch.bfloat16
    assert all(state.dtype == torch.float32 for state in params.key_value_memory_dict[0])


def test_refusals():
    for options, message in (
        ({"process_group": object()}, "process_group is not supported"),
        ({"headdim": 5}, "headdim must divide the 32 scanned channels; got 5"),
        ({"ngroups": 3}, "ngroups must divide 4 heads; got 3"),
        ({"d_ssm": 64}, r"d_ssm must be in \(0, expand \* d_model = 32\]; got 64"),
        ({"A_init_range": (0, 1)}, "A_init_range must be a range above 0"),
    ):
        with pytest.raises(InputError, match=message):
            make(**options)
    layer, params = make(), InferenceParams(10, 2)
    u, bounds, ids = packed()
    for options, message in (
        ({"cu_seqlens": bounds}, "cu_seqlens needs seq_idx"),
        ({"seq_idx": ids[:, 1:]}, r"seq_idx must be \(1, 18\)"),
        ({"seq_idx": ids, "inference_params": params}, "seq_idx with inference_params needs"),
        ({"seqlen": 9}, r"u must be \(batch \* time, channels\)"),
    ):
        with pytest.raises(InputError, match=message):
            layer(u, **options)
    with pytest.raises(InputError, match="seqlen must divide 18 rows; got 7"):
        layer(u[0], seqlen=7)
    two = {"seq_idx": ids.expand(2, -1), "cu_seqlens": bounds, "inference_params": params}
    with pytest.raises(InputError, match="cu_seqlens needs a batch of 1; got 2"):
        layer(u.expand(2, -1, -1), **two)
    layer.layer_idx = None
    with pytest.raises(InputError, match="Mamba2 needs layer_idx"):
        layer(u, inference_params=params)
