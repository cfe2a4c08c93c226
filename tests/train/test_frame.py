"""What people hand over as data, and where its times are."""

import numpy as np
import pandas as pd
import pytest

from longstate.errors import InputError
from longstate.train._frame import as_frame, find_time, names_of, only_column
from tests.train.helpers import hourly


def test_series_arrays_and_numbered_columns_are_frames():
    assert list(as_frame(pd.Series([1.0, 2.0])).columns) == ["value"]
    assert list(as_frame(pd.Series([1.0], name="y")).columns) == ["y"]
    assert list(as_frame(np.zeros(4)).columns) == ["0"]
    assert list(as_frame(np.zeros((4, 2))).columns) == ["0", "1"]
    frame = pd.DataFrame({2020: [1.0], 2021: [2.0]})
    assert list(as_frame(frame).columns) == ["2020", "2021"]
    assert list(frame.columns) == [2020, 2021]


WRONG = {
    "twice": (pd.DataFrame(np.zeros((2, 2)), columns=["a", "a"]), "has the column 'a' twice"),
    "twice as text": (pd.DataFrame(np.zeros((2, 2)), columns=["1", 1]), "has the column '1' twice"),
    "two rows": (
        pd.DataFrame(np.zeros((2, 1)), columns=pd.MultiIndex.from_tuples([("a", "b")])),
        r"names in 2 rows, such as \('a', 'b'\); one name",
    ),
    "cube": (np.zeros((2, 2, 2)), "got an array of 3 axes"),
    "list": (
        [1.0, 2.0],
        "must be a frame or series of pandas or polars or an array .* got builtins list",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_data_is_refused_with_one_sentence(case):
    data, message = WRONG[case]
    with pytest.raises(InputError, match=message):
        as_frame(data)


def test_the_target_may_be_left_out_where_there_is_one():
    assert only_column(hourly(4)[["date", "y"]], None) == "y"
    with pytest.raises(InputError, match="target must name a column; there are 3 columns"):
        only_column(hourly(4), None)


NAMES = ["ts", "Date_Time", "LastUpdated", "ds", "TIMESTAMP", "Created At", "start_time", "Datum"]


@pytest.mark.parametrize("name", NAMES)
def test_the_time_by_its_usual_names(name):
    frame = hourly(4).rename(columns={"date": name})
    assert find_time(frame, None)[1:] == (name, (f"Column {name!r} is taken as the time.",))


def test_the_time_by_how_it_is_written():
    frame = hourly(40).rename(columns={"date": "a"}).assign(word="x1")
    assert find_time(frame, None)[1:] == ("a", ("Column 'a' is taken as the time.",))
    assert find_time(frame, None, used=("a",))[1] is None
    quarters = pd.DataFrame({"Quarter": ["2020-Q1", "2020-Q2"], "y": [1.0, 2.0]})
    assert find_time(quarters, None)[1] == "Quarter"
    two = frame.assign(b=frame["a"])
    assert find_time(two, None)[1] is None


def test_numbers_are_times_only_where_they_look_like_it():
    years = pd.DataFrame({"year": [1950, 1951, 1952], "y": [1.0, 2.0, 4.0]})
    assert find_time(years, None)[1] == "year"
    unix = pd.DataFrame({"ts": [1700000000, 1700003600], "y": [1.0, 2.0]})
    assert find_time(unix, None)[1] == "ts"
    steps = pd.DataFrame({"time": [0, 1, 2], "y": [1.0, 2.0, 4.0]})
    _, found, notes = find_time(steps, None)
    assert found is None
    assert notes == (
        "No column with times was found: the rows are taken as evenly spaced. Column 'time' holds "
        "numbers; time can name it.",
    )
    assert find_time(steps, "time")[1] == "time"


def test_without_times_there_is_one_note():
    _, found, notes = find_time(hourly(4)[["y"]], None)
    assert found is None
    assert notes == ("No column with times was found: the rows are taken as evenly spaced.",)


INDEXES = {
    "dates": pd.date_range("2024-01-01", periods=4, freq="h"),
    "zone": pd.date_range("2024-01-01", periods=4, freq="h", tz="Asia/Tokyo"),
    "periods": pd.period_range("2024-01", periods=4, freq="M"),
    "text": pd.Index(["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-04"]),
    "years": pd.Index([2001, 2002, 2003, 2004], name="year"),
}


@pytest.mark.parametrize("case", INDEXES)
def test_an_index_of_times(case):
    frame = hourly(4)[["y"]].set_axis(INDEXES[case], axis=0)
    found, name, notes = find_time(frame, None)
    assert name == (INDEXES[case].name or "time")
    assert list(found[name]) == list(INDEXES[case])
    assert list(found["y"]) == list(frame["y"])
    assert notes == ()


def test_an_index_that_is_named_as_the_time():
    frame = hourly(4)[["y"]].rename_axis("n")
    found, name, _ = find_time(frame, "n")
    assert list(found[name]) == [0, 1, 2, 3]


def test_names_of_any_kind():
    frame = pd.DataFrame({0.5: [1.0, 2.0], pd.Timestamp("2024"): [2.0, 3.0]})
    assert list(as_frame(frame).columns) == ["0.5", "2024-01-01 00:00:00"]
    assert names_of(0.5) == ("0.5",)
    assert names_of(np.float64(2)) == ("2.0",)
    assert names_of({"a"}) == names_of(iter(["a"])) == ("a",)
    one = pd.DataFrame(np.zeros((2, 2)), columns=pd.MultiIndex.from_tuples([("a",), ("b",)]))
    assert list(as_frame(one).columns) == ["a", "b"]


@pytest.mark.parametrize("at", ["before", "behind"])
def test_empty_rows_do_not_hide_the_times(at):
    """As spreadsheets write them: lines of commas."""
    frame = hourly(40)[["date", "y"]].rename(columns={"date": "a"})
    empty = pd.DataFrame({"a": [None] * 5, "y": np.nan})
    parts = [empty, frame] if at == "before" else [frame, empty]
    assert find_time(pd.concat(parts, ignore_index=True), None)[1] == "a"
