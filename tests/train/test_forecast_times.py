"""A forecaster from end to end: times, bounds, transforms, and values that overflow."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate.errors import InputError
from longstate.train import _checkpoint as checkpoint
from longstate.train._forecast_frame import forecast_csv
from tests.train.helpers import QUICK, TINY


def forecaster(horizon=4, window=20):
    return Forecaster(horizon, window=window, size=TINY, training=QUICK)


def series(times, seed=0):
    draw = np.random.default_rng(seed)
    n = len(times)
    y = 20 + 3 * np.sin(np.arange(n) / 4) + 0.1 * draw.standard_normal(n)
    return pd.DataFrame({"date": times, "y": y})


def counts(rows=400):
    """Mostly small, sometimes large, never below zero."""
    draw = np.random.default_rng(0)
    rate = np.exp(1.2 * np.sin(np.arange(rows) / 6) - 0.5)
    times = pd.date_range("2024-01-01", periods=rows, freq="D")
    return pd.DataFrame({"date": times, "y": draw.poisson(rate).astype(float)})


def test_output_keeps_zone_offset_and_format_of_training(tmp_path):
    times = pd.date_range("2023-06-01", periods=204, freq="D", tz="Europe/Berlin")
    model = forecaster().fit(series(times[:200].astype(str)), "y", out=tmp_path)
    assert "fit the time zone Europe/Berlin" in model.facts["notes"][0]
    model = Forecaster.load(tmp_path)
    forecast = model.predict(series(times[160:200].astype(str)))
    assert list(forecast["date"]) == list(times[200:])
    written = forecast_csv(forecast, model.model.spec).splitlines()
    assert written[1].startswith("2023-12-18 00:00:00+01:00,")
    assert model.evaluate(series(times[:200])).first == str(times[160])


def test_day_first_dates_are_kept_after_loading(tmp_path):
    times = pd.date_range("2024-01-01", periods=203, freq="D")
    forecaster().fit(series(times[:200].strftime("%d/%m/%Y")), "y", out=tmp_path)
    model = Forecaster.load(tmp_path)
    short = series(times[60:90].strftime("%d/%m/%Y"))[:-18]  # 01/03 to 12/03: months, too
    forecast = forecaster_window(model, short)
    assert list(forecast["date"]) == list(pd.date_range("2024-03-13", periods=4))


def forecaster_window(model, short):
    """`predict` on the rows alone, as far as the window lets it: pad with gaps before."""
    first = pd.to_datetime(short["date"].iloc[0], format="%d/%m/%Y")
    before = pd.date_range(end=first, periods=11, freq="D")[:-1].strftime("%d/%m/%Y")
    padding = pd.DataFrame({"date": before, "y": 20.0})
    return model.predict(pd.concat([padding, short], ignore_index=True))


def test_three_months_are_enough_where_the_step_is_known():
    times = pd.date_range("2001-01-01", periods=103, freq="MS")
    model = forecaster(3, window=3).fit(series(times[:100]), "y")
    forecast = model.predict(series(times[97:100]))
    assert list(forecast["date"]) == list(times[100:])


@pytest.mark.parametrize("kind", ["int", "unix s", "period", "number"])
def test_times_come_back_as_they_were(kind):
    times = pd.date_range("1700-01-01", periods=204, freq="YS")
    whole = {
        "int": np.arange(1700, 1904),
        "unix s": 1_700_000_000 + 600 * np.arange(204),
        "period": pd.Series(times.to_period("Y")),
        "number": 5 * np.arange(204),
    }[kind]
    model = forecaster().fit(series(whole[:200]), "y", time="date")
    forecast = model.predict(series(whole[:200]))
    assert list(forecast["date"]) == list(whole[200:])
    assert model.evaluate(series(whole[:200])).windows == 40 - 3


def test_leading_empty_rows_keep_the_row_numbers():
    frame = series(np.arange(300))[["y"]]
    frame.loc[:49, "y"] = np.nan
    model = forecaster().fit(frame, "y")
    assert list(model.predict(frame)["row"]) == [300, 301, 302, 303]
    assert model.evaluate(frame).last == "299"


def test_a_series_an_array_and_numbered_columns():
    values = series(np.arange(200))["y"]
    for data, target in ((values, None), (values.to_numpy(), None), (values.to_frame(7), 7)):
        model = forecaster().fit(data, target)
        assert list(model.predict(data)["row"]) == [200, 201, 202, 203]
        assert "rows are taken as evenly spaced" in model.facts["notes"][0]


def test_notes_are_returned_by_predict_and_evaluate():
    frame = series(pd.date_range("2024-01-01", periods=300, freq="h")).drop(index=[100, 290])
    model = forecaster().fit(frame, "y")
    notes = ["2 missing rows (one every hour) were added as gaps."]
    assert model.facts["notes"][:1] == notes
    assert model.predict(frame).attrs["notes"][:1] == notes
    assert list(model.evaluate(frame).notes[:1]) == notes


def test_a_window_with_few_values_is_noted_and_an_empty_one_refused():
    times = pd.date_range("2024-01-01", periods=340, freq="h")
    frame = series(times)
    model = forecaster().fit(frame[:300], "y")
    with pytest.warns(UserWarning, match="Of the 20 rows that the forecast reads, 14 are missing"):
        forecast = model.predict(frame.drop(index=range(319, 334)))
    assert forecast.attrs["notes"][-1].endswith("14 are missing.")
    with pytest.raises(InputError, match="19 are missing: only the last was observed"):
        model.predict(frame.drop(index=range(310, 339)))


@pytest.mark.parametrize("transform", ["none", "log1p", "box-cox", "auto"])
def test_counts_are_never_below_zero(transform, tmp_path):
    frame = counts()
    model = forecaster().fit(frame, "y", lower=0, upper=9, transform=transform, out=tmp_path)
    loaded = Forecaster.load(tmp_path)
    free = forecaster().fit(frame, "y", lower=-np.inf)
    low, high = [], []
    for end in range(60, 400, 5):
        for m, found in ((loaded, high), (free, low)):
            values = m.predict(frame[:end]).drop(columns="date").to_numpy()
            found.append((values.min(), values.max()))
    assert min(x for x, _ in low) < 0  # without bounds they are
    assert min(x for x, _ in high) >= 0
    assert max(x for _, x in high) <= 9
    evaluation = loaded.evaluate(frame)
    assert evaluation.to_json() == model.evaluate(frame).to_json()
    # Scores stay in the data's own units, whatever the transform.
    assert_close(evaluation.score("last value").mse, free.evaluate(frame).score("last value").mse)


NATURAL = {
    "counts": ([3, 0, 5, 1, 2], {}, 0, "whole numbers from 0"),
    "counts above 0": ([3, 8, 5, 1, 2], {}, 0, "whole numbers from 0"),
    "with a gap": ([3, 0, np.nan, 1, 2], {}, 0, "whole numbers from 0"),
    "rain": ([0, 0, 2.5, 0, 0.3], {}, 0, "never below 0 and often 0"),
    "not wanted": ([3, 0, 5, 1, 2], {"lower": -np.inf}, None, None),
    "another": ([3, 0, 5, 1, 2], {"lower": -1}, -1, None),
    "an upper bound": ([3, 0, 5, 1, 2], {"upper": 9}, 0, "whole numbers from 0"),
    "below 0": ([3, 0, -5, 1, 2], {}, None, None),
    "never 0": ([3.5, 1, 5, 1, 2], {}, None, None),
}


@pytest.mark.parametrize("case", NATURAL)
def test_counts_have_a_bound_of_their_own(case):
    values, given, lower, said = NATURAL[case]
    times = pd.date_range("2024-01-01", periods=200, freq="D")
    draw = np.random.default_rng(0)
    frame = pd.DataFrame({"date": times, "y": draw.permutation(values * 40)})
    model = forecaster().fit(frame, "y", **given)
    assert model.model.spec.lower == lower
    notes = [note for note in model.facts["notes"] if "no forecast is below 0" in note]
    assert len(notes) == (said is not None)
    if said is not None:
        assert notes[0].startswith(f"The targets are {said}")
        again = model.backtest(frame, refit=True, origins=2)  # takes the bounds, and asks nobody
        assert again.forecasts["step"].eq(1).sum() == 2
        bands = model.predict(frame).drop(columns="date")
        assert bands.to_numpy().min() >= 0


def test_parts_are_judged_within_the_bounds():
    """A line that is often below 0 is better than it looks without the bound."""
    times = pd.date_range("2024-01-01", periods=400, freq="h")
    y = np.maximum(0, np.round(10 * np.sin(2 * np.pi * np.arange(400) / 24)))
    frame = pd.DataFrame({"date": times, "y": y + (np.arange(400) % 7 == 0)})
    bound, free = (forecaster().fit(frame, "y", lower=x) for x in (None, -np.inf))
    error = {m: {p.name: p.error for p in m.choice.parts} for m in (bound, free)}
    assert error[bound]["ridge"] < 0.98 * error[free]["ridge"]
    ridge = bound.evaluate(frame).score("ridge").mse
    assert ridge < free.evaluate(frame).score("ridge").mse


def test_the_transform_is_the_best_on_the_validation_part():
    draw = np.random.default_rng(0)
    times = pd.date_range("2024-01-01", periods=400, freq="D")
    # A straight line in its logarithm; a window of 20 rows holds too few harmonics of itself.
    log = 2 * np.sin(np.arange(400) / 7) + 0.02 * draw.standard_normal(400)
    frame = pd.DataFrame({"date": times, "y": np.exp(log)})
    model = forecaster().fit(frame, "y", lower=0, transform="auto")
    assert model.model.spec.transform != "none"
    errors = model.evaluate(frame), forecaster().fit(frame, "y", lower=0).evaluate(frame)
    assert errors[0].score("line").mse < errors[1].score("line").mse
    plain = series(times)
    assert forecaster().fit(plain, "y", transform="auto").model.spec.transform in (
        "none",
        "box-cox",
    )


WRONG = {
    "below": ({"lower": 1}, r"lower is 1, but column 'y' is 0 at 2024-01-0"),
    "above": ({"upper": 2}, r"upper is 2, but column 'y' is 3 at 2024"),
    "order": ({"lower": 3, "upper": 3}, "lower must be below upper; got 3 and 3"),
    "nan": ({"lower": float("nan")}, "lower must be a number; got nan"),
    "transform": ({"transform": "log"}, "must be one of none, log1p, box-cox, auto; got 'log'"),
    "step": ({"step": "daily"}, "the step 'daily' is not known; give a pandas offset"),
    "zone": ({"zone": "Mars/Base"}, "the time zone 'Mars/Base' is not known"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_fit_refuses(case):
    options, message = WRONG[case]
    with pytest.raises(InputError, match=message) as error:
        forecaster().fit(counts(), "y", **options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("row", [3, 290, 390])
@pytest.mark.parametrize("value", [1e308, 1e101, -1e60, 1e35])
def test_values_that_overflow_are_refused(row, value):
    frame = series(pd.date_range("2024-01-01", periods=400, freq="h"))
    frame.loc[row, "y"] = value
    with pytest.raises(InputError, match=r"column 'y' is (too large|-?1e\+\d\d at 2024-01-)"):
        forecaster().fit(frame, "y").evaluate(frame)
    model = forecaster().fit(series(frame["date"]), "y")
    with pytest.raises(InputError, match="column 'y' is"):
        model.evaluate(frame.assign(y=np.roll(frame["y"], 390 - row)))


def test_a_forecast_that_is_not_finite_is_refused():
    frame = series(pd.date_range("2024-01-01", periods=400, freq="h"))
    model = forecaster().fit(frame, "y")
    frame.loc[399, "y"] = 1e90
    with pytest.raises(InputError, match=r"not finite; the largest number in its input is 1e\+90"):
        model.predict(frame)


@pytest.mark.parametrize("name", ["encode.weight", "line.weight", "scale.std"])
def test_weights_that_are_not_finite_are_refused(name, tmp_path):
    frame = series(pd.date_range("2024-01-01", periods=400, freq="h"))
    forecaster().fit(frame, "y", out=tmp_path)
    path = tmp_path / "model.safetensors"
    tensors, facts = checkpoint.load(path, "forecaster")
    tensors[name].view(-1)[0] = torch.nan
    checkpoint.save(path, "forecaster", tensors, facts)
    with pytest.raises(InputError, match=f"cannot be used: its {name} holds numbers that are not"):
        Forecaster.load(tmp_path)
