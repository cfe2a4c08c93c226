"""The package's language model, its blocks, attention, files and `generate`.

Oracles: transformers' Mamba and Mamba-2 with the same weights, PyTorch's attention, and our own
`LanguageModel`, which reads the same folders.
"""

import dataclasses
import json
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.interop import load_language_model, save_language_model
from longstate.interop.mamba_ssm.block import Block, GatedMLP
from longstate.interop.mamba_ssm.cache import InferenceParams
from longstate.interop.mamba_ssm.generation import sample
from longstate.interop.mamba_ssm.language_model import MambaConfig, MambaLMHeadModel, _init_weights
from longstate.interop.mamba_ssm.mamba import Mamba
from longstate.interop.mamba_ssm.mha import MHA
from longstate.models import generate
from tests.golden import assert_parity
from tests.interop.samples import draw, make, same

KINDS = pytest.mark.parametrize("name", ["mamba", "mamba2"])


def opened(name, folder, **changes):
    """The package's model with the weights of ours."""
    model = make(name, **changes)
    save_language_model(model, folder / "m", "mamba-ssm")
    return MambaLMHeadModel.from_pretrained(folder / "m").eval(), model


@KINDS
@torch.no_grad()
def test_logits_are_those_of_transformers(name, tmp_path):
    transformers = pytest.importorskip("transformers", reason="needs the extra 'hf'")
    theirs, model = opened(name, tmp_path, vocab_multiple=8)
    save_language_model(model, tmp_path / "hf")
    expected = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    assert_parity(theirs(draw()).logits, expected(draw()).logits)
    assert_close(theirs.double()(draw()).logits[..., :50], model.double()(draw())[0])
    assert theirs(draw()).logits.shape[-1] == 56
    assert_close(theirs(draw(), num_last_tokens=2).logits, theirs(draw()).logits[:, -2:])


def test_init_weights_of_another_model():
    block = Block(16, Mamba, GatedMLP)
    step, D = block.mixer.dt_proj.bias.clone(), block.mixer.D.clone()
    model = nn.ModuleList([nn.Embedding(500, 100), nn.Linear(16, 16), block])
    model.apply(partial(_init_weights, n_layer=8, n_residuals_per_layer=2))
    assert 0.019 < model[0].weight.std() < 0.021
    assert not model[1].bias.any()
    assert torch.equal(block.mixer.dt_proj.bias, step)
    assert torch.equal(block.mixer.D, D)
    for last in (block.mixer.out_proj, block.mlp.fc2):
        most = (last.in_features * 16) ** -0.5
        assert 0.9 * most < last.weight.abs().max() <= most


@KINDS
def test_saved_folders_go_both_ways(name, tmp_path):
    theirs, model = opened(name, tmp_path)
    theirs.save_pretrained(tmp_path / "again")
    same(load_language_model(tmp_path / "again"), model)
    same(MambaLMHeadModel.from_pretrained(tmp_path / "again"), theirs)
    config = json.loads((tmp_path / "again" / "config.json").read_text())
    assert set(config) == {f.name for f in dataclasses.fields(MambaConfig)}


@KINDS
@torch.no_grad()
def test_generate(name, tmp_path):
    theirs, model = (m.double() for m in opened(name, tmp_path, eos_tokens=()))
    found = theirs.generate(
        draw(), 45, return_dict_in_generate=True, output_scores=True, eos_token_id=-1
    )
    expected = [row.tokens for row in generate(model, draw(), max_tokens=8)]
    assert found.sequences[:, 37:].tolist() == expected
    logits = model(found.sequences)[0][:, 36:-1]
    assert_close(torch.stack(found.scores, dim=1), logits)
    taught = theirs.generate(draw(), 45, teacher_outputs=found.sequences.flip(0))
    assert torch.equal(taught[:, 37:], found.sequences.flip(0)[:, 37:])
    with pytest.raises(InputError, match="cg=True"):
        theirs.generate(draw(), 45, cg=True)


@torch.no_grad()
def test_tokens_that_the_vocabulary_lacks_are_never_drawn(tmp_path):
    theirs, _ = opened("mamba2", tmp_path, vocab_multiple=64)
    theirs.lm_head.weight[50:] = 100 * theirs.lm_head.weight[:14]
    torch.manual_seed(0)
    for options in ({}, {"top_k": 0, "temperature": 5.0}, {"top_k": 60, "top_p": 0.99}):
        assert theirs.generate(draw(), 60, **options).max() < 50


def test_sampling_follows_the_distribution():
    torch.manual_seed(0)
    logits = torch.tensor([0.5, 0.3, 0.15, 0.05]).log().expand(20000, -1)

    def shares(**options):
        return torch.bincount(sample(logits, **options), minlength=4) / 20000

    def close(found, expected):  # five standard deviations of a share of 20,000
        assert (found - torch.tensor(expected)).abs().max() < 5 * 0.5 / 20000**0.5

    assert (sample(logits) == 0).all()
    close(shares(top_k=0), [0.5, 0.3, 0.15, 0.05])
    close(shares(top_k=2), [0.625, 0.375, 0, 0])
    close(shares(top_k=0, top_p=0.7), [0.625, 0.375, 0, 0])
    close(shares(top_k=0, min_p=0.2), [10 / 19, 6 / 19, 3 / 19, 0])
    squares = torch.tensor([0.25, 0.09, 0.0225, 0.0025])
    close(shares(top_k=0, temperature=0.5), (squares / squares.sum()).tolist())


