import numpy as np
import pandas as pd
import pytest

from longstate.errors import InputError
from longstate.models import Calendar
from longstate.train._frame import find_time
from longstate.train._table import Columns, make_table
from tests.train.helpers import hourly

Y = Columns(("y",), time="date")


def test_a_regular_table():
    table = make_table(hourly(50), Columns(("y",), ("x",), ("z",), "date"))
    assert table.target.shape == table.covariates.shape == table.known.shape == (50, 1)
    assert table.observed.all()
    assert table.calendar.step == "h"
    assert table.notes == ()
    ahead = table.times_ahead(2)
    assert ahead[-1] - ahead[-3] == np.timedelta64(2, "h")
    assert table.label(50) == "2024-01-03 02:00:00"


@pytest.mark.parametrize("freq", ["s", "30min", "D", "7D", "MS", "QS-OCT", "YS-JAN", "B", "ME"])
def test_finds_the_step(freq):
    times = pd.date_range("2001-01-01", periods=40, freq=freq)
    table = make_table(pd.DataFrame({"date": times, "y": np.arange(40.0)}), Y)
    again = pd.date_range(times[0], periods=41, freq=table.calendar.step)
    assert table.times_ahead(1)[-1] == again[-1].to_datetime64()


def test_gaps_hold_the_last_value_and_are_marked():
    frame = hourly(20)
    frame.loc[[5, 6], "y"] = np.nan
    frame = frame.drop(index=[10, 11, 12])
    table = make_table(frame, Y)
    assert table.rows == 20
    assert np.flatnonzero(~table.observed[:, 0]).tolist() == [5, 6, 10, 11, 12]
    assert (table.target[5:7, 0] == frame["y"][4]).all()
    assert (table.target[10:13, 0] == frame["y"][9]).all()
    assert "3 missing rows" in table.notes[0]
    assert "5 rows have a gap" in table.notes[1]


def test_trailing_rows_without_target_are_the_future():
    frame = hourly(20)
    frame.loc[15:, "y"] = np.nan
    table = make_table(frame, Columns(("y",), (), ("z",), "date"))
    assert table.rows == 15
    assert len(table.known) == 20
    frame.loc[18, "z"] = np.nan
    assert len(make_table(frame, Columns(("y",), (), ("z",), "date")).known) == 18


def test_rows_before_the_first_target_are_left_out():
    frame = hourly(20)
    frame.loc[:3, "y"] = np.nan
    table = make_table(frame, Y)
    assert table.rows == 16
    assert table.observed.all()
    assert table.label(0) == "2024-01-01 04:00:00"


def test_true_and_false_are_one_and_zero():
    frame = hourly(6).assign(holiday=[True, False] * 3, word=["True", " false"] * 3)
    table = make_table(frame, Columns(("y",), ("holiday", "word")))
    assert table.covariates.tolist() == [[1.0, 1.0], [0.0, 0.0]] * 3


def test_finds_the_time():
    assert find_time(hourly(4), None)[1] == "date"
    assert find_time(hourly(4)[["y"]], None)[1] is None
    assert find_time(hourly(4).rename(columns={"date": "when"}), "when")[1] == "when"
    frame = hourly(4)
    frame.index = pd.DatetimeIndex(frame.pop("date"), name="stamp")
    found, name, _ = find_time(frame, None)
    assert name == "stamp"
    assert "stamp" in found.columns


def test_an_offset_is_kept_and_old_runs_read_utc():
    frame = hourly(5)
    frame["date"] = frame["date"] + "+02:00"
    table = make_table(frame, Y)
    assert table.label(0) == "2024-01-01 00:00:00+02:00"
    assert table.label(6) == "2024-01-01 06:00:00+02:00"
    old = Calendar("h", form="mixed")
    assert make_table(frame, Y, calendar=old).label(0) == "2023-12-31 22:00:00"


def change(row, column, value):
    def f(frame):
        return frame.astype({column: object}).assign(
            **{column: lambda t: [value if i == row else v for i, v in enumerate(t[column])]}
        )

    return f


WRONG = {
    "no column": (
        Columns(("OTT",)),
        lambda f: f.rename(columns={"y": "OT"}),
        r"there is no column 'OTT'; did you mean 'OT'\?",
    ),
    "nothing near": (
        Columns(("temperature",)),
        lambda f: f,
        "no column 'temperature'; there is 'date', 'y'",
    ),
    "no target": (Columns(()), lambda f: f, "no target column"),
    "twice": (Columns(("y",), ("y",)), lambda f: f, "'y' is used for more than one part"),
    "text": (Y, change(7, "y", "abc"), "column 'y' holds 'abc' in line 9; a number was expected"),
    "decimal comma": (Y, change(7, "y", "1,5"), "column 'y' holds '1,5' in line 9"),
    "infinite": (Y, change(2, "y", np.inf), "column 'y' is infinite in line 4"),
    "empty target": (Y, lambda f: f.assign(y=np.nan), "the target column 'y' is empty"),
    "empty covariate": (
        Columns(("y",), ("x",)),
        lambda f: f.assign(x=np.nan),
        "covariate column 'x' is empty",
    ),
    "empty known": (
        Columns(("y",), (), ("z",)),
        lambda f: f.assign(z=np.nan),
        "known column 'z' is empty",
    ),
    "date": (Y, change(3, "date", "soon"), "'date' holds 'soon' in line 5; a date such as"),
    "no date": (Y, change(3, "date", None), "in line 5; a date such as"),
    "repeated": (
        Y,
        change(3, "date", "2024-01-01 02:00:00"),
        r"line 5 \(2024-01-01 02:00:00\) repeats the time of line 4",
    ),
    "unsorted": (Y, lambda f: f.iloc[::-1], r"line 3 .* is earlier than line 2"),
    "uneven": (
        Y,
        change(3, "date", "2024-01-01 03:20:00"),
        r"uneven: line 5 \(2024-01-01 03:20:00\) does not fit the usual step",
    ),
    "one row": (Y, lambda f: f.iloc[:1], r"has too few rows \(1\) to find its step"),
    "no rows": (Y, lambda f: f.iloc[:0], "the table has no rows"),
    "mostly missing": (Y, lambda f: f.iloc[[0, 1, 2, 3, 19]], "more rows are missing than present"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_data_is_refused_with_one_sentence(case):
    columns, spoil, message = WRONG[case]
    with pytest.raises(InputError, match=message) as error:
        make_table(spoil(hourly(20)), columns)
    assert "\n" not in str(error.value)


def test_another_step_than_expected_is_refused():
    with pytest.raises(InputError, match=r"line 3 .* does not fit its step \(every day\)"):
        make_table(hourly(10), Y, calendar=Calendar("D"))


def test_digest_sees_every_change():
    base = make_table(hourly(20), Y)
    assert base.digest(20) == make_table(hourly(20), Y).digest(20)
    assert base.digest(10) == make_table(hourly(20)[:12], Y).digest(10)
    assert base.digest(20) != make_table(hourly(20, seed=1), Y).digest(20)
    assert base.digest(20) != make_table(hourly(20, start="2024-01-02"), Y).digest(20)


def test_gaps_of_a_covariate_hold_the_last_value():
    frame = hourly(6)
    frame["x"] = [np.nan, 1, np.nan, np.nan, 4, np.nan]
    table = make_table(frame, Columns(("y",), ("x",), (), "date"))
    assert table.covariates[:, 0].tolist() == [1, 1, 1, 1, 4, 4]  # only before the first: the next
