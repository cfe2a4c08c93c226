"""Frames of other libraries, and files: CSV, Parquet, Arrow, spreadsheets, folders of them."""

import gzip
import sys
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from longstate import Forecaster
from longstate.cli import main
from longstate.errors import InputError
from longstate.train import _long_table, read_table
from longstate.train._frame import as_frame
from longstate.train._read_table import Roles, training_table
from longstate.train._time_step import Timing
from tests.train.helpers import QUICK, TINY, hourly, months, write_arrow

pytestmark = pytest.mark.filterwarnings("ignore")  # remarks on short data


def panel():
    frame = months()
    return frame.assign(known=np.arange(len(frame)) % 3)


def trained(frame):
    options = {"known": "known", "static": ("kind", "size")}
    return Forecaster(4, window=12, size=TINY, training=QUICK).fit(frame, **options)


@pytest.fixture(scope="module")
def expected():
    frame = panel()
    return trained(frame).predict(with_future(frame))


def with_future(frame):
    ahead = pd.date_range("2021-09-01", periods=4, freq="MS")
    parts = [frame]
    for name in frame["unique_id"].unique():
        parts.append(pd.DataFrame({"unique_id": name, "ds": ahead, "known": [0, 1, 2, 0]}))
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize("kind", ["polars", "polars with dates", "polars with categories", "arrow"])
def test_frames_of_other_libraries_are_as_good_as_those_of_pandas(kind, expected):
    polars = pytest.importorskip("polars")
    pytest.importorskip("pyarrow")

    def theirs(frame):
        found = polars.from_pandas(frame)
        if kind == "arrow":
            return found.to_arrow()
        if kind == "polars with dates":
            return found.with_columns(polars.col("ds").cast(polars.Date))
        if kind == "polars with categories":
            texts = [polars.col(name).cast(polars.Categorical) for name in ("unique_id", "kind")]
            return found.with_columns(texts)
        return found

    frame = panel()
    found = trained(theirs(frame)).predict(theirs(with_future(frame)))
    assert list(found["unique_id"]) == list(expected["unique_id"])
    assert found.iloc[:, 2:].equals(expected.iloc[:, 2:])
    assert (pd.to_datetime(found["ds"]) == expected["ds"]).all()


class Interchanged:
    """A frame with the interchange protocol alone."""

    def __init__(self, frame):
        self.frame = frame

    def __dataframe__(self, *args, **options):
        return self.frame.__dataframe__(*args, **options)


class Lazy:
    def collect(self):
        raise AssertionError


class Broken:
    def to_pandas(self):
        raise RuntimeError("no memory")


class Arrowless:
    def to_pandas(self):
        raise ModuleNotFoundError("pyarrow is required")


def test_the_interchange_protocol_is_read():
    frame = pd.DataFrame({"a": [1.0, np.nan], "b": [1, 2]})
    assert as_frame(Interchanged(frame)).equals(frame)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (Lazy(), r"must be a frame or series .* got tests Lazy; collect\(\) gives the frame"),
        (Broken(), "the tests Broken cannot be converted to pandas: no memory"),
        (
            Arrowless(),
            r"a tests Arrowless needs pyarrow: pip install 'longstate\[parq",
        ),
        ({"y": [1.0]}, "got builtins dict"),
    ],
)
def test_what_cannot_be_converted_is_one_sentence(data, message):
    with pytest.raises(InputError, match=message):
        as_frame(data)


def test_arrow_files_and_streams_are_read(tmp_path):
    pytest.importorskip("pyarrow")
    frame = hourly(30).assign(kind="a")
    frame["date"] = pd.to_datetime(frame["date"])
    for stream in (False, True):
        write_arrow(frame, tmp_path / "a", stream=stream, rows=7)
        assert read_table(tmp_path / "a").equals(frame)
        write_arrow(frame.set_index("date"), tmp_path / "a", stream=stream)
        assert read_table(tmp_path / "a").equals(frame.set_index("date"))
        write_arrow(frame[:0], tmp_path / "a", stream=stream)
        with pytest.raises(InputError, match="holds no rows of data"):
            read_table(tmp_path / "a")
    frame.to_feather(tmp_path / "a.feather")
    assert read_table(tmp_path / "a.feather").equals(frame)


