"""Panels on the command line: train, evaluate, info, predict, stream."""

import subprocess

import pandas as pd
import pytest
from torch.testing import assert_close

from longstate.cli import main
from tests.test_cli import PROGRAM, ROOT
from tests.train.helpers import months

SMALL = ["--horizon", "4", "--window", "12", "--epochs", "1"]
SMALL += ["--d-model", "4", "--n-layers", "1", "--d-state", "4"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("panel")
    frame = months().rename(columns={"unique_id": "shop", "y": "sales", "ds": "month"})
    frame.to_csv(folder / "data.csv", index=False)
    options = ["--id", "shop", "--target", "sales", "--static", "kind", "--static", "size"]
    words = ["train", "forecast", folder / "data.csv", *SMALL, *options, "--out", folder / "run"]
    assert main(list(map(str, words))) == 0
    return folder


def test_the_report_tells_of_the_series(folder):
    page = (folder / "run" / "report.html").read_text()
    assert "Errors by series" in page
    assert "The squared error of the 6 series is from" in page


def test_evaluate_and_info_tell_of_the_series(folder, capsys):
    assert main(["evaluate", str(folder / "run"), str(folder / "data.csv")]) == 0
    said = capsys.readouterr().out
    assert "The series with the largest errors" in said
    assert main(["info", str(folder / "run")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "6, named by shop" in said
    assert "one model" not in said


def test_predict_draws_a_series(folder, tmp_path, capsys):
    words = [
        "predict",
        str(folder / "run"),
        str(folder / "data.csv"),
        "-o",
        str(tmp_path / "f.csv"),
    ]
    assert main([*words, "--plot", str(tmp_path / "a.svg"), "--series", "s4"]) == 0
    assert "<svg" in (tmp_path / "a.svg").read_text()
    assert len(pd.read_csv(tmp_path / "f.csv")) == 6 * 4
    capsys.readouterr()
    for options, message in (
        (["--series", "s4"], "--series is the series of the picture that --plot writes"),
        (["--plot", str(tmp_path / "a.txt")], "a.txt must end in .png, .svg or .pdf"),
        (["--plot", str(tmp_path / "b.png"), "--series", "x"], "no forecast of a series 'x'"),
    ):
        assert main([*words, *options]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "b.png").exists()


def test_predict_and_stream(folder):
    out = folder / "forecast.csv"
    assert main(["predict", str(folder / "run"), str(folder / "data.csv"), "-o", str(out)]) == 0
    forecast = pd.read_csv(out)
    assert list(forecast.columns)[:3] == ["shop", "month", "sales"]
    assert len(forecast) == 6 * 4
    rows = pd.read_csv(folder / "data.csv").groupby("shop").tail(13).sort_values("month")
    half = len(rows) // 2
    state, lines = folder / "state", []
    for part in (rows[:half], rows[half:]):
        command = [*PROGRAM, "stream", str(folder / "run"), "--state", str(state)]
        text = part.to_csv(index=False)
        done = subprocess.run(command, cwd=ROOT, input=text, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
    assert lines[0].startswith("shop,month,sales_1,sales_2")
    last = {cells[0]: cells for cells in (line.split(",") for line in lines[1:])}
    for name, one in forecast.groupby("shop"):
        assert_close(float(last[name][2]), float(one["sales"].iloc[0]), rtol=1e-4, atol=0)


def test_other_origins_horizons_and_backtests(folder, tmp_path, capsys):
    run, data, out = str(folder / "run"), str(folder / "data.csv"), str(tmp_path / "f.csv")
    words = ["predict", run, data, "-o", out]
    assert main([*words, "--origin", "2020-12-01", "--horizon", "6"]) == 0
    forecast = pd.read_csv(out)
    assert forecast.groupby("shop")["month"].agg(["min", "max", "size"]).drop_duplicates().to_numpy(
    ).tolist() == [["2021-01-01", "2021-06-01", 6]]  # fmt: skip
    said = capsys.readouterr().err
    assert "The forecaster was trained for 4 rows" in said
    assert "fitted to rows after this origin" in said
    assert main(["backtest", run, data, "--origins", "3", "--refit", "2", "-o", out]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "standard deviations of each series" in said
    assert "The series with the largest errors" in said
    assert "fitted again at 2 of 3 origins" in said
    tested = pd.read_csv(out)
    assert list(tested.columns[:5]) == ["shop", "origin", "month", "step", "sales"]
    assert tested.groupby("origin")["shop"].nunique().tolist() == [6, 6, 6]


def test_rows_from_a_file_are_streamed(folder, tmp_path, capsys):
    """In Parquet with dates as in CSV; a series at a time as in order of time."""
    pytest.importorskip("pyarrow")
    rows = pd.read_csv(folder / "data.csv").groupby("shop").tail(13)
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.assign(month=pd.to_datetime(rows["month"])).to_parquet(tmp_path / "rows.parquet")
    found = []
    for name in ("rows.csv", "rows.parquet"):
        assert main(["stream", str(folder / "run"), str(tmp_path / name)]) == 0
        found.append(capsys.readouterr())
    assert found[0] == found[1]
    assert len(found[0].out.splitlines()) == 1 + 6 * 2


def test_wide_tables(tmp_path, capsys):
    wide = months().pivot(index="ds", columns="unique_id", values="y").reset_index()
    wide.to_csv(tmp_path / "wide.csv", index=False)
    targets = [word for name in ("s0", "s1", "s3") for word in ("--target", name)]
    data, run = str(tmp_path / "wide.csv"), str(tmp_path / "run")
    assert main(["train", "forecast", data, *SMALL, *targets, "--wide", "--out", run]) == 0
    assert "3 series of 60 to 80 rows" in capsys.readouterr().out
    assert main(["predict", run, data]) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("s0,")


def test_a_missing_id_is_one_sentence(folder, tmp_path, capsys):
    frame = pd.read_csv(folder / "data.csv").drop(columns="shop")
    frame.to_csv(tmp_path / "data.csv", index=False)
    assert main(["predict", str(folder / "run"), str(tmp_path / "data.csv")]) == 2
    assert "there is no column 'shop', which names the series" in capsys.readouterr().err