def test_a_block_is_its_equation():
    torch.manual_seed(0)
    block = Block(6, lambda d: Twice(), lambda d: GatedMLP(d, 10, d), nn.LayerNorm).double()
    x, before = torch.randn(2, 2, 5, 6, dtype=torch.float64)
    y, residual = block(x, before)
    middle = x + before + 2 * F.layer_norm(x + before, (6,))
    assert_close(residual, middle)
    up, gate = F.linear(F.layer_norm(middle, (6,)), block.mlp.fc1.weight).chunk(2, -1)
    assert_close(y, F.linear(up * F.silu(gate), block.mlp.fc2.weight))
    assert block.mlp.fc2.in_features == 128


class Twice(nn.Module):
    def forward(self, x, inference_params=None):
        return 2 * x


ATTENTION = pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_heads_kv": 2, "mlp_dim": 200, "qkv_proj_bias": False},
        {"d_conv": 3, "rotary_emb_dim": 4, "head_dim": 8, "softmax_scale": 0.3},
        {"rotary_emb_dim": 6, "rotary_emb_interleaved": True, "out_proj_bias": False},
    ],
)


def attention(options):
    torch.manual_seed(0)
    return MHA(24, 4, causal=True, layer_idx=0, **options).double()


def by_hand(layer, x):
    """Every query, head by head, in complex numbers where it rotates."""
    h, g, p = layer.num_heads, layer.num_heads_kv, layer.head_dim
    qkv = layer.in_proj(x)
    width = p * (h + 2 * g)
    beside = qkv[..., width:]
    qkv = qkv[..., :width]
    if layer.d_conv:
        qkv = layer.conv1d(qkv.mT)[..., : x.shape[1]].mT
    heads = qkv.unflatten(-1, (-1, p))
    r = layer.rotary_emb_dim

    def turned(v, i):
        if not r:
            return v
        a, b = (v[:r:2], v[1:r:2]) if layer.rotary_emb_interleaved else v[:r].chunk(2)
        z = torch.complex(a, b) * torch.exp(
            1j * i * layer.rotary_emb_base ** -(torch.arange(0, r, 2).double() / r)
        )
        pair = torch.stack([z.real, z.imag], -1).flatten()
        return torch.cat(
            [pair if layer.rotary_emb_interleaved else torch.cat([z.real, z.imag]), v[r:]]
        )

    out = x.new_zeros(*x.shape[:2], h, p)
    scale = layer.softmax_scale or p**-0.5
    for b in range(len(x)):
        for j in range(h):
            kv = j * g // h
            keys = torch.stack([turned(heads[b, i, h + kv], i) for i in range(x.shape[1])])
            values = heads[b, :, h + g + kv]
            for i in range(x.shape[1]):
                w = (scale * keys[: i + 1] @ turned(heads[b, i, j], i)).softmax(0)
                out[b, i, j] = w @ values[: i + 1]
    y = out.flatten(2)
    if layer.mlp_dim:
        up, gate = beside.chunk(2, -1)
        y = torch.cat([y, up * F.silu(gate)], -1)
    return layer.out_proj(y)


@ATTENTION
@torch.no_grad()
def test_attention_is_its_equation_and_goes_on_from_its_cache(options):
    layer = attention(options)
    x = torch.randn(2, 7, 24, dtype=torch.float64)
    whole = layer(x)
    assert_close(whole, by_hand(layer, x))
    params = InferenceParams(7, 2)
    pieces = []
    for begin, end in ((0, 4), (4, 5), (5, 7)):
        pieces.append(layer(x[:, begin:end], inference_params=params))
        params.seqlen_offset = end
    assert_close(torch.cat(pieces, dim=1), whole)
    params.seqlen_offset = 7
    with pytest.raises(InputError, match="up to token 8"):
        layer(x[:, :1], inference_params=params)


@pytest.mark.parametrize("kind", ["Mamba1", "Mamba2", "Mamba3"])
@torch.no_grad()
def test_a_hybrid_generates_what_it_computes(kind):
    torch.manual_seed(0)
    sizes = {"d_state": 8} if kind == "Mamba1" else {"d_state": 8, "headdim": 8}
    config = MambaConfig(
        32, 48, 3, 50, {"layer": kind, **sizes}, [1],
        {"num_heads": 4, "causal": True, "rotary_emb_dim": 8, "d_conv": 3},
    )  # fmt: skip
    model = MambaLMHeadModel(config).eval()
    for p in model.parameters():
        nn.init.normal_(p, p.mean().item(), 0.2)
    found = model.generate(draw(), 43)
    logits = model(found).logits[..., :50]
    assert torch.equal(found[:, 37:], logits[:, 36:-1].argmax(-1))
    cache = model.allocate_inference_cache(2, 43)
    assert set(cache) == {0, 1, 2}


def test_initial_values_do_not_grow_with_depth():
    torch.manual_seed(0)
    stds = {}
    for n_layer in (1, 4):
        model = MambaLMHeadModel(MambaConfig(64, 0, n_layer, 50))
        stds[n_layer] = model.backbone.layers[0].mixer.out_proj.weight.std()
        assert abs(model.backbone.embedding.weight.std() - 0.02) < 0.002
        assert model.lm_head.weight is model.backbone.embedding.weight
    assert abs(stds[1] / stds[4] - 2) < 0.1


def test_unsupported_options_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"ssm_cfg\['layer'\] must be one of Mamba1, Mamba2"):
        MambaLMHeadModel(MambaConfig(8, 0, 1, 50, {"layer": "Mamba9"}))
    with pytest.raises(InputError, match="snapshot_download"):
        MambaLMHeadModel.from_pretrained("state-spaces/mamba-130m")
