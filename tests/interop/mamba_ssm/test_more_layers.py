"""Mamba-3, Mamba2Simple, autograd functions, references, and packed sequences with states."""

import pytest
import torch
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.interop.mamba_ssm import references
from longstate.interop.mamba_ssm.cache import InferenceParams
from longstate.interop.mamba_ssm.convolution import causal_conv1d_fn
from longstate.interop.mamba_ssm.functions import CausalConv1dFn, SelectiveScanFn
from longstate.interop.mamba_ssm.mamba2 import Mamba2
from longstate.interop.mamba_ssm.mamba2_simple import Mamba2Simple
from longstate.interop.mamba_ssm.mamba3 import Mamba3
from longstate.interop.mamba_ssm.residual_norm import layer_norm_fn, rms_norm_fn
from longstate.interop.mamba_ssm.scan import (
    mamba_inner_fn,
    mamba_inner_fn_no_out_proj,
    selective_scan_fn,
)
from longstate.interop.mamba_ssm.ssd import mamba_chunk_scan_combined
from longstate.interop.mamba_ssm.ssd_stages import (
    _chunk_cumsum_fwd,
    chunk_scan,
    chunk_state,
    state_passing,
)
from longstate.layers import Mamba3 as Layer
from tests.interop.mamba_ssm.test_ssd import inputs
from tests.ops.helpers import randn


def mamba3():
    torch.manual_seed(0)
    sizes = {"d_state": 8, "headdim": 4, "ngroups": 2, "rope_fraction": 1.0}
    return Mamba3(8, **sizes, layer_idx=0).double()


@torch.no_grad()
def test_mamba3_is_the_layer_with_its_weights():
    layer = Layer(8, d_state=8, d_head=4, n_groups=2, rope_fraction=1.0).double()
    layer.load_state_dict(mamba3().state_dict())
    u = randn(2, 9, 8)
    assert_close(mamba3()(u), layer(u)[0], rtol=0, atol=0)


@torch.no_grad()
def test_mamba3_in_pieces_and_steps():
    layer, u = mamba3(), randn(2, 9, 8)
    params, pieces = InferenceParams(9, 2), []
    for begin, end in ((0, 5), (5, 6), (6, 8)):
        pieces.append(layer(u[:, begin:end], inference_params=params))
        params.seqlen_offset = end
    y, *_ = layer.step(u[:, 8], *params.key_value_memory_dict[0])
    assert_close(torch.cat([*pieces, y[:, None]], dim=1), layer(u))
    zero = layer.allocate_inference_cache(2, 9)
    assert_close(layer.step(u[:, :1], *zero)[0], layer(u[:, :1]))


@torch.no_grad()
def test_mamba3_packed():
    layer, u = mamba3(), randn(1, 9, 8)
    bounds = torch.tensor([0, 4, 5, 9])
    alone = torch.cat([layer(u[:, a:b]) for a, b in ((0, 4), (4, 5), (5, 9))], dim=1)
    assert_close(layer(u, cu_seqlens=bounds), alone)
    ids = torch.tensor([[0] * 4 + [1] + [2] * 4])
    assert_close(layer(u, seq_idx=ids), alone)


def test_mamba3_refuses_what_it_cannot_do():
    for options in ({"is_mimo": True}, {"is_outproj_norm": True}, {"A_floor": 1e-3}):
        with pytest.raises(InputError, match=next(iter(options))):
            Mamba3(8, d_state=8, headdim=4, **options)
    narrow = Mamba3(8, d_state=8, headdim=4, dtype=torch.bfloat16)
    types = {name: p.dtype for name, p in narrow.named_parameters()}
    assert types.pop("D") == types.pop("dt_bias") == torch.float32
    assert set(types.values()) == {torch.bfloat16}


def test_mamba2_simple():
    """Without learnt states it is Mamba2 with one group; with them each sequence begins there."""
    torch.manual_seed(0)
    sizes = {"d_state": 5, "headdim": 4}
    simple = Mamba2Simple(8, **sizes, learnable_init_states=True).double()
    plain = Mamba2(8, **sizes, layer_idx=0).double()
    rest = {k: v for k, v in simple.state_dict().items() if k != "init_states"}
    plain.load_state_dict(rest)
    u = randn(2, 7, 8)
    assert_close(simple(u), plain(u))
    torch.nn.init.normal_(simple.init_states)
    params = InferenceParams(7, 2, seqlen_offset=1)
    conv, ssm = plain.allocate_inference_cache(2, 7)
    ssm.copy_(simple.init_states.detach().expand_as(ssm))
    params.key_value_memory_dict[0] = conv, ssm
    assert_close(simple(u), plain(u, inference_params=params))
    simple(u).sum().backward()
    assert simple.init_states.grad.abs().max() > 0


