import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longstate.cli import main
from longstate.train import ForecastEvaluation
from longstate.train import _checkpoint as checkpoint
from tests.train.helpers import hourly

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = [sys.executable, "-c", "import sys; from longstate.cli import main; sys.exit(main())"]
OPTIONS = ["--target", "y", "--horizon", "4", "--window", "24", "--epochs", "2"]
OPTIONS += ["--covariates", "x"]


def program(arguments, **options):
    return subprocess.Popen(
        [*PROGRAM, *map(str, arguments)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data and a finished run."""
    folder = tmp_path_factory.mktemp("cli")
    hourly().to_csv(folder / "data.csv", index=False)
    assert (
        main(
            ["train", "forecast", str(folder / "data.csv"), *OPTIONS, "--out", str(folder / "run")]
        )
        == 0
    )
    return folder


@pytest.fixture
def run(folder):
    return str(folder / "run")


@pytest.fixture
def data(folder):
    return str(folder / "data.csv")


def test_help_is_quick_and_loads_no_torch():
    code = (
        "import sys; from longstate.cli import main; code = main(['train', 'forecast', '--help']);"
        "sys.exit(code or 'torch' in sys.modules or 'pandas' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--horizon" in done.stdout


def test_a_run_holds_model_scores_and_report(folder):
    assert sorted(os.listdir(folder / "run")) == [
        "checkpoint.safetensors",
        "evaluation.json",
        "model.safetensors",
        "report.html",
    ]
    evaluation = ForecastEvaluation.from_json((folder / "run" / "evaluation.json").read_text())
    assert evaluation.horizon == 4


def test_evaluate_prints_the_baselines_and_the_verdict(run, data, capsys):
    assert main(["evaluate", run, data]) == 0
    printed = capsys.readouterr().out
    for method in ("model", "last value", "seasonal naive", "ridge"):
        assert method in printed
    assert printed.count("The model") == 6
    assert "% bands held" in printed


def test_predict_writes_a_file_or_prints(run, data, tmp_path, capsys):
    out = tmp_path / "forecast.csv"
    assert main(["predict", run, data, "-o", str(out)]) == 0
    forecast = pd.read_csv(out)
    assert list(forecast.columns) == ["date", "y", "y_q0.1", "y_q0.5", "y_q0.9"]
    assert len(forecast) == 4
    capsys.readouterr()
    assert main(["predict", run, data]) == 0
    assert capsys.readouterr().out == out.read_text()


def test_info(run, capsys):
    assert main(["info", run]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for word in ("y", "date, every hour", "s4d", "24, 4, 24 rows", "320 rows, up to 2024-01-14"):
        assert word in printed


@pytest.mark.parametrize("header", [True, False])
def test_stream_is_prediction(header, run, data, capsys):
    lines = Path(data).read_text().splitlines()
    names = lines[0].split(",")
    if not header:  # then the run's own order: time, targets, covariates
        lines = [",".join(line.split(",")[:3]) for line in lines]
        names = names[:3]
    process = program(["stream", run])
    text = "\n".join(lines[0 if header else 1 : 41]) + "\n"
    out, err = process.communicate(text)
    assert (process.returncode, err) == (0, "")
    rows = [line.split(",") for line in out.splitlines()]
    assert rows[0][:5] == ["date", "y_1", "y_2", "y_3", "y_4"]
    assert rows[0][5] == "y_q0.1_1"
    assert len(rows) == 1 + 40 - 24 + 1
    first = Path(data).with_name("first.csv")
    first.write_text("\n".join(lines[:41] if header else [",".join(names), *lines[1:41]]))
    assert main(["predict", run, str(first)]) == 0
    predicted = [line.split(",")[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert [float(x) for x in rows[-1][1:5]] == [float(f"{float(x):.9g}") for x in predicted]
    assert rows[-1][0] == lines[40].split(",")[0]


def test_stream_answers_each_line_at_once_and_skips_invalid_lines(run, data):
    lines = Path(data).read_text().splitlines()
    process = program(["stream", run])
    process.stdin.write("\n".join(lines[:25]) + "\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith("date,y_1")
    assert process.stdout.readline().startswith(lines[24].split(",")[0])
    for bad in ("nonsense", "2024-01-02 00:00:00,abc,1,1", '"open', ""):
        process.stdin.write(bad + "\n")
    process.stdin.write(lines[25] + "\n")
    process.stdin.flush()
    assert process.stdout.readline().startswith(lines[25].split(",")[0])
    _, err = process.communicate()
    assert process.returncode == 0
    assert err.splitlines() == [
        "line 26: 1 values; 4 were expected; skipped",
        "line 27: column 'y' holds 'abc'; a number was expected; skipped",
        "line 28: 1 values; 4 were expected; skipped",
    ]


def test_stream_ends_without_an_error_when_its_pipe_is_closed(run, data):
    process = program(["stream", run])
    with process:
        process.stdout.close()
        process.stdin.write(Path(data).read_text())
        process.stdin.close()
        assert process.stderr.read() == ""


def case(change=lambda text: text, **replaced):
    return change, replaced


WRONG = {
    "no column": (case(target="yy"), "there is no column 'yy'; did you mean 'y'?"),
    "no time": (case(time="when"), "there is no column 'when'; there is 'date', 'y', 'x', 'z'"),
    "no layer": (case(layers="rwkv"), "there is no layer 'rwkv'"),
    "dates": (
        case(lambda t: t.replace("2024-01-03 05", "soon")),
        "'date' holds 'soon:00:00' in line 55",
    ),
    "constant": (
        case(lambda text: constant(text)),
        "the target column 'y' is constant over the training part",
    ),
    "short": (case(lambda t: "\n".join(t.splitlines()[:30])), "the data has 29 rows, of which"),
    "separator": (case(lambda t: t.replace(",", ";")), "looks separated by ';'; commas"),
    "empty": (case(lambda t: ""), "is empty; a first line with column names was expected"),
    "header only": (case(lambda t: t.splitlines()[0]), "has a first line and no rows of data"),
    "quantiles": (
        case(quantiles="0.1,a"),
        "--quantiles must be numbers separated by commas; got '0.1,a'",
    ),
    "split": (
        case(split="0.5,0.5"),
        "add up to 1, such as 0.7,0.1,0.2; got 0.5,0.5",
    ),
    "split sum": (case(split="0.5,0.5,0.5"), "split must be three positive shares"),
    "epochs": (case(epochs="0"), "epochs must be a whole number of at least 1; got 0"),
    "horizon": (case(horizon="0"), "horizon must be a whole number of at least 1; got 0"),
}


def constant(text):
    return re.sub(r"^([^,]+),[\d.]+", r"\1,1", text, flags=re.M)


@pytest.mark.parametrize("name", WRONG)
def test_mistakes_get_one_sentence_and_leave_nothing(name, data, tmp_path, capsys):
    (change, replaced), message = WRONG[name]
    path = tmp_path / "data.csv"
    path.write_text(change(Path(data).read_text()))
    options = {
        "target": "y",
        "horizon": "4",
        "window": "24",
        "out": str(tmp_path / "run"),
        **replaced,
    }
    arguments = [word for k, v in options.items() for word in (f"--{k}", v)]
    assert main(["train", "forecast", str(path), *arguments]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert message in printed
    assert len(printed.splitlines()) == 1
    assert sorted(os.listdir(tmp_path)) == ["data.csv"]


def test_mistakes_with_runs(run, data, folder, tmp_path, capsys):
    half = tmp_path / "half"
    half.mkdir()
    model = Path(run, "model.safetensors").read_bytes()
    (half / "model.safetensors").write_bytes(model[: len(model) // 2])
    (tmp_path / "file").touch()
    pd.DataFrame({"date": ["2024-01-01"], "y": [1.0]}).to_csv(tmp_path / "other.csv", index=False)
    for arguments, message in (
        (["evaluate", tmp_path / "none", data], "there is no run"),
        (["predict", tmp_path, data], "is neither a run (it holds no model.safetensors) nor a"),
        (["info", half], "is damaged"),
        (["predict", run, tmp_path / "none.csv"], "does not exist"),
        (["predict", run, tmp_path / "other.csv"], "there is no column 'x'"),
        (["predict", run, data, "-o", tmp_path / "file" / "f.csv"], "cannot be written"),
    ):
        assert main([str(a) for a in arguments]) == 2
        printed = capsys.readouterr().err
        assert message in printed
        assert len(printed.splitlines()) == 1


def test_wrong_usage_is_exit_code_2(capsys):
    assert main(["train", "forecast"]) == 2
    assert main(["nonsense"]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_text_from_the_data_is_not_interpreted(tmp_path, capsys):
    hourly().rename(columns={"y": "[red]y[/red]"}).to_csv(tmp_path / "data.csv", index=False)
    arguments = [*OPTIONS, "--out", str(tmp_path / "[run]")]
    arguments[1] = "[red]y[/red]"
    assert main(["train", "forecast", str(tmp_path / "data.csv"), *arguments]) == 0
    assert main(["info", str(tmp_path / "[run]")]) == 0
    printed = capsys.readouterr().out
    assert printed.count("[red]y[/red]") == 2
    assert "[run]" in printed


def weights(folder):
    """The last and the best, and the optimiser's moments."""
    return checkpoint.load(Path(folder) / "checkpoint.safetensors", "training")[0]


def test_a_killed_and_continued_training_equals_a_whole_one(run, data, tmp_path):
    arguments = ["train", "forecast", data, *OPTIONS, "--out", tmp_path / "run"]
    path = tmp_path / "run" / "checkpoint.safetensors"
    process = program(arguments)
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
    process.kill()
    process.communicate()
    assert not (tmp_path / "run" / "model.safetensors").exists()
    # A half-written file from a kill in mid-write does no harm.
    (tmp_path / "run" / ".checkpoint.safetensors.part").write_bytes(b"half")
    assert main([str(a) for a in arguments]) == 0
    ours, whole = weights(tmp_path / "run"), weights(run)
    assert all(np.array_equal(ours[k], whole[k]) for k in whole)


def test_interrupt_keeps_the_best_and_evaluates(data, tmp_path):
    arguments = [*OPTIONS, "--out", tmp_path / "run"]
    arguments[arguments.index("--epochs") + 1] = "100000"
    process = program(["train", "forecast", data, *arguments])
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        assert process.poll() is None, process.stderr.read()
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Training ended (interrupted)" in out
    assert "seasonal naive" in out
    assert (tmp_path / "run" / "model.safetensors").exists()


def test_a_folder_that_cannot_be_written_is_reported_before_training(data, tmp_path, capsys):
    (tmp_path / "run").touch()
    assert main(["train", "forecast", data, *OPTIONS, "--out", str(tmp_path / "run")]) == 2
    printed = capsys.readouterr().err
    assert "cannot be written" in printed
    assert len(printed.strip().splitlines()) == 1
