"""Writing and converting a checkpoint: atomic, and checked."""

import json
import os

import pytest
import safetensors.torch
import torch

from longstate.cli import main
from longstate.errors import InputError
from longstate.interop import load_language_model, save_language_model
from longstate.interop.checkpoints import convert_language_model, mamba_ssm
from tests.interop.samples import SPECS, make, same


def test_what_cannot_be_written(tmp_path, folder):
    def refused(message, model, *arguments):
        with pytest.raises(InputError, match=message):
            save_language_model(model, tmp_path / "out", *arguments)
        assert not (tmp_path / "out").exists()

    refused("no dialect 'hf'", make("mamba"), "hf")
    refused(
        "mamba-ssm has no language model of 'falconmamba' layers",
        make("falconmamba", norm_eps=1e-5),
        "mamba-ssm",
    )
    refused(
        "mamba-ssm has norm_eps=1e-05 only; this model has 0.001",
        make("mamba", norm_eps=1e-3),
        "mamba-ssm",
    )
    refused(
        "transformers has no language model of 's4d' layers",
        make("mamba", layers=("s4d",), options={}),
    )
    refused(
        "transformers has no models that mix mamba and s4d layers",
        make("mamba", layers=("mamba", "s4d"), options={}),
    )
    refused(
        "transformers has no models with gate='glu' behind their layers",
        make("mamba", gate="glu"),
    )
    before = sorted(os.listdir(folder))
    with pytest.raises(InputError, match="is a folder that is not empty; nothing is overwritten"):
        save_language_model(make("mamba2"), folder)
    with pytest.raises(InputError, match="is a file; nothing is overwritten"):
        save_language_model(make("mamba2"), folder / "config.json")
    assert sorted(os.listdir(folder)) == before
    (tmp_path / "there").mkdir()
    save_language_model(make("mamba"), tmp_path / "there")
    assert sorted(os.listdir(tmp_path / "there")) == before


def test_a_folder_is_written_atomically(tmp_path, monkeypatch):
    model = make("mamba")

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    for owner, name, dialect in (
        (safetensors.torch, "save_file", "transformers"),
        (torch, "save", "mamba-ssm"),
        (os, "fsync", "transformers"),
        (json, "dumps", "transformers"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(InputError, match=r"cannot be written: No space left on device"):
                save_language_model(model, tmp_path / "out", dialect)
        assert os.listdir(tmp_path) == []

    def failed(*arguments, **options):
        raise RuntimeError("PytorchStreamWriter failed writing file data/0")

    monkeypatch.setattr(torch, "save", failed)
    with pytest.raises(InputError, match="weights cannot be written: PytorchStreamWriter"):
        save_language_model(model, tmp_path / "out", "mamba-ssm")
    assert os.listdir(tmp_path) == []


def test_convert_there_and_back(folder, tmp_path, capsys):
    (folder / "tokenizer.json").write_text("{}")
    (folder / "optimizer.pt").write_text("not ours")
    assert main(["convert", str(folder), str(tmp_path / "a"), "--to", "mamba-ssm"]) == 0
    printed = capsys.readouterr().out
    assert "for mamba-ssm: 2 mamba layers, " in printed
    count = sum(p.numel() for p in make("mamba").parameters())
    assert f"{count:,} parameters in float32" in printed
    assert sorted(os.listdir(tmp_path / "a")) == [
        "config.json",
        "pytorch_model.bin",
        "tokenizer.json",
    ]
    assert main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--to", "transformers"]) == 0
    same(make("mamba"), load_language_model(tmp_path / "b"))


def test_convert_refuses_in_one_sentence(folder, tmp_path, capsys):
    for arguments, message in (
        (
            (tmp_path / "none", tmp_path / "out", "--to", "transformers"),
            "there is no run or checkpoint",
        ),
        ((folder, folder, "--to", "mamba-ssm"), "is a folder that is not empty"),
        ((folder, tmp_path / "out", "--to", "llama.cpp"), "there is no dialect 'llama.cpp'"),
    ):
        assert main(["convert", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ")
        assert message in error
        assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_convert_refuses_a_changed_result(tmp_path, monkeypatch):
    """A writer that forgets a limit of the step, and one that loses a digit of a weight."""
    options = {"mamba2": {**SPECS["mamba2"].options["mamba2"], "dt_limit": (0.02, 0.4)}}
    save_language_model(make("mamba2", options=options), tmp_path / "m")
    honest, save = mamba_ssm.write, torch.save

    def forgetful(model):
        config = honest(model)
        del config["ssm_cfg"]["dt_limit"]
        return config

    def careless(tensors, path):
        save({k: v.bfloat16().float() for k, v in tensors.items()}, path)

    for owner, name, broken, message in (
        (mamba_ssm, "write", forgetful, "the logits have changed"),
        (torch, "save", careless, "embedding.weight has changed"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, broken)
            with pytest.raises(
                InputError, match=f"{message} in the conversion; nothing is written"
            ):
                convert_language_model(tmp_path / "m", tmp_path / "out", "mamba-ssm")
    assert os.listdir(tmp_path) == ["m"]
