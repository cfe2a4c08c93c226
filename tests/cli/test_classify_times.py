"""`longstate train classify` on a long CSV whose times are irregular."""

import csv
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import longstate
from longstate.cli import main
from tests.train.test_series_stamps import at_random_times

SMALL = ["--epochs", "1", "--d-model", "4", "--n-layers", "1", "--no-convolutions"]
LARGER = ["--epochs", "20", "--d-model", "16", "--n-layers", "1", "--no-convolutions"]


def table() -> pd.DataFrame:
    X, y = at_random_times(48)
    parts = [
        pd.DataFrame({"case": i, "time": x[0], "label": "ab"[k], "x": x[1]})
        for i, (x, k) in enumerate(zip(X, y, strict=True))
    ]
    return pd.concat(parts).round(3)


def write(folder: Path, name: str, frame: pd.DataFrame) -> str:
    frame.to_csv(folder / f"{name}.csv", index=False)
    return f"{folder}/{name}.csv"


def as_dates(frame: pd.DataFrame) -> pd.DataFrame:
    dates = pd.Timestamp("2024-03-01") + pd.to_timedelta(frame["time"], unit="h")
    return frame.assign(time=dates.dt.strftime("%d/%m/%Y %H:%M:%S.%f"))


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("times")
    mixed = as_dates(table().sample(frac=1, random_state=0))
    file = write(folder, "dates", mixed)
    options = ["--test", file, *LARGER, "--out", f"{folder}/run"]
    assert main(["train", "classify", file, *options]) == 0
    return folder / "run"


def probabilities(run: Path, file: str, capsys) -> dict[str, float]:
    capsys.readouterr()
    assert main(["predict", str(run), file]) == 0
    rows = csv.DictReader(io.StringIO(capsys.readouterr().out))
    return {row["case"]: float(row["p(a)"]) for row in rows}


def test_irregular_times_are_read(run, capsys):
    time = longstate.load(run).time_
    usual = table().groupby("case")["time"].diff().median()
    torch.testing.assert_close(time.interval / 3600, float(usual))
    assert time.channel == 0
    assert main(["info", str(run)]) == 0
    assert f"usual interval        │ {time.interval / 3600:.4g} hours" in capsys.readouterr().out
    assert main(["evaluate", str(run), f"{run.parent}/dates.csv"]) == 0


def test_the_same_times_written_in_another_way(run, tmp_path, capsys):
    first = probabilities(run, f"{run.parent}/dates.csv", capsys)
    frame = table()
    epoch = frame.assign(time=(1.7e12 + 3.6e6 * frame["time"]).round().astype("int64"))
    assert probabilities(run, write(tmp_path, "epoch", epoch), capsys) == first
    faster = as_dates(frame.assign(time=frame["time"] / 2))
    changed = probabilities(run, write(tmp_path, "faster", faster), capsys)
    assert all(changed[case] != p for case, p in first.items())
    assert main(["predict", str(run), write(tmp_path, "numbers", frame)]) == 2
    assert "the times of the training were dates, so dates" in capsys.readouterr().err


def test_numbers_stay_numbers(tmp_path, capsys):
    file = write(tmp_path, "numbers", table())
    assert main(["train", "classify", file, *SMALL, "--out", f"{tmp_path}/run"]) == 0
    assert "The times of the samples are irregular: the layers step" in capsys.readouterr().err
    years = table().assign(time=lambda f: (2000 + f["time"]).round().astype(int))
    years = years.drop_duplicates(["case", "time"])
    assert len(probabilities(tmp_path / "run", write(tmp_path, "years", years), capsys)) == 48
    assert main(["predict", f"{tmp_path}/run", write(tmp_path, "dates", as_dates(table()))]) == 2
    assert "a number was expected, as in the training" in capsys.readouterr().err
    untimed = write(tmp_path, "untimed", table().drop(columns="time"))
    assert main(["predict", f"{tmp_path}/run", untimed]) == 2
    assert "there is no column 'time'; name it with --time" in capsys.readouterr().err


def test_regular_times_are_read_if_asked_for(tmp_path, capsys):
    frame = table()
    frame["time"] = 5 * frame.groupby("case").cumcount()
    file, out = write(tmp_path, "regular", frame), f"{tmp_path}/run"
    assert main(["train", "classify", file, *SMALL, "--out", out]) == 0
    assert "irregular" not in capsys.readouterr().err
    assert longstate.load(out).time_ is None
    assert main(["train", "classify", file, *SMALL, "--times", "--out", out + "2"]) == 0
    assert longstate.load(out + "2").time_.interval == 5


def test_samples_are_counted_if_a_layer_takes_no_time(tmp_path, capsys):
    file, out = write(tmp_path, "x", table()), f"{tmp_path}/run"
    options = ["train", "classify", file, *SMALL, "--layers", "longhorn", "--out", out]
    assert main(options) == 0
    assert "irregular, but longhorn takes no time between samples" in capsys.readouterr().err
    assert longstate.load(out).time_ is None
    assert main([*options, "--times"]) == 2
    assert "cannot read stamps" in capsys.readouterr().err
    assert main(["train", "classify", file, *SMALL, "--no-times", "--out", out + "2"]) == 0
    assert longstate.load(out + "2").time_ is None


def test_wrong_times_are_one_sentence(tmp_path, capsys):
    frame = table()
    constant = write(tmp_path, "constant", frame.assign(time=5))
    assert main(["train", "classify", constant, *SMALL]) == 2
    assert "line 3: case 0 has another row of the time 5" in capsys.readouterr().err
    frame.iloc[3, 1] = np.nan
    assert main(["train", "classify", write(tmp_path, "nan", frame), *SMALL]) == 2
    assert "line 5: column 'time' holds 'nan'" in capsys.readouterr().err
    single = write(tmp_path, "single", table().groupby("case").head(1))
    assert main(["train", "classify", single, *SMALL, "--times"]) == 2
    assert "every case of X has one sample" in capsys.readouterr().err


def test_statements_about_the_state_say_that_they_are_for_the_usual_interval(run, tmp_path, capsys):
    file, page = str(run.parent / "dates.csv"), str(tmp_path / "memory.html")
    for arguments in (
        ["certify", str(run), "--no-attack"],
        ["memory", str(run), "--data", file, "--out", page],
        ["reduce", str(run), "--keep", "0.5", "--data", file, "--out", str(tmp_path / "small")],
    ):
        assert main(arguments) == 0
        assert "The model reads the times of its samples." in " ".join(
            capsys.readouterr().out.split()
        )
    for written in (page, tmp_path / "small" / "report.html"):
        assert "The model reads the times" in Path(written).read_text()
    assert main(["certify", str(run), "--no-attack", "--dt", "0.1", "10"]) == 0
    assert "The model reads the times" not in capsys.readouterr().out
