"""Errors for wrong checkpoints."""

import json
import os

import pytest
import safetensors.torch
import torch

from longstate.errors import InputError
from longstate.interop import load_language_model, save_language_model
from tests.interop.samples import FILE, edit, make, read, same

# Folders that cannot be read.


def test_folders_without_a_checkpoint_are_refused(tmp_path, folder):
    with pytest.raises(InputError, match="nowhere does not exist"):
        load_language_model(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"config\.json is a file; its folder is needed"):
        load_language_model(folder / "config.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty/config\.json does not exist"):
        load_language_model(tmp_path / "empty")
    os.remove(folder / "model.safetensors")
    with pytest.raises(
        InputError, match=r"no weights: neither model\.safetensors nor pytorch_model\.bin"
    ):
        load_language_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "config.json is not JSON .*cut short"),
        ('{"model_type": "mam', "config.json is not JSON"),
        ("[1, 2]", "must hold a JSON object; it holds list"),
        ("[" * 100_000, "is not JSON"),
        ("\udcff", "is not JSON"),
        ("{}", "neither model_type, as transformers writes, nor d_model and n_layer"),
        ('{"model_type": "mamba3"}', "model_type 'mamba3' is not implemented; did you mean 'mamba"),
        ('{"model_type": "llama"}', "model_type 'llama' is not implemented"),
        ('{"model_type": ["mamba"]}', "is not implemented"),
        ('{"model_type": "mamba"}', "lacks 'hidden_size'"),
        ('{"n_layer": 3}', "lacks 'd_model'"),
    ],
)
def test_malformed_settings_are_refused(text, message, folder):
    (folder / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InputError, match=message):
        load_language_model(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": "24"}, "hidden_size must be a whole number from 1 to 10\\^9; got '24'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a whole number from 1"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers must be at most"),
        ({"num_hidden_layers": ...}, "lacks 'num_hidden_layers'"),
        ({"vocab_size": True}, "vocab_size must be a whole number"),
        ({"vocab_size": 10**18}, "vocab_size must be a whole number from 1"),
        ({"vocab_size": 51}, r"embeddings.weight has shape \(50, 24\); config.json makes it"),
        ({"intermediate_size": 24 * 10**8}, "intermediate_size must be a whole number from 1"),
        ({"layer_norm_epsilon": 0}, "layer_norm_epsilon must be a number above 0"),
        ({"use_bias": 1}, "use_bias must be true or false; got 1"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu' is not implemented, only 'silu' or 'swish'"),
        ({"quantization_config": {}}, "quantization_config = {} is not implemented"),
        ({"intermediate_size": 25}, "intermediate_size must be a multiple of hidden_size = 24"),
        ({"time_step_rank": "many"}, "time_step_rank must be a whole number"),
        ({"eos_token_id": "a"}, "eos_token_id must be a whole number, a list"),
        ({"pad_token_id": 0.5}, "pad_token_id must be a whole number or null"),
        ({"model_type": "mamba2"}, "num_heads x head_dim must be expand x hidden_size = 48; got 1"),
    ],
)
def test_settings_of_transformers_that_are_wrong(changes, message, folder):
    edit(folder, **changes)
    with pytest.raises(InputError, match=message):
        load_language_model(folder)


