"""`longstate train text` and `longstate generate`."""

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longstate.cli import main
from longstate.cli._terminal import visible
from longstate.models import LanguageModel, LanguageSpec, generate
from longstate.train import TextModel
from tests.train.text_helpers import LETTERS, make_tokenizer, words

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "import sys; from longstate.cli import main; sys.exit(main())"]
QUICK = [
    *("--layers", "s4d", "--context", "32", "--d-model", "16", "--n-layers", "1"),
    *("--learning-rate", "0.01"),
]


def program(*arguments, **options):
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **options,
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run that has learned the alphabet up to h."""
    folder = tmp_path_factory.mktemp("text")
    (folder / "letters.txt").write_bytes(LETTERS * 200)
    arguments = [str(folder / "letters.txt"), *QUICK, "--steps", "60", "--out", str(folder / "run")]
    assert main(["train", "text", *arguments]) == 0
    return str(folder / "run")


def test_training_prints_its_progress(tmp_path, capfd):
    text = words(tmp_path / "a.txt", 100), words(tmp_path / "b.txt", 300)
    arguments = ["train", "text", *map(str, text), *QUICK, "--out", str(tmp_path / "run")]
    assert main([*arguments, "--steps", "4"]) == 0
    said, err = capfd.readouterr()
    looks = re.findall(r"^step +(\d) +[\d.]+ passes  ([\d.]+) bits per byte  perpl", said, re.M)
    assert [step for step, _ in looks] == ["0", "1", "2", "3", "4"]
    best = min(float(bits) for _, bits in looks)
    assert "Training ended (finished)" in said
    assert f"{best:.4f} bits per byte of validation text" in said
    assert err == ""
    (advice,) = re.findall(r"Next: longstate (.*)", said)
    assert main(advice.split()) == 0


def test_the_readme_s_commands_run(tmp_path, capfd, monkeypatch):
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    commands = re.findall(r"^longstate ((?:train text|generate) .*)$", readme, re.M)
    assert len(commands) == 2
    (tmp_path / "README.md").write_text(readme, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert main(shlex.split(command)) == 0
    assert "40 tokens" in capfd.readouterr().err


def test_samples_are_printed_during_training(run, capfd, monkeypatch):
    monkeypatch.setattr("longstate.cli.show_text.BETWEEN_SAMPLES", 0.0)
    text = Path(run).with_name("letters.txt")
    out = str(Path(run).with_name("sampled"))
    assert main(["train", "text", str(text), *QUICK, "--steps", "2", "--out", out]) == 0
    assert capfd.readouterr().out.count("    | ") >= 2


def test_help_is_quick_and_loads_no_torch():
    for command in (["train", "text", "--help"], ["generate", "--help"]):
        code = (
            f"import sys; from longstate.cli import main; code = main({command!r});"
            "sys.exit(code or 'torch' in sys.modules or 'tokenizers' in sys.modules)"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_generate_prints_the_text_of_the_library(run, capfd):
    loaded = TextModel.load(run)
    model, tokens = loaded.model, loaded.tokens
    options = {"temperature": 0.7, "top_k": 20, "top_p": 0.9, "repetition_penalty": 1.1}
    (row,) = generate(
        model, [tokens.encode("abc")], max_tokens=30, seed=3, decode=tokens.decode, **options
    )
    words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    for _ in range(2):
        assert (
            main(["generate", run, "--prompt", "abc", "--max-tokens=30", "--seed=3", *words]) == 0
        )
        out, err = capfd.readouterr()
        assert out == row.text
        assert re.fullmatch(
            r"30 tokens, \d+ tokens per second; reading the 3 tokens of the prompt took .* s\n", err
        )


def test_generate_stops(run, capfd):
    arguments = ["generate", run, "--prompt", "abcdefgh" * 3, "--temperature", "0"]
    assert main([*arguments, "--max-tokens", "9"]) == 0
    assert capfd.readouterr().out == "abcdefgha"
    assert main([*arguments, "--stop-strings", "zzz", "--stop-strings", "ef"]) == 0
    assert capfd.readouterr().out == "abcd"


def test_the_prompt_may_come_from_standard_input(run):
    process = program("generate", run, "--prompt", "-", "--max-tokens", "3", "--temperature", "0")
    out, err = process.communicate(b"abcdefgh" * 3 + b"abc")
    assert (process.returncode, out) == (0, b"def")
    assert b"27 tokens of the prompt" in err
    process = program("generate", run, "--prompt", "-")
    assert b"standard input is not UTF-8 text: offset 1" in process.communicate(b"a\xff")[1]
    assert process.returncode == 2


def test_generate_streams_and_an_interrupt_ends_it(run):
    process = program("generate", run, "--prompt", "abc", "--max-tokens", "10000000", bufsize=0)
    came = b""
    while len(came) < 5:
        came += process.stdout.read(5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"tokens per second" in err
    assert b"Traceback" not in err


def test_generate_ends_without_an_error_when_its_pipe_is_closed(run):
    process = program("generate", run, "--max-tokens", "100000")
    with process:
        process.stdin.close()
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_an_interrupted_training_can_be_continued(tmp_path):
    text, out = words(tmp_path / "text"), tmp_path / "run"
    arguments = ["train", "text", text, *QUICK, "--steps", "100000", "--out", out]
    process = program(*arguments)
    while not (out / "model.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    said, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert b"Training ended (interrupted)" in said
    assert b"Run the same command again to continue." in said
    TextModel.load(out)


def test_checkpoints_of_other_libraries_are_opened(tmp_path, capfd):
    from longstate.interop import save_language_model

    torch.manual_seed(0)
    spec = LanguageSpec(300, 8, ("mamba",))
    save_language_model(LanguageModel(spec), tmp_path / "hf")
    assert main(["generate", str(tmp_path / "hf")]) == 2
    assert "has no tokenizer.json, which converts text" in capfd.readouterr().err
    save_language_model(LanguageModel(LanguageSpec(256, 8, ("mamba",))), tmp_path / "bytes")
    assert main(["generate", str(tmp_path / "bytes"), "--prompt", "a", "--max-tokens", "4"]) == 0
    capfd.readouterr()
    make_tokenizer(tmp_path / "hf" / "tokenizer.json")
    assert main(["generate", str(tmp_path / "hf"), "--prompt", "to be", "--max-tokens", "4"]) == 0
    assert "4 tokens" in capfd.readouterr().err
    make_tokenizer(tmp_path / "bytes" / "tokenizer.json")
    assert main(["generate", str(tmp_path / "bytes")]) == 2
    assert "they do not belong together" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generate", "RUNN"], "there is no run"),
        (["generate", "RUNN"], "did you mean"),
        (["generate", "RUN", "--prompt", ""], "the prompt is empty"),
        (
            ["generate", "RUN", "--max-tokens", "0"],
            "max_tokens must be a whole number of at least 1",
        ),
        (["generate", "RUN", "--temperature", "-1"], "temperature must be a number of at least 0"),
        (
            ["generate", "RUN", "--stop-strings", ""],
            "stop_strings must be a list of strings, none empty",
        ),
        (["generate", "FILE"], "is a text file; a run of"),
        (["train", "text", "FILES"], "there is no file"),
        (["train", "text", "FILE", "--layers", "mamab"], "did you mean 'mamba"),
        (["train", "text", "FILE", "--context", "99999"], "a context of 99,999 needs 100,000"),
        (["train", "text", "FILE", "--tokenizer", "RUN"], "there is no tokenizer"),
        (["train", "text", "FILE", "--steps", "1", "--epochs", "1"], "steps or epochs, not both"),
        (["train", "text", "FILE", *QUICK, "--out", "FILE"], "cannot be written"),
    ],
)
def test_mistakes_get_one_sentence(arguments, message, run, capfd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = str(Path(run).with_name("letters.txt"))
    names = {"RUN": run, "RUNN": run + "n", "FILE": file, "FILES": file + "s"}
    assert main([names.get(word, word) for word in arguments]) == 2
    err = capfd.readouterr().err
    assert message in err
    assert len(err.strip().splitlines()) == 1
    assert os.listdir(tmp_path) == []


def test_generated_control_characters_are_escaped_on_a_terminal():
    assert visible("a\x1b[31m\tb\n\x07é日", "\n\t") == "a\\x1b[31m\tb\n\\x07é日"
