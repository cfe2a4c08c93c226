"""Labelled series in files: what is read, and what is refused."""

import wave
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from longstate.errors import InputError
from longstate.train import Columns, read_series

HEADER = "@problemName x\n@classLabel true a b\n@data\n"


def write_wave(path: Path, values: list[int], rate: int = 8000, width: int = 2) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setparams((1, width, rate, 0, "NONE", ""))
        file.writeframes(b"".join(v.to_bytes(width, "little", signed=width > 1) for v in values))


def test_ts_has_gaps_and_unequal_lengths(tmp_path):
    (tmp_path / "x.ts").write_text("# comment\n" + HEADER + "1,?,3:4,5,6:a\n7:8:b\n")
    data = read_series(tmp_path / "x.ts")
    np.testing.assert_array_equal(data.X[0], [[1, np.nan, 3], [4, 5, 6]])
    np.testing.assert_array_equal(data.X[1], [[7], [8]])
    assert list(data.y) == ["a", "b"]


def test_long_csv_is_grouped_and_ordered_by_time(tmp_path):
    (tmp_path / "x.csv").write_text("id,day,v,w,ill\nq,2,3,4,no\nq,1,1,,no\np,1,9,8,yes\n")
    data = read_series(tmp_path / "x.csv", Columns("id", "day", "ill"))
    np.testing.assert_array_equal(data.X[0], [[1, 3], [np.nan, 4]])
    assert data.names == ["q", "p"]
    assert list(data.y) == ["no", "yes"]


@pytest.mark.parametrize(("width", "peak"), [(1, 128), (2, 2**15), (3, 2**23), (4, 2**31)])
def test_waves_of_every_width(tmp_path, width, peak):
    values = [128 + 64, 0] if width == 1 else [peak // 2, -peak]
    write_wave(tmp_path / "yes" / "1.wav", values, width=width)
    write_wave(tmp_path / "no" / "1.wav", values, width=width)
    data = read_series(tmp_path)
    assert list(data.y) == ["no", "yes"]
    assert data.rate == 8000
    np.testing.assert_array_equal(data.X[1], [[0.5, -1.0]])


def test_waves_with_a_table(tmp_path):
    write_wave(tmp_path / "1.wav", [1])
    (tmp_path / "t.csv").write_text("file,label\n1.wav,b\n")
    assert list(read_series(tmp_path, labels=tmp_path / "t.csv").y) == ["b"]
    (tmp_path / "t.csv").write_text("file,label\n2.wav,b\n")
    with pytest.raises(InputError, match=r"1.wav has no label in the table; did you mean '2.wav'"):
        read_series(tmp_path, labels=tmp_path / "t.csv")


def test_other_sample_rates_are_refused(tmp_path):
    write_wave(tmp_path / "a" / "1.wav", [1])
    write_wave(tmp_path / "b" / "2.wav", [1], rate=16000)
    with pytest.raises(InputError, match="sample rates differ"):
        read_series(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no line @data"),
        (HEADER, "has no cases after @data"),
        (HEADER + "1,x:a\n", "line 4 has a value that is no number"),
        (HEADER + "1:2:a\n1:b\n", "line 5 has 1 channels; the first case has 2"),
        ("@timeStamps true\n" + HEADER, "has timestamps, which are read from .csv files only"),
        ("@data\n1,2\n", "has no labels"),
    ],
)
def test_wrong_ts_files_are_refused(tmp_path, text, message):
    (tmp_path / "x.ts").write_text(text)
    with pytest.raises(InputError, match=message):
        read_series(tmp_path / "x.ts")


def test_wrong_files_are_refused(tmp_path):
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    (tmp_path / "x.txt").write_text("")
    for name, message in (
        ("x.wav", "cut short"),
        ("x.txt", "of no known kind"),
        ("none.ts", "there is no file or folder"),
    ):
        with pytest.raises(InputError, match=message):
            read_series(tmp_path / name)


def test_a_column_of_text_may_be_the_class(tmp_path):
    (tmp_path / "x.csv").write_text("case,kind,v\n1,run,2\n")
    with pytest.raises(
        InputError, match=r"case 1: column 'kind' holds no .*'run'.* label \(--label"
    ):
        read_series(tmp_path / "x.csv")
    assert list(read_series(tmp_path / "x.csv", Columns(label="kind")).y) == ["run"]
    (tmp_path / "x.csv").write_text("case,label,v\n1,run,high\n")
    with pytest.raises(InputError, match=r"column 'v' holds no numbers \([^;]*\)$"):
        read_series(tmp_path / "x.csv")
    (tmp_path / "x.csv").write_text("case,v\n1,2\n")
    with pytest.raises(InputError, match=r"has no labels; in a table label \(--label\) names them"):
        read_series(tmp_path / "x.csv")


def test_times_of_a_long_csv_are_numbers_or_dates(tmp_path):
    """Text in the order of its letters would put the 1st of February before the 25th of January."""
    rows = ["b,25/01/2024,x,1", "b,01/02/2024,x,3", "b,30/01/2024,x,2", "a,14/02/2024,y,5"]
    (tmp_path / "x.csv").write_text("case,time,label,v\n" + "\n".join(rows))
    found = read_series(tmp_path / "x.csv")
    assert found.names == ["b", "a"]
    assert found.X[0].tolist() == [[1, 2, 3]]


@pytest.mark.parametrize(
    ("time", "message"),
    [
        ("25/01/2024", "line 4: case b has another row of the time 25/01/2024"),
        ("", "line 4: column"),
    ],
)
def test_times_that_give_no_order_are_refused(time, message, tmp_path):
    rows = ["b,25/01/2024,x,1", "b,26/01/2024,x,1", f"b,{time},x,3"]
    (tmp_path / "x.csv").write_text("case,time,label,v\n" + "\n".join(rows))
    with pytest.raises(InputError, match=message):
        read_series(tmp_path / "x.csv")


def test_a_ts_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.ts").write_text("\ufeff@classLabel true a\n@data\n1,2:a\n", encoding="utf-8")
    assert read_series(tmp_path / "x.ts").X[0].tolist() == [[1, 2]]


def test_a_long_table_may_be_parquet(tmp_path):
    """Read by its content, with dates, with an index, and as labels."""
    pytest.importorskip("pyarrow")
    days = pd.date_range("2024-01-01", periods=4)[[2, 0, 1, 3]]
    frame = pd.DataFrame(
        {"case": [7, 7, 7, 9], "time": days, "v": [3.0, 1.0, np.nan, 5.0], "label": list("aaab")}
    )
    frame.to_csv(tmp_path / "x.csv", index=False)
    frame.to_parquet(tmp_path / "x.parquet")
    frame.set_index(["case", "time"]).to_parquet(tmp_path / "indexed.csv")
    expected = read_series(tmp_path / "x.csv")
    assert expected.X[0].tolist()[0][0] == 1
    for name in ("x.parquet", "indexed.csv"):
        found = read_series(tmp_path / name)
        assert [x.tolist() for x in found.X[1:]] == [x.tolist() for x in expected.X[1:]]
        np.testing.assert_array_equal(found.X[0], expected.X[0])
        assert (list(found.y), found.names) == (list(expected.y), expected.names)
        assert [t.tolist() for t in found.times] == [t.tolist() for t in expected.times]
    (tmp_path / "x.dat").write_text("case,time\n")
    with pytest.raises(
        InputError, match=r"no known kind; \.ts, \.csv, \.parquet, \.arrow or \.wav"
    ):
        read_series(tmp_path / "x.dat")
