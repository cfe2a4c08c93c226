"""Checkpoints of other libraries: round trips, names, shards, types."""

import json
import os

import pytest
import safetensors.torch
import torch

from longstate.errors import InputError
from longstate.interop import load_language_model, save_language_model
from longstate.interop.checkpoints import mamba_ssm, transformers
from longstate.interop.checkpoints.config import Config
from tests.interop.samples import FILE, SPECS, draw, keys, make, read, same

CASES = [("mamba", "transformers"), ("mamba", "mamba-ssm"), ("mamba2", "transformers")]
CASES += [("mamba2", "mamba-ssm"), ("falconmamba", "transformers")]
CHANGES = [
    {},
    {"bias": True, "conv_bias": False},
    {"tie": True, "residual_in_float32": False},
    {"tie": False, "vocab_multiple": 8},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_round_trips_are_exact(name, dialect, changes, tmp_path):
    model = make(name, **changes)
    save_language_model(model, tmp_path / "m", dialect)
    assert sorted(os.listdir(tmp_path)) == ["m"]
    assert sorted(os.listdir(tmp_path / "m")) == ["config.json", FILE[dialect]]
    again = load_language_model(tmp_path / "m")
    same(model, again)
    tokens = draw()
    with torch.no_grad():
        assert torch.equal(model(tokens)[0], again(tokens)[0][..., :50])
    assert not again.training
    other = "mamba-ssm" if dialect == "transformers" else "transformers"
    if name != "falconmamba":
        save_language_model(again, tmp_path / "o", other)
        same(model, load_language_model(tmp_path / "o"))


@pytest.mark.parametrize("limit", [(0.02, 0.4), (0.02, None)])
@pytest.mark.parametrize("dialect", ["transformers", "mamba-ssm"])
def test_limits_of_the_step_round_trip(dialect, limit, tmp_path):
    options = {"mamba2": {**SPECS["mamba2"].options["mamba2"], "dt_limit": limit}}
    save_language_model(make("mamba2", options=options), tmp_path / "m", dialect)
    assert load_language_model(tmp_path / "m").blocks[0].mixer.dt_limit == limit


def test_layer_norm_round_trips_through_mamba_ssm(tmp_path):
    model = make("mamba", norm="layer")
    save_language_model(model, tmp_path / "m", "mamba-ssm")
    same(model, load_language_model(tmp_path / "m"))
    assert "backbone.norm_f.bias" in read(tmp_path / "m")
    with pytest.raises(InputError, match="transformers has no such model with norm='layer'"):
        save_language_model(model, tmp_path / "t")


@pytest.mark.parametrize(("name", "dialect"), CASES)
def test_names_are_the_librarys(name, dialect, tmp_path):
    save_language_model(make(name), tmp_path / "m", dialect)
    found = read(tmp_path / "m")
    names = keys(name, "embeddings" if dialect == "transformers" else "embedding")
    # transformers leaves a tied head out; mamba-ssm loads strictly, and wants it
    tied = SPECS[name].tie
    assert set(found) == names | (
        set() if tied and dialect == "transformers" else {"lm_head.weight"}
    )
    if tied and dialect == "mamba-ssm":
        size = os.path.getsize(tmp_path / "m" / "pytorch_model.bin")
        once = sum(v.nbytes for k, v in found.items() if k != "lm_head.weight")
        assert size < once + found["lm_head.weight"].nbytes + 20_000
        assert found["lm_head.weight"].data_ptr() == found["backbone.embedding.weight"].data_ptr()


def test_published_settings_are_understood(tmp_path):
    """config.json as the state-spaces and tiiuae repositories have it."""
    spec = mamba_ssm.read(
        Config(
            json.loads(
                '{"d_model": 768, "n_layer": 24, "vocab_size": 50277, "ssm_cfg": {}, "rms_norm": '
                'true, "residual_in_fp32": true, "fused_add_norm": true, '
                '"pad_vocab_size_multiple": 8}'
            ),
            "x",
        )
    )
    assert (spec.layers, spec.rows, spec.tie) == (("mamba",) * 24, 50280, True)
    assert spec.options["mamba"] == {"d_state": 16, "dt_rank": 48, "d_conv": 4, "expand": 2}
    spec = mamba_ssm.read(
        Config(
            json.loads(
                '{"d_model": 768, "d_intermediate": 0, "n_layer": 24, "vocab_size": 50277, '
                '"ssm_cfg": {"layer": "Mamba2"}, "attn_layer_idx": [], "attn_cfg": {}, "rms_norm": '
                'true, "residual_in_fp32": true, "fused_add_norm": true, '
                '"pad_vocab_size_multiple": 16, "tie_embeddings": true}'
            ),
            "x",
        )
    )
    assert spec.layers == ("mamba2",) * 24
    assert spec.options["mamba2"] == {
        **{"d_state": 128, "d_head": 64, "n_groups": 1, "d_conv": 4, "expand": 2}
    }
    spec = transformers.read(
        Config(
            json.loads(
                '{"model_type": "falcon_mamba", "hidden_size": 4096, "expand": 16, '
                '"intermediate_size": 8192, "num_hidden_layers": 64, "vocab_size": 65024, '
                '"time_step_rank": 256, "tie_word_embeddings": false, "eos_token_id": 11, '
                '"state_size": 16, "norm_before_gate": true}'
            ),
            "x",
        )
    )
    assert spec.options["falconmamba"]["expand"] == 2
    assert (spec.eos_tokens, spec.tie) == ((11,), False)


def test_shards(folder, tmp_path):
    whole = load_language_model(folder)
    tensors = read(folder)
    names = sorted(tensors)
    parts = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for file, held in parts.items():
        safetensors.torch.save_file({k: tensors[k] for k in held}, folder / file)
    places = {k: file for file, held in parts.items() for k in held}
    os.remove(folder / "model.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    same(whole, load_language_model(folder))

    def refused(message):
        with pytest.raises(InputError, match=message):
            load_language_model(folder)

    index.write_text(json.dumps({"weight_map": {**places, names[0]: "model-2.safetensors"}}))
    refused(f"{names[0]} is not in .*model-2.safetensors, where model.safetensors.index.json says")
    index.write_text(json.dumps({"weight_map": {**places, names[0]: "../m/model-1.safetensors"}}))
    refused("which is no file beside it")
    index.write_text(json.dumps({"weight_map": {names[0]: 3}}))
    refused("names 3, which is no file")
    index.write_text(json.dumps({"weight_map": []}))
    refused("has no weight_map")
    index.write_text('{"weight_map": {')
    refused("index.json is not JSON .*cut short")
    index.write_text(json.dumps({"weight_map": places}))
    os.remove(folder / "model-2.safetensors")
    refused(r"model-2.safetensors is missing; model.safetensors.index.json names it")


def test_shards_of_pickles(ssm):
    whole, tensors = load_language_model(ssm), read(ssm)
    names = sorted(tensors)
    for i, held in enumerate((names[:5], names[5:])):
        torch.save({k: tensors[k] for k in held}, ssm / f"p{i}.bin")
    os.remove(ssm / "pytorch_model.bin")
    places = {k: f"p{int(i >= 5)}.bin" for i, k in enumerate(names)}
    (ssm / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": places}))
    same(whole, load_language_model(ssm))


def test_pickles_of_either_age_and_old_names(folder):
    whole, tensors = load_language_model(folder), read(folder)
    os.remove(folder / "model.safetensors")
    tensors["backbone.embedding.weight"] = tensors.pop("backbone.embeddings.weight")
    tensors["lm_head.weight"] = tensors["backbone.embedding.weight"]
    for new in (True, False):
        torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=new)
        same(whole, load_language_model(folder))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_types(dtype, folder):
    model, written = load_language_model(folder, dtype), dict(make("mamba").named_parameters())
    for name, p in model.named_parameters():
        kept = name.endswith(("A_log", ".D")) and dtype != torch.float64
        assert p.dtype == (torch.float32 if kept else dtype)
        assert torch.equal(p, written[name].to(p.dtype)), name
    assert model(draw())[0].isfinite().all()
    with pytest.raises(InputError, match="dtype must be a floating-point type"):
        load_language_model(folder, torch.int8)


def test_a_loaded_model_does_not_depend_on_the_file(folder):
    model, expected = load_language_model(folder), make("mamba").state_dict()
    path = folder / "model.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    assert torch.equal(model.state_dict()["embedding.weight"], expected["embedding.weight"])


def test_a_loaded_model_can_be_trained(folder):
    model = load_language_model(folder)
    model(draw())[0].square().mean().backward()
    assert all(p.requires_grad and p.grad is not None for p in model.parameters())
