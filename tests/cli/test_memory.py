"""The memory commands: tables, one line of JSON, exit codes."""

import json

import pytest

from longstate import save
from longstate.cli import main
from longstate.layers import S4D
from longstate.reports import _memory_examine as memory_examine
from tests.reports.memory_samples import checkpoint, forecast_run, text_model, text_run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(memory_examine, "SEQUENCES", 180)
    monkeypatch.setattr(memory_examine, "LAGS", (0, 3))


def test_certify_passes(tmp_path, capfd):
    assert main(["certify", str(checkpoint(tmp_path / "theirs"))]) == 0
    said = capfd.readouterr().out
    assert "blocks.0.mixer" in said
    assert "for any input" in said


def test_certify_exits_with_1_if_a_claim_fails(tmp_path, capfd):
    model = text_model(("linoss",), options={"linoss": {"variant": "imex"}})
    assert main(["certify", str(text_run(tmp_path / "run", model)), "--json"]) == 1
    (line,) = capfd.readouterr().out.splitlines()
    facts = json.loads(line)
    assert facts["passed"] is False
    assert facts["claims"][0]["holds"] is False


def test_certify_with_data_as_json(tmp_path, capfd):
    (tmp_path / "a.txt").write_text("some text to read, over and over. " * 5)
    run = text_run(tmp_path / "run")
    command = ["certify", str(run), "--data", str(tmp_path / "a.txt"), "--json", "--no-attack"]
    assert main(command) == 0
    captured = capfd.readouterr()
    facts = json.loads(captured.out)
    assert facts["claims"][0]["seen"] is not None
    assert facts["claims"][0]["attacked"] is None
    said = [line for line in captured.err.splitlines() if not line.startswith("longstate: compil")]
    assert said == []


@pytest.mark.parametrize("command", ["certify", "memory"])
def test_bad_input_is_one_sentence_and_code_2(command, tmp_path, capfd):
    assert main([command, str(tmp_path / "nowhere")]) == 2
    assert capfd.readouterr().err.startswith("error: there is no run or checkpoint")
    run = text_run(tmp_path / "run")
    assert main([command, str(run), "--data", str(tmp_path / "missing.txt")]) == 2
    assert capfd.readouterr().err.startswith("error: there is no file")


def test_memory_writes_a_page(tmp_path, capfd):
    run, _ = forecast_run(tmp_path)
    page = tmp_path / "page.html"
    capfd.readouterr()
    assert main(["memory", str(run), "--out", str(page)]) == 0
    said = capfd.readouterr().out
    assert str(page) in said.replace("\n", "")
    assert "S4D" in said
    assert page.read_text("utf-8").startswith("<!doctype html>")


def test_a_saved_layer_can_be_examined(tmp_path, capfd):
    path = tmp_path / "layer.safetensors"
    save(S4D(8, d_state=4), path)
    assert main(["certify", str(path), "--no-attack"]) == 0
    assert "S4D" in capfd.readouterr().out
    assert main(["info", str(path)]) == 0
    said = capfd.readouterr().out
    assert "S4D" in said
    assert "parameters" in said
    assert main(["evaluate", str(path), "data.csv"]) == 2
    needs = "holds a layer (S4D); `longstate evaluate` needs a forecaster, a language model or a "
    assert needs + "classifier" in capfd.readouterr().err
    assert main(["generate", str(path)]) == 2
    assert "holds a layer (S4D); `longstate generate` needs a language model" in (
        capfd.readouterr().err
    )


def test_info_of_a_checkpoint_and_of_a_model(tmp_path, capfd):
    text_model().save(tmp_path / "model.safetensors")
    for path in (checkpoint(tmp_path / "theirs"), tmp_path / "model.safetensors"):
        assert main(["info", str(path)]) == 0
        said = capfd.readouterr().out
        assert "LanguageModel" in said
        assert "vocab_size" in said


def test_certify_takes_a_range_of_times(tmp_path, capfd):
    run = str(checkpoint(tmp_path / "theirs"))
    assert main(["certify", run, "--dt", "0.5", "2", "--json", "--no-attack"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert "dt between 0.5 and 2" in found["scope"]
    assert main(["certify", run, "--dt", "2", "0.5"]) == 2
    assert "dt must be" in capfd.readouterr().err