@pytest.mark.parametrize("limit", [3, [1], [-1, 2], ["a", 2], [2, 1], [0, {"__float__": "NaN"}]])
def test_malformed_limits_are_refused(limit, tmp_path):
    save_language_model(make("mamba2"), tmp_path / "m")
    edit(tmp_path / "m", time_step_limit=limit)
    with pytest.raises(InputError, match="time_step_limit must be "):
        load_language_model(tmp_path / "m")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_intermediate": 64}, "d_intermediate = 64 is not implemented, only 0"),
        ({"attn_layer_idx": [1]}, r"attn_layer_idx = \[1\] is not implemented"),
        ({"d_modle": 3}, "'d_modle' is not implemented; did you mean 'd_model'"),
        ({"ssm_cfg": 3}, "ssm_cfg must be an object; got 3"),
        ({"ssm_cfg": {"layer": ["Mamba1"]}}, "ssm_cfg: layer .* is not implemented"),
        ({"ssm_cfg": {"layer": "Mamba3"}}, "ssm_cfg: layer 'Mamba3' is not implemented; did you"),
        ({"ssm_cfg": {"layer": "Mamba2", "d_ssm": 24}}, "ssm_cfg: d_ssm = 24 is not implemented"),
        ({"ssm_cfg": {"layer": "Mamba2", "rmsnorm": False}}, "rmsnorm = False is not implemented"),
        ({"ssm_cfg": {"layer": "Mamba2", "D_has_hdim": True}}, "D_has_hdim = True is not impl"),
        ({"ssm_cfg": {"layer": "Mamba2", "norm_before_gate": True}}, "norm_before_gate = True"),
        ({"ssm_cfg": {"headdim": 8}}, "ssm_cfg: 'headdim' is not implemented"),
        ({"ssm_cfg": {"expand": 1.5}}, "ssm_cfg: expand must be a whole number; got 1.5"),
        ({"ssm_cfg": {"layer": "Mamba2", "headdim": 7}}, "d_head must divide"),
        ({"vocab_size": ...}, "lacks 'vocab_size'"),
    ],
)
def test_settings_of_mamba_ssm_that_are_wrong(changes, message, ssm):
    edit(ssm, **changes)
    with pytest.raises(InputError, match=message):
        load_language_model(ssm)


def test_settings_of_initial_values_and_speed_are_skipped(ssm, tmp_path):
    values = json.loads((ssm / "config.json").read_text())
    edit(
        ssm, ssm_cfg={**values["ssm_cfg"], "chunk_size": 128, "dt_min": 0.01}, fused_add_norm=False
    )
    same(make("mamba2"), load_language_model(ssm))


# Weights that do not fit.


def rewrite(folder, change):
    """Change the tensors of a folder, in the file that they are in."""
    tensors = read(folder)
    change(tensors)
    if (folder / "model.safetensors").exists():
        safetensors.torch.save_file(tensors, folder / "model.safetensors")
    else:
        torch.save(tensors, folder / "pytorch_model.bin")


KEY = "backbone.layers.1.mixer.D"


@pytest.mark.parametrize("where", ["folder", "ssm"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(KEY), f"{KEY} is missing from the weights"),
        (
            lambda t: t.update({KEY: torch.ones(3)}),
            rf"{KEY} has shape \(3,\); config.json makes it",
        ),
        (lambda t: t.update({KEY: t[KEY].int()}), f"{KEY} is of type torch.int32; float16"),
        (
            lambda t: t.update({KEY: t[KEY].to(torch.float8_e4m3fn)}),
            f"{KEY} is of type torch.float8_e4m3fn",
        ),
        (
            lambda t: t.update({"backbone.layers.2.norm.weight": torch.ones(24)}),
            "backbone.layers.2.norm.weight is in the weights, but config.json has no place for it",
        ),
        (
            # the first that does not fit, in the model's order
            lambda t: (t.pop(KEY), t.update({"backbone.layers.0.mixer.D": torch.ones(2)})),
            "backbone.layers.0.mixer.D has shape",
        ),
    ],
)
def test_tensors_that_do_not_fit(change, message, where, request):
    folder = request.getfixturevalue(where)
    rewrite(folder, change)
    with pytest.raises(InputError, match=message):
        load_language_model(folder)


def test_a_tied_head_that_differs(folder):
    rewrite(folder, lambda t: t.update({"lm_head.weight": torch.zeros(50, 24)}))
    with pytest.raises(InputError, match=r"lm_head\.weight differs from the embedding"):
        load_language_model(folder)


