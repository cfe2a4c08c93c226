import numpy as np
import pandas as pd
import pytest
import torch

from longstate.errors import InputError
from longstate.models import Calendar, ForecastSpec
from longstate.train._prepare import window_of
from longstate.train._table import Columns, Table, make_table
from longstate.train._windows import Windows, cycles_of, season_of, split_rows
from tests.train.helpers import hourly

COLUMNS = Columns(("y",), ("x",), ("z",), "date")


def spec(window=8, horizon=3, cycles=("day",)):
    calendar = Calendar("h")
    return ForecastSpec(("y",), ("x",), ("z",), "date", calendar, cycles, window, horizon, 24, ())


def test_a_window_is_the_rows_before_its_horizon():
    frame = hourly(40)
    windows = Windows(make_table(frame, COLUMNS), spec())
    assert len(windows) == 40 - 8 - 3 + 1
    batch = windows.batch(np.array([0, 5]))
    assert batch.rows.tolist() == [8, 13]
    seen = batch.window
    assert seen.target[1, :, 0].tolist() == frame["y"][5:13].tolist()
    assert seen.covariates[1, :, 0].tolist() == frame["x"][5:13].tolist()
    assert seen.known[1, :, 0].tolist() == frame["z"][5:16].tolist()
    assert batch.future[1, :, 0].tolist() == frame["y"][13:16].tolist()
    assert seen.calendar.shape == (2, 11, 6)


def test_parts_share_no_future():
    table = make_table(hourly(100), COLUMNS)
    parts = split_rows(table, spec(), (0.6, 0.2, 0.2))
    assert (parts.train, parts.validation, parts.rows) == (60, 80, 100)
    futures = []
    for first, last in ((0, 60), (60, 80), (80, 100)):
        windows = Windows(table, spec(), first, last)
        rows = {r + s for r in windows.origins for s in range(3)}
        assert min(rows) == max(first, 8)
        assert max(rows) == last - 1
        futures.append(rows)
    assert not futures[0] & futures[1]
    assert not futures[1] & futures[2]


def test_the_last_window_ends_the_table():
    frame = hourly(40)
    frame.loc[37:, "y"] = np.nan
    table = make_table(frame, COLUMNS)
    seen = Windows.last(table, spec())
    assert seen.target[0, :, 0].tolist() == frame["y"][29:37].tolist()
    assert seen.known[0, :, 0].tolist() == frame["z"][29:40].tolist()
    whole = Windows(make_table(hourly(40), COLUMNS), spec()).at(np.array([37])).window
    assert all(torch.equal(a, b) for a, b in zip(seen[:5], whole[:5], strict=True))


def test_windows_without_any_future_value_are_left_out():
    frame = hourly(40)
    frame.loc[20:25, "y"] = np.nan
    windows = Windows(make_table(frame, COLUMNS), spec())
    assert set(range(8, 38)) - set(windows.origins) == {20, 21, 22, 23}
    batch = windows.at(np.array([19]))
    assert batch.present[0, :, 0].tolist() == [True, False, False]


def test_memory_mapped_arrays_are_not_read_completely(tmp_path):
    rows = 5000
    arrays = {}
    for name in ("target", "covariates", "known"):
        arrays[name] = np.lib.format.open_memmap(
            tmp_path / f"{name}.npy", mode="w+", dtype=np.float64, shape=(rows, 1)
        )
        arrays[name][:] = np.arange(rows)[:, None]
    arrays["observed"] = np.ones((rows, 1), dtype=bool)
    table = Table(columns=COLUMNS, times=None, calendar=None, notes=(), **arrays)
    windows = Windows(table, spec(cycles=()))
    assert isinstance(windows.table.target, np.memmap)
    batch = windows.batch(np.array([4000]))
    assert batch.window.target[0, :, 0].tolist() == list(range(4000, 4008))


