"""The scripts under benchmarks/ explain themselves, and run nothing when asked to."""

import ast
import runpy
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"
SCRIPTS = [
    p for p in sorted(FOLDER.glob("*.py")) if '__name__ == "__main__"' in p.read_text("utf-8")
]

pytestmark = pytest.mark.usefixtures("benchmark_modules")


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
@pytest.mark.filterwarnings("ignore")
def test_help_prints_a_text_and_runs_nothing(script, monkeypatch, capsys):
    import measure

    for name in ("machine", "rounds", "save", "peak_mib"):
        monkeypatch.setattr(measure, name, lambda *_, **__: pytest.fail("something ran"))
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    said = capsys.readouterr().out
    assert said.startswith(f"usage: {script.name}")
    doc = ast.get_docstring(ast.parse(script.read_text("utf-8")))
    assert " ".join(doc.split()) in " ".join(said.split())


def test_there_are_scripts():
    assert len(SCRIPTS) > 8


def test_a_missing_peer_is_one_sentence(monkeypatch, capsys):
    from command import peers

    monkeypatch.setattr(sys, "argv", ["script.py"])
    sentence = r"script.py: .*no_such_peer.*; pip install no-such-peer"
    missing = peers("__main__", "What it measures.", "no-such-peer")
    with pytest.raises(SystemExit, match=sentence), missing:
        import no_such_peer
    monkeypatch.setattr(sys, "argv", ["script.py", "--help"])
    missing = peers("__main__", "What it measures.", "no-such-peer")
    with pytest.raises(SystemExit) as ended, missing:
        import no_such_peer
    assert ended.value.code == 0
    assert "What it measures." in capsys.readouterr().out
    with pytest.raises(ImportError), peers("selective_peers", "", "no-such-peer"):
        import no_such_peer  # noqa: F401
