"""Outputs that are narrow, closed, full, or know few letters; names that would control them."""

import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from rich.cells import cell_len
from rich.console import Console

from longstate.cli import main
from longstate.cli._terminal import show_table, visible
from longstate.train import Forecaster, Size, TextModel, TextTraining, Training
from tests.saved import frame

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, "-c", "import sys; from longstate.cli import main; sys.exit(main())"]
EVIL = "y\x1b[31mé日\x9b2J"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data, a forecaster and a language model, with names beyond ASCII."""
    folder = tmp_path_factory.mktemp("terminal")
    data = frame().rename(columns={"y": "y é日"})
    data.to_csv(folder / "data.csv", index=False)
    main(
        ["train", "forecast", str(folder / "data.csv"), "--target", "y é日", "--horizon", "4",
         "--window", "12", "--d-model", "4", "--d-state", "4", "--epochs", "1",
         "--windows-per-epoch", "16", "--out", str(folder / "run é日")]
    )  # fmt: skip
    text = "né à Zürich, 日本\n" * 50
    (folder / "text é.txt").write_text(text, encoding="utf-8")
    TextModel(
        "mamba", d_model=4, n_layers=1, context=16, training=TextTraining(steps=2)
    ).fit(text=text, out=folder / "text")  # fmt: skip
    return folder


COMMANDS = {
    "info": ["info", "run é日"],
    "info text": ["info", "text"],
    "evaluate": ["evaluate", "run é日", "data.csv"],
    "evaluate text": ["evaluate", "text", "text é.txt"],
    "predict": ["predict", "run é日", "data.csv"],
    "stream": ["stream", "run é日"],
    "generate": ["generate", "text", "--max-tokens", "40", "--seed", "3"],
    "certify": ["certify", "text", "--no-attack"],
    "certify json": ["certify", "text", "--no-attack", "--json"],
    "memory": ["memory", "run é日", "--out", "page é.html"],
    "cite": ["cite", "s4d"],
    "version": ["--version"],
    "help": ["--help"],
}
ALL = "<&- >&- 2>&-"
FEW = ("info", "predict", "stream", "generate", "certify json", "memory")
every = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in FEW else pytest.mark.slow) for n in COMMANDS]
)


def ran(name, folder, before="", after="", **environment):
    """A command, as a shell runs it."""
    shell = f'{before} "$@" {after}'
    command = ["sh", "-c", shell, "sh", *PROGRAM, *COMMANDS[name]]
    if name == "stream" and "<" not in after:
        command[2] += " < data.csv"
    return subprocess.run(
        command, cwd=folder, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment}, check=False,
    )  # fmt: skip


def no_traceback(done):
    said = done.stderr.decode("utf-8", "replace")
    assert "Traceback" not in said
    assert "Exception ignored" not in said
    return said


@every
@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_as_output_is_reported(name, folder):
    done = ran(name, folder, after="> /dev/full")
    said = no_traceback(done)
    assert done.returncode == 1
    assert said.splitlines()[-1] == ("error: the output cannot be used: No space left on device")


@every
@pytest.mark.parametrize("encoding", ["ascii", pytest.param("cp1252", marks=pytest.mark.slow)])
def test_an_ascii_output_gets_escapes(name, encoding, folder):
    done = ran(name, folder, PYTHONIOENCODING=encoding)
    no_traceback(done)
    assert done.returncode == 0, done.stderr
    assert done.stdout
    done.stdout.decode(encoding)


def test_files_are_utf_8_whatever_the_output_is(folder, tmp_path):
    arguments = ["predict", "run é日", "data.csv", "-o", str(tmp_path / "f.csv")]
    for encoding in ("ascii", "utf-8"):
        subprocess.run(
            [*PROGRAM, *arguments], cwd=folder, check=True, capture_output=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": encoding},
        )  # fmt: skip
        assert "y é日" in pd.read_csv(tmp_path / "f.csv", encoding="utf-8").columns
    assert 'charset="utf-8"' in (folder / "run é日" / "report.html").read_text("utf-8")


@every
@pytest.mark.parametrize(
    "streams", ["<&-", ">&-", *(pytest.param(x, marks=pytest.mark.slow) for x in ("2>&-", ALL))]
)
def test_closed_streams(name, streams, folder):
    done = ran(name, folder, after=streams)
    said = no_traceback(done)
    if name == "stream" and streams == "<&-":
        assert done.returncode == 2
        assert said == "error: standard input is closed; connect a file or a pipe to it\n"
    elif name != "stream":
        assert done.returncode == 0, said


def test_a_prompt_from_a_closed_input(folder):
    done = subprocess.run(
        ["sh", "-c", '"$@" <&-', "sh", *PROGRAM, "generate", "text", "--prompt", "-"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "error: standard input is closed; connect a file or a pipe to it\n"


@pytest.mark.parametrize("name", ["info", "info text", "evaluate", "certify", "memory"])
@pytest.mark.parametrize("columns", ["40", pytest.param("20", marks=pytest.mark.slow)])
def test_a_narrow_terminal_cuts_off_no_number(name, columns, folder):
    done = ran(name, folder, COLUMNS=columns)
    assert done.returncode == 0, done.stderr
    narrow, wide = done.stdout.decode(), ran(name, folder, COLUMNS="250").stdout.decode()
    assert "…" not in narrow
    figures = re.compile(r"(?<![\w.])\d+\.\d+(?:e[-+]\d+)?(?![\w.])")
    assert set(figures.findall(wide)) <= set(figures.findall(narrow))
    assert figures.findall(wide)


@pytest.mark.parametrize("columns", [20, 40, *range(60, 90), 120])
def test_no_line_of_a_table_is_wider_than_the_terminal(columns):
    """80 columns cut the right border off where a name had a break of its own to take."""
    head = ["method", "MSE", "MAE", "MSE, first step", "MSE, last step"]
    row = ["seasonal naive (24 rows)", "0.6253", "0.4758", "0.6235", "0.6268"]
    shown = io.StringIO()
    show_table("", head, [row], console=Console(file=shown, width=columns))
    lines = shown.getvalue().splitlines()
    assert all(cell in shown.getvalue() for cell in row)
    assert columns < 60 or max(map(cell_len, lines)) <= columns
    table = any("┃" in line for line in lines)
    assert not table or len({cell_len(line) for line in lines}) == 1
    assert table == (columns >= 64)  # cells, and longest words of names


def test_escape_sequences_in_names_are_escaped(folder, tmp_path, capsys):
    frame().rename(columns={"y": EVIL}).to_csv(tmp_path / "data.csv", index=False)
    run = tmp_path / "run\x1b]0;title\x07"
    small = Size(d_model=4, n_layers=1, d_state=4)
    training = Training(epochs=1, windows_per_epoch=16)
    Forecaster(4, window=12, size=small, training=training).fit(
        frame().rename(columns={"y": EVIL}), EVIL, out=run
    )
    data = str(tmp_path / "data.csv")
    shutil.copy(data, tmp_path / "\x1b[2J.csv")
    for arguments in (
        ["info", run], ["evaluate", run, data], ["memory", run, "--out", tmp_path / "m\x1b.html"],
        ["predict", run, folder / "data.csv"], ["info", tmp_path / "\x1b[2J"],
        ["evaluate", run, tmp_path / "\x1b[2J.csv"],
        ["predict", run, data, "-o", tmp_path / "o\x1b[31m.csv"],
    ):  # fmt: skip
        main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        assert "\\x1b" in out + err
        for character in ("\x1b", "\x9b", "\x07"):
            assert character not in out + err


def test_visible_escapes_control_characters():
    assert visible("a é日 \u00a0") == "a é日 \u00a0"
    assert visible("\x1b[0m\n\u202e\udc80\x7f") == "\\x1b[0m\\n\\u202e\\udc80\\x7f"
    assert visible("a\tb\n", "\n\t") == "a\tb\n"


@pytest.mark.parametrize("name", ["info", "evaluate", "certify", "generate"])
@pytest.mark.parametrize("delay", [0.05, 0.6, 1.5])
def test_ctrl_c_is_130(name, delay, folder):
    """Wherever it comes; a command that was quicker has ended well."""
    code = (
        "import signal, sys, threading; from longstate.cli import main\n"
        f"threading.Timer({delay}, lambda: signal.raise_signal(signal.SIGINT)).start()\n"
        "sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *COMMANDS[name]], cwd=folder, capture_output=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
    )  # fmt: skip
    no_traceback(done)
    assert done.returncode in ((130,) if delay < 0.1 else (130, 0))


def test_ctrl_c_where_python_cannot_raise_it():
    code = (
        "import signal, sys, time; from longstate import cli\n"
        "class Deaf:\n"
        "    def __del__(self): signal.raise_signal(signal.SIGINT)\n"
        "cli._run = lambda arguments: (Deaf() and None, time.sleep(20), 0)[2]\n"
        "sys.exit(cli.main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=False, timeout=15
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, b"", b"")


@pytest.mark.parametrize("end", ["ctypes.CDLL(None)", "while True: time.sleep(0.01)"])
def test_ctrl_c_waits_for_an_import_but_not_for_ever(end, tmp_path):
    """A library of compiled code that was imported by halves cannot be imported again."""
    (tmp_path / "slow.py").write_text(
        "import ctypes, signal, time\nsignal.raise_signal(signal.SIGINT)\ntime.sleep(0.2)\n"
        f"{end}\nprint('whole', flush=True)\n"
    )
    code = (
        "import time; from longstate import cli; from longstate.cli import _interrupts\n"
        "_interrupts.PATIENCE = 1.0\n"
        "def run(arguments):\n"
        "    import slow\n"
        "    time.sleep(20)\n"
        "cli._run = run; sys.exit(cli.main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; {code}"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=15,
    )  # fmt: skip
    said = "" if end.startswith("while") else "whole\n"
    assert (done.returncode, done.stdout, done.stderr) == (130, said, "")


@pytest.mark.parametrize("name", ["info", "info text", "predict", "stream", "generate", "certify"])
def test_a_command_imports_what_it_needs(name, folder):
    """PyTorch's compiler and pictures would double the time to the first line."""
    code = (
        "import sys; from longstate.cli import main; code = main()\n"
        "print({'torch._dynamo', 'matplotlib'} & {*sys.modules}, file=sys.stderr); sys.exit(code)"
    )
    with open(folder / "data.csv", encoding="utf-8") as data:
        done = subprocess.run(
            [sys.executable, "-c", code, *COMMANDS[name]], cwd=folder, stdin=data,
            capture_output=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.decode().splitlines()[-1] == "set()"
