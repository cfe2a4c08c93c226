"""The README is run; commands, links and quoted figures are checked on all pages."""

import contextlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *DOCS]


def blocks(language: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.M | re.S)


def commands(text: str = README) -> list[str]:
    """Each command of the `sh` blocks, comments and line continuations taken out."""
    lines = "\n".join(blocks("sh", text)).replace("\\\n", " ").splitlines()
    parts = [re.sub(r"(^|\s)#.*", "", line) for line in lines]
    return [c.strip() for line in parts for c in re.split(r"&&|\|", line) if c.strip()]


ALL_COMMANDS = sorted({c for page in PAGES for c in commands(page.read_text("utf-8"))})


@pytest.fixture(autouse=True)
def imports_as_they_were(monkeypatch):
    """What a block makes importable is gone after it."""
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    yield
    for name in [n for n in sys.modules if n.partition(".")[0] in ("mamba_ssm", "causal_conv1d")]:
        del sys.modules[name]


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.strip().split("\n")[0])
def test_python_runs_and_prints_what_it_says(code, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    if "_transformers()" in code:
        pytest.importorskip("transformers", reason="needs the extra 'hf'")
    if "accelerate_transformers" in code:
        from longstate.interop import accelerate_transformers

        request.addfinalizer(lambda: accelerate_transformers().undo())
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    promised = re.findall(r"^\s*print\(.*\)\s*# (.*)$", code, flags=re.M)
    assert printed.getvalue().splitlines() == promised


def test_there_are_examples_to_run():
    assert blocks("python")
    assert len([c for c in commands() if c.startswith("pip install -e")]) == 2


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_command_exists_and_takes_these_arguments(command, tmp_path, monkeypatch):
    words = shlex.split(command.split(">")[0].split("<")[0])
    if words[0] == "pip":
        check_pip(words)
    elif words[0] == "longstate":
        check_longstate(words[1:], tmp_path, monkeypatch)
    else:
        known = ("pytest", "cat", "tail", "git", "cd", "bash", "pre-commit", "mkdocs", "python")
        assert words[0] in known, f"nobody checks {command!r}"


def check_pip(words: list[str]) -> None:
    assert words[:3] == ["pip", "install", "-e"]
    extras = re.findall(r"\.\[([\w,]+)\]", words[3])
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for extra in ",".join(extras).split(",") if extras else []:
        assert re.search(rf"^{extra} = \[", project, flags=re.M), f"no extra {extra}"
    assert words[4:] == ["-c", "constraints.txt"]
    assert (ROOT / "constraints.txt").exists()


def check_longstate(words: list[str], folder: Path, monkeypatch) -> None:
    """Parse as the program would, without doing the work."""
    import typer

    from longstate.cli import app

    monkeypatch.chdir(folder)
    for word in words:
        if word.endswith(".csv"):
            Path(word).touch()
    command = typer.main.get_command(app)
    while hasattr(command, "commands"):
        assert words[0] in command.commands, f"longstate has no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    command.make_context("longstate", list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_link_targets_exist(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"


QUOTED = r"\[([^\]]*\d[^\]]*)\]\((?:\.\./)*(benchmarks/results/[^)#]+)[^)]*\)"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_quoted_figures_are_in_the_linked_file(page):
    for words, file in re.findall(QUOTED, page.read_text(encoding="utf-8")):
        result = (ROOT / file).read_text(encoding="utf-8")
        for number in re.findall(r"\d[\d,.]*\d|\d", words):
            assert re.search(rf"(?<![\d.]){re.escape(number)}(?![\d.])", result), (words, file)


def test_the_readme_quotes_figures():
    assert len(re.findall(QUOTED, README)) >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_files_exist(page):
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"`((?:longstate|tests|docs|examples|benchmarks|tools)/[\w./]*)`", text):
        assert (ROOT / name).exists(), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_layers_exist(page):
    import longstate.layers

    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"from longstate\.layers import ([\w, ]+)", text):
        for layer in name.split(","):
            assert hasattr(longstate.layers, layer.strip()), f"{page.name} imports {layer}"


def test_the_table_has_every_layer():
    import longstate.layers

    table = README.partition("\n## Layers\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`(\w+)`", table))
    layers = {name for name in dir(longstate.layers) if name[0].isupper()}
    assert layers - {"Layer", "Prescription"} <= named
