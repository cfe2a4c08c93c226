"""Times, bounds and states of forecasts on the command line."""

import gzip
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from longstate.cli import main
from tests.test_cli import PROGRAM, ROOT
from tests.train.helpers import hourly

OPTIONS = ["--target", "y", "--horizon", "4", "--window", "24", "--epochs", "1"]


def train(folder, frame, *options):
    frame.to_csv(folder / "data.csv", index=False)
    arguments = ["train", "forecast", folder / "data.csv", *OPTIONS, *options]
    assert main([*map(str, arguments), "--out", str(folder / "run")]) == 0


def stream(run, text, *options):
    command = [*PROGRAM, "stream", str(run), *map(str, options)]
    done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
    assert done.returncode in (0, 2), done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines(), done.returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run on day-first dates, with a covariate."""
    folder = tmp_path_factory.mktemp("times")
    frame = hourly()[["date", "y", "x"]]
    frame["date"] = pd.to_datetime(frame["date"]).dt.strftime("%d/%m/%Y %H:%M")
    train(folder, frame, "--covariates", "x")
    return folder


def test_predict_and_stream_write_times_as_training_had_them(folder, capsys):
    run, data = folder / "run", folder / "data.csv"
    assert main(["predict", str(run), str(data)]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("17/01/2024 16:00,")
    lines = data.read_text().splitlines()
    out, err, _ = stream(run, "\n".join(lines[:60]))
    assert err == []
    assert [row.split(",")[0] for row in out[1:]] == [x.split(",")[0] for x in lines[24:60]]


def test_predict_reads_a_pipe_and_a_compressed_file(folder, tmp_path, capsys):
    run, data = str(folder / "run"), folder / "data.csv"
    packed = tmp_path / "data.csv.gz"
    packed.write_bytes(gzip.compress(data.read_bytes()))
    assert main(["predict", run, str(data)]) == 0
    plain = capsys.readouterr().out
    assert main(["predict", run, str(packed)]) == 0
    assert capsys.readouterr().out == plain
    if sys.platform == "linux":
        command = [*PROGRAM, "predict", run, "/dev/stdin"]
        done = subprocess.run(command, cwd=ROOT, input=data.read_bytes(), capture_output=True)
        assert (done.returncode, done.stdout.decode()) == (0, plain)


def test_notes_of_predict_go_to_standard_error(folder, tmp_path, capsys):
    lines = (folder / "data.csv").read_text().splitlines()
    (tmp_path / "holed.csv").write_text("\n".join([*lines[:300], *lines[303:390], lines[399]]))
    assert main(["predict", str(folder / "run"), str(tmp_path / "holed.csv")]) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith("date,y,")
    assert printed.err.splitlines()[0] == "12 missing rows (one every hour) were added as gaps."
    assert main(["evaluate", str(folder / "run"), str(tmp_path / "holed.csv")]) == 0
    assert "12 missing rows (one every hour)" in capsys.readouterr().out


def test_stream_reads_columns_by_name(folder):
    run, lines = folder / "run", (folder / "data.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines[:60]]
    plain = stream(run, "\n".join(lines[:60]))[0]
    other = "\n".join(",".join((x, y, "extra", date)) for date, y, x in rows)
    assert stream(run, "\n" + other)[0] == plain
    assert stream(run, other + "\n" + lines[0] + "\n" + lines[60])[0][:-1] == plain
    named = "\n".join([lines[0].replace("date", "Time_Stamp"), *lines[1:60]])
    assert stream(run, named)[0] == plain
    out, err, code = stream(run, "\n".join([lines[0].replace("x", "xx"), *lines[1:60]]))
    assert (len(out), code) == (1, 2)
    assert err == ["error: the first line has no column 'x'; did you mean 'xx'?"]


def test_stream_reports_skipped_lines_and_incomplete_windows(folder):
    run, lines = folder / "run", (folder / "data.csv").read_text().splitlines()
    far = lines[31].replace("2024", "2099")
    out, err, _ = stream(run, "\n".join([*lines[:31], far, *lines[31:40], *lines[54:56]]))
    assert len(out) == 1 + 30 - 23 + 9 + 2
    assert err[0].startswith("line 32: the time 2099-01-02 06:00:00 lies 657457 steps after")
    assert err[0].endswith("it is held until a row follows it; skipped")
    assert err[1:] == [
        "line 42: Of the 24 rows that the forecast reads, 14 are missing.",
        "line 43: Of the 24 rows that the forecast reads, 14 are missing.",
    ]


def test_stream_continues_from_its_state_file(folder, tmp_path):
    run, lines = folder / "run", (folder / "data.csv").read_text().splitlines()
    whole = stream(run, "\n".join(lines[:60]))[0]
    state = tmp_path / "state"
    first = stream(run, "\n".join(lines[:40]) + "\n", "--state", state)[0]
    second = stream(run, "\n".join([lines[0], *lines[40:60]]), "--state", state)[0]
    assert [*first, *second[1:]] == whole
    state.write_bytes(state.read_bytes()[:100])
    _, err, code = stream(run, lines[60], "--state", state)
    assert (code, len(err)) == (2, 1)
    assert "is damaged" in err[0]


def test_options_for_times_and_bounds(tmp_path, capsys):
    draw = np.random.default_rng(0)
    times = pd.date_range("2023-01-02", periods=260, freq="B").delete([80, 200])
    frame = pd.DataFrame({"day": times.astype(str), "y": draw.poisson(0.4, len(times))})
    holidays = [word for i in (80,) for word in ("--holidays", "2023-04-24")]
    train(tmp_path, frame, "--step", "B", *holidays, "--lower", "0", "--transform", "log1p")
    printed = " ".join(capsys.readouterr().out.split())
    assert "Column 'day' is taken as the time." in printed
    assert "1 missing rows (one every working day) were added as gaps." in printed
    assert main(["predict", str(tmp_path / "run"), str(tmp_path / "data.csv")]) == 0
    out = pd.read_csv(pd.io.common.StringIO(capsys.readouterr().out))
    assert list(out["day"]) == ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]
    assert out.drop(columns="day").min().min() >= 0
    assert main(["info", str(tmp_path / "run")]) == 0
    assert "day, every working day" in " ".join(capsys.readouterr().out.split())


def test_no_warning_of_a_library_reaches_the_terminal(folder, tmp_path):
    lines = (folder / "data.csv").read_text().splitlines()
    odd = ["Jan 5 2024 at 3", "5th of May", "99/99/9999 10:00", "x" * 3_000_000, "31/12/9999"]
    for text in odd:
        (tmp_path / "odd.csv").write_text("\n".join([*lines[:50], f"{text},1,1"]))
        command = [*PROGRAM, "predict", str(folder / "run"), str(tmp_path / "odd.csv")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
        assert len(done.stderr) < 400
    _, err, _ = stream(folder / "run", "\n".join([*lines[:50], *(f"{t},1,1" for t in odd)]))
    assert len(err) == len(odd)
    assert all(line.endswith("; skipped") for line in err)