@pytest.mark.parametrize("chunks", [1, 3])
def test_each_packed_sequence_continues_from_its_own_state(chunks):
    tensors = inputs(b=1, t=14, without=("initial_states",))
    states = randn(3, *tensors["x"].shape[2:], tensors["B"].shape[3])
    ids = torch.tensor([[0] * 5 + [1] + [-1] * 2 + [2] * 6])
    y, final = mamba_chunk_scan_combined(
        **tensors, chunk_size=chunks, seq_idx=ids, initial_states=states, return_final_states=True
    )
    for k, (begin, end) in enumerate(((0, 5), (5, 6), (8, 14))):
        part = {
            name: v if name in ("A", "D", "dt_bias") else v[:, begin:end]
            for name, v in tensors.items()
        }
        own, last = mamba_chunk_scan_combined(
            **part, chunk_size=4, initial_states=states[k : k + 1], return_final_states=True
        )
        assert_close(y[:, begin:end], own)
    assert_close(final, last)
    assert not y[:, 6:8].any()
    with pytest.raises(InputError, match="initial_states"):
        mamba_chunk_scan_combined(**tensors, chunk_size=4, seq_idx=ids, initial_states=states[:2])


def test_references_are_the_stages():
    t = inputs(t=12)
    S, steps = _chunk_cumsum_fwd(t["dt"], t["A"], 4, t["dt_bias"], dt_softplus=True)
    states = chunk_state(t["B"], t["x"], steps, S)
    assert_close(references.chunk_state_ref(t["B"], t["x"], steps, S), states)
    first = t["initial_states"].flatten(2)
    found = state_passing(states.flatten(3), S[..., -1], first)
    assert_close(references.state_passing_ref(states.flatten(3), S[..., -1], first), found)
    assert_close(
        references.state_passing_ref(states.flatten(3), S[..., -1]),
        state_passing(states.flatten(3), S[..., -1]),
    )
    before = found[0].unflatten(3, t["initial_states"].shape[2:])
    rest = (t["B"], t["C"], t["x"], steps, S, before, t["D"], t["z"])
    assert_close(references.chunk_scan_ref(*rest), chunk_scan(*rest))


def test_minimal_scan():
    t = inputs(t=8, without=("D", "z", "dt_bias", "initial_states"))
    steps = t["dt"].exp()
    B, C = (t[k].repeat_interleave(t["x"].shape[2] // t[k].shape[2], dim=2) for k in ("B", "C"))
    y, last = references.ssd_minimal_discrete(
        t["x"] * steps[..., None], t["A"] * steps, B, C, block_len=4
    )
    expected = mamba_chunk_scan_combined(t["x"], steps, t["A"], B, C, 4, return_final_states=True)
    assert_close((y, last), expected)
    x = randn(5)
    sums = references.segsum(x)
    assert_close(sums[4, 1], x[2:].sum())
    assert sums[1, 4] == -torch.inf


@pytest.mark.parametrize("prenorm", [True, False])
def test_norms_and_their_references(prenorm):
    x, residual, weight, bias = randn(3, 8), randn(3, 8), randn(8), randn(8)
    for fast, slow in (
        (layer_norm_fn, references.layer_norm_ref),
        (rms_norm_fn, references.residual_rms_norm_ref),
    ):
        for rest in (None, residual):
            assert_close(
                fast(x, weight, bias, rest, eps=0.1, prenorm=prenorm),
                slow(x, weight, bias, rest, eps=0.1, prenorm=prenorm),
            )


def test_functions_apply_with_gradients():
    u, delta, A, B = randn(2, 4, 9), randn(2, 4, 9), -randn(4, 3).exp(), randn(2, 3, 9)
    u.requires_grad_()
    y, last = SelectiveScanFn.apply(u, delta, A, B, B, None, None, None, True, True)
    assert_close((y, last), selective_scan_fn(u, delta, A, B, B, None, None, None, True, True))
    assert torch.autograd.grad(y.sum(), u)[0].abs().max() > 0
    w = randn(4, 3)
    expected = causal_conv1d_fn(u, w, activation="silu")
    assert_close(CausalConv1dFn.apply(u, w, None, None, None, False, None, True), expected)


def test_a_block_without_its_last_projection():
    """As Vim's fork has it: the same but for the projection."""
    d, n, r = 4, 3, 2
    xz, conv, bias = randn(2, 2 * d, 9), randn(d, 1, 3), randn(d)
    x_proj, dt_proj, out = randn(r + 2 * n, d), randn(d, r), randn(5, d)
    A, D = -randn(d, n).exp(), randn(d)
    whole = mamba_inner_fn(xz, conv, bias, x_proj, dt_proj, out, None, A, D=D, delta_bias=bias)
    inside = mamba_inner_fn_no_out_proj(xz, conv, bias, x_proj, dt_proj, A, D=D, delta_bias=bias)
    assert inside.shape == (2, d, 9)
    assert_close(inside.mT @ out.T, whole)