@pytest.mark.parametrize("share", [0, 1e-9, 0.001, 0.3, 0.9, 1 - 1e-9])
@pytest.mark.parametrize("where", ["folder", "ssm"])
def test_files_cut_short(where, share, request):
    folder = request.getfixturevalue(where)
    path = next(folder / f for f in FILE.values() if (folder / f).exists())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data)) if share < 0.95 else len(data) - 1])
    wrong = r"is damaged.* cut short" if path.stat().st_size else "holds no weights"
    with pytest.raises(InputError, match=f"{path.name} {wrong}"):
        load_language_model(folder)


def test_files_of_random_bytes_are_refused(folder, ssm):
    draw = torch.Generator().manual_seed(0)
    for path in (folder / "model.safetensors", ssm / "pytorch_model.bin"):
        whole = bytearray(path.read_bytes())
        for _ in range(30):
            noisy = bytearray(whole)
            for _ in range(20):
                at = int(torch.randint(min(600, len(whole)), (), generator=draw))
                noisy[at] = int(torch.randint(256, (), generator=draw))
            path.write_bytes(noisy)
            try:
                load_language_model(path.parent)
            except InputError:
                continue


class Malicious:
    def __reduce__(self):
        return os.mkdir, ("pwned",)


def test_pickles_run_no_code(ssm, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for new in (True, False):
        torch.save(
            {**read(ssm), "x": Malicious()} if new else {"x": Malicious()},
            ssm / "pytorch_model.bin",
            _use_new_zipfile_serialization=new,
        )
        with pytest.raises(InputError, match="objects other than tensors"):
            load_language_model(ssm)
        assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.ones(2)], "must hold tensors by name; it holds list"),
        ({"a": 3}, "must hold tensors by name; 'a' is of type int"),
        ({3: torch.ones(2)}, "must hold tensors by name; 3 is of type Tensor"),
    ],
)
def test_pickles_without_tensors_are_refused(content, message, ssm):
    torch.save(content, ssm / "pytorch_model.bin")
    with pytest.raises(InputError, match=message):
        load_language_model(ssm)


def test_a_gguf_file_is_named(tmp_path):
    """As llama.cpp writes it: the magic, a version, counts."""
    import longstate

    file = tmp_path / "mamba.gguf"
    file.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(64))
    for path in (file, tmp_path):
        for load in (load_language_model, longstate.load):
            with pytest.raises(InputError, match=r"mamba\.gguf is a GGUF file, .*config\.json"):
                load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
        (b"<!doctype html><p>404", "an HTML page"),
        (b"hello", "a text file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), "an HDF5 file"),
    ],
)
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_weights_of_another_format_are_named(name, content, message, folder):
    os.remove(folder / "model.safetensors")
    (folder / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"{name} holds no weights: it is {message}"):
        load_language_model(folder)


@pytest.mark.parametrize("name", [["a"], {"a": 1}, None, 3, "../a", ""])
def test_an_index_whose_names_are_no_files(name, folder):
    os.remove(folder / "model.safetensors")
    index = {"weight_map": {"backbone.norm_f.weight": "model.safetensors", "x": name}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(InputError, match="which is no file beside it"):
        load_language_model(folder)


@pytest.mark.parametrize("kind", ["meta", "sparse"])
def test_a_pickle_with_a_tensor_without_numbers(kind, ssm):
    weights = torch.load(ssm / "pytorch_model.bin", weights_only=True)
    name = "backbone.norm_f.weight"
    value = weights[name]
    weights[name] = value.to("meta") if kind == "meta" else value.to_sparse()
    torch.save(weights, ssm / "pytorch_model.bin")
    with pytest.raises(InputError, match=f"'{name}' has no plain numbers in the file"):
        load_language_model(ssm)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value, folder):
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    name = "backbone.norm_f.weight"
    weights[name][1] = value
    safetensors.torch.save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=f"{name} holds numbers that are not finite"):
        load_language_model(folder)


def test_huge_sizes_are_refused(folder):
    edit(folder, hidden_size=5 * 10**8, intermediate_size=10**9, vocab_size=10**9)
    with pytest.raises(InputError, match=r"config\.json"):
        load_language_model(folder)
