"""The blocks of each page under docs/ are one program; it runs and prints what the page says."""

import contextlib
import io
import re
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGES = {
    p.relative_to(DOCS).as_posix(): p.read_text(encoding="utf-8")
    for p in sorted(DOCS.rglob("*.md"))
}
PROGRAMS = {
    name: "\n".join(blocks)
    for name, text in PAGES.items()
    if (blocks := re.findall(r"^```python\n(.*?)^```", text, flags=re.M | re.S))
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_page_runs_and_prints_what_it_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))  # what a page makes importable
    if "_transformers()" in PROGRAMS[name]:
        pytest.importorskip("transformers", reason="needs the extra 'hf'")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(PROGRAMS[name], name, "exec"), {"__name__": "__main__"})
    for module in [m for m in sys.modules if m.partition(".")[0] in ("mamba_ssm", "causal_conv1d")]:
        del sys.modules[module]
    promised = re.findall(r"^\s*print\(.*\)\s*# (.*)$", PROGRAMS[name], flags=re.M)
    assert printed.getvalue().splitlines() == promised


@pytest.mark.parametrize(
    "package",
    [
        "layers",
        "models",
        "memory",
        "stream",
        "interop",
        "parallel",
        "continual",
        "systems",
        "testing",
        "train",
    ],
)
def test_every_public_name_is_in_the_reference(package):
    """The site puts the names that the page does not list in the place of this line."""
    assert f"\n<!-- the rest of longstate.{package} -->\n" in PAGES[f"api/{package}.md"]


def test_there_are_examples_to_run():
    assert "state.md" in PROGRAMS
