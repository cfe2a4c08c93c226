"""The command as a whole."""

import pytest

from longstate import __version__
from longstate.cli import main
from tests.ops.helpers import run_python


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"longstate {__version__}\n"


@pytest.mark.parametrize("arguments", [["--version"], ["certify", "--help"]])
def test_runs_as_a_module(arguments):
    code = f"import sys, runpy; sys.argv = ['longstate', *{arguments}]; "
    found = run_python(code + "runpy.run_module('longstate', run_name='__main__')")
    assert "longstate" in found


def test_a_mistake_is_one_sentence_and_code_two(capsys):
    assert main(["certify", "no-such-run"]) == 2
    assert capsys.readouterr().err == "error: there is no run or checkpoint no-such-run\n"


USAGE = {
    "bench --length abc": "invalid value for '--length': ",
    "train forcast": "no such command 'forcast'; did you mean 'forecast'?; `longstate",
    "predict": "missing argument 'RUN'; `longstate predict --help` shows the usage",
    "bench --lenght 3": "no such option: --lenght ",
    "bench --length": "option '--length' requires an argument",
    "certify run --dt 1": "option '--dt' requires 2 arguments",
    "nonsense\x1b[2J": "no such command 'nonsense",
}


@pytest.mark.parametrize("arguments", USAGE)
@pytest.mark.parametrize("columns", ["30", "200"])
def test_wrong_usage_is_one_plain_sentence(arguments, columns, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(arguments.split(" ")) == 2
    out, said = capsys.readouterr()
    assert out == ""
    assert said.startswith(f"error: {USAGE[arguments]}")
    assert said[-1] == "\n"
    assert said[:-1].isprintable()  # one line, without colours and escapes


def test_help_is_shown_where_a_command_is_missing(capsys):
    for arguments in ([], ["train"]):
        assert main(arguments) == 2
        printed = "".join(capsys.readouterr())
        assert "Usage: longstate" in printed
        assert "error:" not in printed
