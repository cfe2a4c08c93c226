"""Other commands on a run of `longstate train text`."""

import json
import shutil

import pytest
import torch

from longstate.cli import main
from longstate.interop import load_language_model
from longstate.train import TextModel
from tests.cli.test_text import QUICK, run, words  # noqa: F401
from tests.train.text_helpers import LETTERS


def test_info_shows_the_kind_of_a_run(run, capfd):  # noqa: F811
    assert main(["info", run]) == 0
    said = capfd.readouterr().out
    for part in ("layers", "bytes", "60 steps", "finished", "bits per byte, at step"):
        assert part in said
    assert main(["info", f"{run}/model.safetensors"]) == 0


@pytest.mark.parametrize("history", [None, "", "[]", "{", json.dumps({"looks": []})])
def test_info_of_a_run_that_lost_its_history(run, history, tmp_path, capfd):  # noqa: F811
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "history.json").unlink()
    if history is not None:
        (tmp_path / "run" / "history.json").write_text(history)
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "parameters" in capfd.readouterr().out


def test_a_run_is_converted_to_other_libraries(tmp_path, capfd):
    text = words(tmp_path / "a.txt", 300)
    folder = str(tmp_path / "run")
    quick = [*QUICK, "--layers", "mamba", "--steps", "2"]
    assert main(["train", "text", str(text), *quick, "--out", folder]) == 0
    for library in ("transformers", "mamba-ssm"):
        out = tmp_path / library
        assert main(["convert", folder, str(out), "--to", library]) == 0
        ours, theirs = TextModel.load(folder).model, load_language_model(out)
        tokens = torch.arange(20)[None]
        assert torch.equal(ours(tokens)[0], theirs(tokens)[0])
        assert main(["generate", str(out), "--prompt", "a", "--max-tokens", "3"]) == 0
    capfd.readouterr()


def test_commands_say_which_kind_of_run_they_need(run, capfd):  # noqa: F811
    for command in (["predict", run, "data.csv"], ["stream", run]):
        assert main(command) == 2
        said = capfd.readouterr().err
        assert f"{run} holds a language model; `longstate {command[0]}` needs a forecaster" in said
        assert f"use `longstate generate {run}`" in said


def test_evaluate_scores_a_text(run, tmp_path, capfd):  # noqa: F811
    (tmp_path / "a.txt").write_bytes(LETTERS * 40)
    assert main(["evaluate", run, str(tmp_path / "a.txt")]) == 0
    said = capfd.readouterr().out
    score = TextModel.load(run).score(tmp_path / "a.txt")
    assert f"{score.bits_per_byte:.4f} bits per byte" in said
    assert "over 320 tokens and 320 bytes" in said
    assert (
        score.bits_per_byte
        < 1
        < TextModel.load(run).score(text="no letters of these").bits_per_byte
    )