def test_decimal_numbers_and_seconds_are_columns_like_others():
    seconds = 1640995200 + 3600 * np.arange(60)
    digits = [Decimal(f"{i}.25") if i % 7 else None for i in range(60)]
    frame = pd.DataFrame({"ds": seconds, "y": digits})
    table = training_table(frame, Roles(None), Timing())[0]
    assert (table.columns.time, table.columns.targets) == ("ds", ("y",))
    assert table.calendar.dated
    assert table.target[table.observed[:, 0], 0].tolist() == [float(x) for x in digits if x]
    alone = training_table(frame[["ds"]], Roles(None), Timing())[0]
    assert alone.columns.targets == ("ds",)


@pytest.mark.parametrize("large", [False, True])
def test_a_column_that_is_there_twice(large, tmp_path, monkeypatch):
    pa = pytest.importorskip("pyarrow")
    pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(_long_table, "LARGE", 1 if large else 1 << 30)
    table = pa.table([[1.0], [2.0]], names=["y", "y"])
    pa.parquet.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as file:
        file.write_table(table)
    for path in (tmp_path / "a.parquet", tmp_path / "a.arrow"):
        with pytest.raises(InputError, match="has the column 'y' twice; one name for each"):
            _long_table.table_of_file(path, Roles("y"), Timing(), tmp_path / "run")


def test_parquet_and_csv_files_are_read_by_their_content(tmp_path):
    pytest.importorskip("pyarrow")
    frame = hourly(30)
    frame["date"] = pd.to_datetime(frame["date"])
    frame.to_parquet(tmp_path / "a.csv")  # the name does not decide
    assert read_table(tmp_path / "a.csv").equals(frame)
    frame.set_index("date").to_parquet(tmp_path / "index.parquet")
    assert read_table(tmp_path / "index.parquet").index.name == "date"
    frame.to_csv(tmp_path / "b.parquet", index=False)
    assert list(read_table(tmp_path / "b.parquet")["y"]) == pytest.approx(list(frame["y"]))


