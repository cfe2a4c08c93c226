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
