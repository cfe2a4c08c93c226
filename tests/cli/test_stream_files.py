"""Rows of `longstate stream` from files: CSV, compressed, Parquet, folders."""

import gzip

import pandas as pd
import pytest

from longstate.cli import main
from tests.saved import FOLDER, frame

RUN = str(FOLDER / "forecast_s4d")


@pytest.fixture(scope="module")
def rows():
    return frame(120).tail(40).astype({"date": str})


@pytest.fixture(scope="module", autouse=True)
def compiled(rows, tmp_path_factory):
    """Kernels are compiled beforehand: standard error is told of it where it takes long."""
    path = tmp_path_factory.mktemp("rows") / "a.csv"
    rows.to_csv(path, index=False)
    assert main(["stream", RUN, str(path)]) == 0


def streamed(capsys, *words):
    code = main(["stream", RUN, *map(str, words)])
    found = capsys.readouterr()
    return code, found.out, found.err


@pytest.fixture
def expected(rows, capsys, monkeypatch):
    lines = rows.to_csv(index=False).encode().splitlines(keepends=True)
    monkeypatch.setattr("longstate.cli.stream.input_lines", lambda: iter(lines))
    found = streamed(capsys)
    assert found[1].count("\n") > 10
    assert streamed(capsys, "-") == found
    return found


def test_files_are_read_as_standard_input(rows, expected, tmp_path, capsys):
    rows.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress((tmp_path / "a.csv").read_bytes()))
    for name in ("a.csv", "a.csv.gz"):
        assert streamed(capsys, tmp_path / name) == expected


def test_parquet_is_read_by_its_content(rows, expected, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    rows.to_parquet(tmp_path / "texts")
    time = rows.columns[0]
    dates = rows.assign(**{time: pd.to_datetime(rows[time])})
    dates.set_index(time).to_parquet(tmp_path / "dates.csv")
    for name in ("texts", "dates.csv"):
        assert streamed(capsys, tmp_path / name) == expected


def test_gaps_and_wrong_times_are_skipped_as_in_csv(rows, tmp_path, capsys):
    pytest.importorskip("pyarrow")
    target = rows.columns[1]
    wrong = rows.reset_index(drop=True)
    wrong.loc[30, target] = None
    wrong.loc[33, wrong.columns[0]] = "never"
    wrong.to_csv(tmp_path / "a.csv", index=False)
    wrong.to_parquet(tmp_path / "a.parquet")
    found = streamed(capsys, tmp_path / "a.parquet")
    assert found == streamed(capsys, tmp_path / "a.csv")
    assert "line 35: the time column" in found[2]


def test_many_skipped_lines_are_counted(rows, tmp_path, capsys):
    with (tmp_path / "a.csv").open("w") as file:
        file.write(",".join(rows.columns) + "\n" + "too,many,values,by,far,on,this,line\n" * 120)
        rows.to_csv(file, index=False, header=False)
    _, forecasts, messages = streamed(capsys, tmp_path / "a.csv")
    assert forecasts.count("\n") > 10
    assert messages.count("; skipped") == 10
    assert "line 101: 100 lines skipped by now" in messages
    assert messages.rstrip().endswith("120 lines were skipped")


def test_state_goes_on_from_one_file_to_the_next(rows, expected, tmp_path, capsys):
    parts = []
    for i, part in enumerate((rows[:30], rows[30:])):
        part.to_csv(tmp_path / f"{i}.csv", index=False)
        parts.append(streamed(capsys, tmp_path / f"{i}.csv", "--state", tmp_path / "state"))
    header = expected[1].splitlines(keepends=True)[0]
    assert parts[0][1] + parts[1][1].removeprefix(header) == expected[1]


def test_files_that_cannot_be_read_are_one_sentence(rows, tmp_path, capsys, monkeypatch):
    pytest.importorskip("pyarrow")
    rows.to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "half.parquet").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty").mkdir()
    rows.drop(columns=rows.columns[1]).to_parquet(tmp_path / "less.parquet")
    (tmp_path / "a.bin").write_bytes(b"\x89HDF\r\n" + bytes(100))
    for name, message in (
        ("none.csv", "none.csv does not exist"),
        ("half.parquet", "is not a readable Parquet file"),
        ("empty", "is a folder without tables"),
        ("less.parquet", f"has no column '{rows.columns[1]}'"),
        ("a.bin", "is an HDF5 file; a CSV file was expected"),
    ):
        code, _, error = streamed(capsys, tmp_path / name)
        assert code == 2
        assert message in error
        assert len(error.splitlines()) == 1
    monkeypatch.setattr("longstate.cli.stream.input_lines", lambda: iter([whole]))
    code, _, error = streamed(capsys)
    assert code == 2
    assert "is a Parquet file; CSV text was expected" in error