@pytest.mark.parametrize(
    ("shares", "rows", "message"),
    [
        (
            (0.5, 0.2, 0.2),
            100,
            "must be three positive shares .* add up to 1, such .*; got 0.5,0.2,0.2",
        ),
        ((1.0, 0.0, 0.0), 100, "must be three positive"),
        (
            (0.7, 0.1, 0.2),
            14,
            "the data has 14 rows, of which the training part gets 10, but .* 11",
        ),
        ((0.7, 0.1, 0.2), 20, "the validation part gets 2, but a window of 8 and a horizon of 3"),
        ((0.6, 0.3, 0.1), 20, "the test part gets 2"),
    ],
)
def test_impossible_splits_are_refused(shares, rows, message):
    with pytest.raises(InputError, match=message):
        split_rows(make_table(hourly(rows), COLUMNS), spec(), shares)


def test_no_window_fits():
    with pytest.raises(InputError, match="hold no horizon of 3 rows after a window of 8"):
        Windows(make_table(hourly(10), COLUMNS), spec())
    frame = hourly(60)
    frame.loc[20:50, "y"] = np.nan
    with pytest.raises(InputError, match="rows 25 to 45 hold no value of the target"):
        Windows(make_table(frame, COLUMNS), spec(), 25, 45)


@pytest.mark.parametrize(
    ("freq", "season", "calendar"),
    [
        ("30min", 48, ("day", "week")),
        ("h", 24, ("day", "week", "year")),
        ("D", 7, ("week", "year")),
        ("7D", 52, ("year",)),
        ("MS", 12, ("year",)),
        ("YS-JAN", 1, ()),
        ("us", 1, ()),  # a day has more rows than a season may have
    ],
)
def test_season_and_calendar_come_from_the_step(freq, season, calendar):
    rows = {"30min": 1000, "h": 18000, "D": 800, "YS-JAN": 80}.get(freq, 150)
    times = pd.date_range("2001-01-01", periods=rows, freq=freq)
    frame = pd.DataFrame({"date": times, "y": np.arange(float(rows))})
    table = make_table(frame, Columns(("y",), time="date"))
    assert season_of(table, rows) == season
    assert cycles_of(table, rows) == calendar


def test_season_without_times_is_found_in_the_values():
    table = make_table(hourly(400)[["y"]], Columns(("y",)))
    assert season_of(table, 400) == 24
    assert cycles_of(table, 400) == ()


def test_season_of_years_is_found_in_the_values():
    """No natural cycle is longer than a year; sunspots come and go in 11."""
    times = pd.date_range("1800-01-01", periods=150, freq="YS")
    y = 1.03 ** np.arange(150) * np.resize(np.random.default_rng(0).standard_normal(11), 150)
    table = make_table(pd.DataFrame({"date": times, "y": y}), Columns(("y",), time="date"))
    assert season_of(table, 105) == 11
    assert cycles_of(table, 105) == ()


def test_windows_without_any_past_value_are_left_out():
    frame = hourly(60)
    frame.loc[20:35, "y"] = np.nan
    windows = Windows(make_table(frame, COLUMNS), spec())
    # No future: 20 to 33. No past, of 8 rows: 28 to 36.
    assert set(range(8, 58)) - set(windows.origins) == set(range(20, 37))


@pytest.mark.parametrize(
    ("rows", "cycles"), [(47, ()), (48, ("day",)), (335, ("day",)), (336, ("day", "week"))]
)
def test_a_cycle_is_a_feature_if_it_occurs_twice(rows, cycles):
    table = make_table(hourly(400), COLUMNS)
    assert cycles_of(table, rows) == cycles


@pytest.mark.parametrize(
    ("rows", "horizon", "season", "window"),
    [(12000, 96, 24, 336), (101, 12, 12, 36), (309, 12, 12, 96), (40, 4, 1, 12), (5, 4, 1, 1)],
)
def test_the_window_fits_the_data(rows, horizon, season, window):
    assert window_of(rows, horizon, season) == window
