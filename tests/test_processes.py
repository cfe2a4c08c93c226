"""Trainings that are told to end, killed, or started twice in one folder."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from longstate._lock import only_writer
from longstate.cli import main
from longstate.errors import InputError
from longstate.train import Forecaster, TextModel
from longstate.train import _checkpoint as checkpoint
from tests.train.helpers import hourly

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-c", "import sys; from longstate.cli import main; sys.exit(main())"]
FORECAST = ["--target", "y", "--horizon", "4", "--window", "24", "--epochs", "20000"]
FORECAST += ["--patience", "20000", "--d-model", "4", "--d-state", "4"]
TEXT = ["--d-model", "4", "--n-layers", "1", "--context", "16", "--steps", "1000000"]


@pytest.fixture(params=["forecast", "text"])
def training(request, tmp_path):
    """The arguments of a training that does not end by itself, and its folder."""
    out = tmp_path / "run"
    if request.param == "forecast":
        hourly().to_csv(tmp_path / "data.csv", index=False)
        options = [str(tmp_path / "data.csv"), *FORECAST]
    else:
        (tmp_path / "a.txt").write_text("to be or not to be\n" * 100)
        options = [str(tmp_path / "a.txt"), *TEXT]
    return ["train", request.param, *options, "--out", str(out)], out


def begun(arguments, out, before=()):
    """A training with its first checkpoint written. It hears SIGHUP, also if the tests do not."""
    process = subprocess.Popen(
        [*before, *PROGRAM, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )  # fmt: skip
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    return process


def step(out):
    facts = checkpoint.load(out / "checkpoint.safetensors", "training")[1]
    return facts["progress"]["step"]


@pytest.mark.parametrize(
    "name", ["SIGTERM", "SIGINT", pytest.param("SIGHUP", marks=pytest.mark.slow)]
)
def test_a_signal_saves_the_best_weights(name, training):
    arguments, out = training
    process = begun(arguments, out)
    time.sleep(0.5)  # some steps, so that the checkpoint is not the first one
    process.send_signal(getattr(signal, name))
    _, err = process.communicate(timeout=60)
    assert process.returncode == 128 + getattr(signal, name), err
    assert "Traceback" not in err
    assert step(out) > 0
    model = (Forecaster if arguments[1] == "forecast" else TextModel).load(out)
    history = model.history
    assert history.ended == "interrupted"
    assert not list(out.glob(".*"))


def test_a_signal_ignored_by_nohup_stays_ignored(training):
    arguments, out = training
    ignore = "import signal, os, sys; signal.signal(signal.SIGHUP, signal.SIG_IGN); "
    before = [sys.executable, "-c", ignore + "os.execv(sys.argv[1], sys.argv[1:])"]
    process = begun(arguments, out, before)
    process.send_signal(signal.SIGHUP)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM


def test_a_second_training_in_one_folder_is_refused(training, capsys):
    arguments, out = training
    process = begun(arguments, out)
    try:
        assert main(arguments) == 2
        said = capsys.readouterr().err
        assert said == (
            f"error: {out} is in use by another training; wait until that has ended, "
            "or choose another folder\n"
        )
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    with only_writer(out):  # a kill leaves no lock behind
        pass


def test_temporary_files_of_a_killed_writer_are_removed(tmp_path):
    for name in (".checkpoint.safetensors.0123.part", ".model.safetensors.part", ".mine.part"):
        (tmp_path / name).write_bytes(b"half")
    with checkpoint.run_folder(tmp_path):
        assert os.listdir(tmp_path) == [".mine.part"]


def test_a_folder_is_locked_by_one_and_removed_if_empty(tmp_path):
    folder = tmp_path / "a" / "b"
    with only_writer(folder):
        for same in (folder, tmp_path / "a" / ".." / "a" / "b"):
            with pytest.raises(InputError, match="is in use"), only_writer(same):
                pass
    assert os.listdir(tmp_path) == []
    with only_writer(folder):
        (folder / "f").touch()
    assert os.listdir(folder) == ["f"]
    with pytest.raises(InputError, match="cannot be written"), only_writer(folder / "f" / "g"):
        pass


def test_a_library_call_ends_its_process_by_sigterm(tmp_path):
    """And not only the training: what stands behind `fit` does not run."""
    code = (
        "import signal; from longstate import TextModel; from longstate.train import TextTraining\n"
        "model = TextModel('mamba', d_model=4, context=16, training=TextTraining(steps=10**6))\n"
        "model.fit(text='to be or not ' * 50, "
        "show=lambda p: p.step == 3 and signal.raise_signal(signal.SIGTERM))\n"
        "print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (143, ""), done.stderr