def test_files_that_cannot_be_read_are_one_sentence(tmp_path, monkeypatch):
    pytest.importorskip("pyarrow")
    hourly(30).to_parquet(tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[:200])
    hourly(30)[:0].to_parquet(tmp_path / "empty.parquet")
    write_arrow(hourly(30), tmp_path / "a.arrow")
    (tmp_path / "cut.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:400])
    (tmp_path / "sheet.xlsx").write_bytes(b"PK\3\4")
    (tmp_path / "none").mkdir()
    for name, message in {
        "cut.parquet": "is not a readable Parquet file: ",
        "empty.parquet": "holds no rows of data",
        "cut.arrow": "is not a readable Arrow file: ",
        "sheet.xlsx": r"is a spreadsheet; save the sheet as a CSV file .* pandas.read_excel",
        "none.parquet": "does not exist",
        "none": "is a folder without tables; CSV, Parquet or Arrow files were expected",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            read_table(tmp_path / name)
        assert "\n" not in str(error.value)
    for module in [m for m in sys.modules if m.split(".")[0] == "pyarrow"] + ["pyarrow"]:
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InputError, match=r"needs pyarrow: pip install 'longstate\[parquet\]'"):
        read_table(tmp_path / "a.parquet")


def test_the_commands_read_parquet(tmp_path, capsys):
    pytest.importorskip("pyarrow")
    frame = hourly()
    frame["date"] = pd.to_datetime(frame["date"])
    frame.to_parquet(tmp_path / "data.parquet")
    frame.to_csv(tmp_path / "data.csv", index=False)
    run, data = str(tmp_path / "run"), str(tmp_path / "data.parquet")
    options = ["--target", "y", "--horizon", "4", "--window", "24", "--epochs", "1"]
    assert main(["train", "forecast", data, *options, "--out", run]) == 0
    assert main(["evaluate", run, data]) == 0
    assert main(["backtest", run, data, "--origins", "2"]) == 0
    said = []
    for kind in ("parquet", "csv"):
        capsys.readouterr()
        assert main(["predict", run, str(tmp_path / f"data.{kind}")]) == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    assert main(["predict", run, str(tmp_path / "data.xlsx")]) == 2


def test_a_folder_is_a_panel_of_its_files(tmp_path):
    folder = tmp_path / "shops"
    (folder / "archive.csv").mkdir(parents=True)
    (folder / "007.csv.gz").write_bytes(gzip.compress(b"time,y\n2020,1\n2021,2\n"))
    (folder / "Bern.csv").write_text("y,time\n3,2020\n")
    (folder / "notes.txt").write_text("not a table")
    found = read_table(folder)
    assert list(found.columns) == ["unique_id", "time", "y"]
    assert found.to_numpy().tolist() == [["007", 2020, 1], ["007", 2021, 2], ["Bern", 2020, 3]]
    assert list(found.index) == [0, 1, 2]
    for name, text, message in (
        ("c.csv", "y,time,z\n1,2020,3\n", r"c\.csv has the column 'z', unlike .*007\.csv\.gz"),
        ("c.csv", "y\n1\n", r"c\.csv lacks the column 'time', unlike"),
        ("c.csv", "y,time\n", r"c\.csv has a first line and no rows"),
    ):
        (folder / name).write_text(text)
        with pytest.raises(InputError, match=message):
            read_table(folder)


def test_files_of_a_folder_may_be_of_other_kinds(tmp_path):
    pytest.importorskip("pyarrow")
    frame = pd.DataFrame({"ds": pd.date_range("2020", periods=3), "y": [1.0, 2.0, 3.0]})
    frame.to_parquet(tmp_path / "a.parquet")
    frame.set_index("ds").to_parquet(tmp_path / "b.parquet")
    write_arrow(frame, tmp_path / "c.arrow")
    found = read_table(tmp_path)
    assert list(found.columns) == ["unique_id", "ds", "y"]
    assert found["unique_id"].tolist() == list("aaabbbccc")
    assert (found["ds"] == [*frame["ds"]] * 3).all()


def test_a_folder_of_several_series_needs_their_column(tmp_path):
    for number, name in enumerate("ab"):
        days = pd.date_range("2021-01-01", periods=60)
        frame = pd.DataFrame({"day": days, "sold": np.sin(np.arange(60.0) + number)})
        frame.to_csv(tmp_path / f"{name}.csv", index=False)
    frame = read_table(tmp_path)
    with pytest.raises(InputError, match=r"is earlier than line 61; .* id \(--id\) names their"):
        training_table(frame, Roles("sold"), Timing())
    assert training_table(frame, Roles("sold", id="unique_id"), Timing())[0].panel is not None


def test_files_of_one_long_table_are_joined(tmp_path):
    (tmp_path / "2020.csv").write_text("unique_id,ds,y\na,2020,1\nb,2020,2\n")
    (tmp_path / "2021.csv").write_text("unique_id,ds,y\na,2021,3\n")
    assert read_table(tmp_path)["unique_id"].tolist() == ["a", "b", "a"]


def test_a_forecaster_trains_on_a_folder(tmp_path):
    for number, name in enumerate(("a", "b", "c")):
        frame = pd.DataFrame({"ds": range(80), "y": np.sin(np.arange(80) / (3 + number))})
        (tmp_path / "data").mkdir(exist_ok=True)
        frame.to_csv(tmp_path / "data" / f"{name}.csv", index=False)
    command = f"train forecast {tmp_path}/data --horizon 3 --window 10 --epochs 1 --d-model 4"
    assert main([*command.split(), "--out", f"{tmp_path}/run"]) == 0
    assert main(["predict", f"{tmp_path}/run", f"{tmp_path}/data", "--out", f"{tmp_path}/f"]) == 0
    assert set(pd.read_csv(tmp_path / "f")["unique_id"]) == {"a", "b", "c"}
