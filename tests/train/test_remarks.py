"""Values unlike those of training, columns without values, and bounds that data does not keep: one
remark each, in fit, predict, evaluate and stream."""

import numpy as np
import pandas as pd
import pytest

from longstate import Forecaster
from longstate.errors import InputError
from longstate.stream import ForecastStream
from tests.stream.test_forecast import rows
from tests.train.helpers import QUICK, TINY, hourly

ROWS, WINDOW = 300, 24


@pytest.fixture(scope="module")
def frame():
    return hourly(ROWS)[["date", "y", "x"]]


@pytest.fixture(scope="module")
def model(frame):
    forecaster = Forecaster(4, window=WINDOW, size=TINY, training=QUICK)
    return forecaster.fit(frame, "y", covariates="x", lower=-50, upper=1e9)


def stream_notes(model, frame):
    """The notes of the stream, one for each forecast."""
    stream = ForecastStream(model.model)
    pushed = [stream.push(row) for row in rows(frame)]
    return [p.note for p in pushed if p is not None]


@pytest.mark.parametrize("name", ["y", "x"])
@pytest.mark.parametrize("row", [3, 290])
def test_a_value_unlike_all_of_training_is_remarked_on_once(model, frame, name, row):
    odd = frame.copy()
    odd.loc[row, name] = 3e7
    part = frame[name][:210]
    said = (
        f"Column {name!r} is 3e+07 at {frame['date'][row]}, but {part.mean():.4g} +- "
        f"{part.std(ddof=0):.4g} in training; if that is wrong, correct it or leave it empty."
    )
    with pytest.warns(UserWarning, match="is 3e"):
        assert model.predict(odd).attrs["notes"] == [said]
    assert list(model.evaluate(odd).notes) == [said]
    notes = stream_notes(model, odd)
    assert [note for note in notes if note is not None] == [said]
    assert notes.index(said) == max(0, row - WINDOW + 1)


def test_values_within_a_hundred_deviations_need_no_remark(model, frame):
    odd = frame.copy()
    middle, unit = frame["y"][:210].mean(), frame["y"][:210].std(ddof=0)
    odd.loc[290, "y"] = middle + 99 * unit
    assert model.predict(odd).attrs["notes"] == []
    odd.loc[[288, 290, 292], "y"] = middle + 101 * unit
    with pytest.warns(UserWarning, match=r"at 2024-01-13 00:00:00 \(and 2 more rows are alike\)"):
        model.predict(odd)


def test_a_value_beyond_a_bound_is_remarked_on(model, frame):
    odd = frame.copy()
    odd.loc[290, "y"] = -51
    said = (
        "Column 'y' is -51 at 2024-01-13 02:00:00, but lower is -50; if that is wrong, correct it "
        "or leave it empty."
    )
    with pytest.warns(UserWarning, match="lower is -50"):
        assert model.predict(odd).attrs["notes"] == [said]
    assert list(model.evaluate(odd).notes) == [said]
    assert stream_notes(model, odd)[-10] == said


def test_fit_remarks_on_strange_rows_of_the_test_part(frame):
    odd = frame.copy()
    odd.loc[290, "y"] = 1e9
    made = Forecaster(4, window=WINDOW, size=TINY, training=QUICK).fit(odd, "y")
    assert made.facts["notes"][-1].startswith("Column 'y' is 1e+09 at 2024-01-13 02:00:00, but 2")


@pytest.mark.parametrize("empty", [23, 24, 60])
@pytest.mark.filterwarnings("ignore")
def test_a_covariate_without_a_value_in_the_window_is_remarked_on(model, frame, empty):
    odd = frame.copy()
    odd.loc[ROWS - empty :, "x"] = np.nan
    said = (
        "Column 'x' has no value in the 24 rows that the forecast reads; its last one stands for "
        "them."
    )
    assert model.predict(odd).attrs["notes"] == ([said] if empty >= WINDOW else [])


def test_a_stream_counts_rows_without_a_value_over_a_restart(model, frame, tmp_path):
    odd = frame.copy()
    odd.loc[100:, "x"] = np.nan
    whole = stream_notes(model, odd)
    first, second = ForecastStream(model.model), ForecastStream(model.model)
    pieces = rows(odd)
    before = [first.push(row) for row in pieces[:110]]
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    notes = [p.note for p in [*before, *map(second.push, pieces[110:])] if p is not None]
    assert notes == whole
    assert [note is not None for note in notes].index(True) == 100  # row 123, of 100 to 123


def test_one_of_two_targets_without_a_value(frame):
    two = frame.assign(z=frame["y"].to_numpy()[::-1])
    made = Forecaster(4, window=WINDOW, size=TINY, training=QUICK).fit(two, ["y", "z"])
    two.loc[270:, "z"] = np.nan
    with pytest.warns(UserWarning, match="Column 'z' has no value in the 24 rows"):
        assert len(made.predict(two)) == 4
    assert "Column 'z' has no value" in stream_notes(made, two)[-1]


NO_NUMBERS = {
    "complex": (np.exp(1j * np.arange(80.0)), "holds complex numbers"),
    "times": (pd.date_range("2024", periods=80), "holds times; numbers were expected"),
    "zone": (pd.date_range("2024", periods=80, tz="Asia/Tokyo"), "holds times; numbers"),
    "lengths": (pd.to_timedelta(np.arange(80), "h"), "holds lengths of time; numbers"),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", NO_NUMBERS)
def test_values_that_are_no_numbers_are_refused(case):
    values, message = NO_NUMBERS[case]
    with pytest.raises(InputError, match=message):
        Forecaster(4, size=TINY, training=QUICK).fit(pd.DataFrame({"y": values}), "y")


@pytest.mark.parametrize("bound", ["0", [0], 1j])
def test_bounds_are_numbers(bound, frame):
    with pytest.raises(InputError, match="lower must be a number; got"):
        Forecaster(4, size=TINY, training=QUICK).fit(frame, "y", lower=bound)


@pytest.mark.filterwarnings("error")
def test_bounds_of_numpy_are_saved(frame, tmp_path):
    made = Forecaster(4, window=WINDOW, size=TINY, training=QUICK)
    made.fit(frame, "y", lower=np.int64(-3), upper=np.float32(1e6)).save(tmp_path / "model")
    spec = Forecaster.load(tmp_path / "model").model.spec
    assert (spec.lower, spec.upper) == (-3.0, 1e6)
