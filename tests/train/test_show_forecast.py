"""A fitted forecaster as a text and as a picture."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from longstate import Forecaster
from longstate.errors import InputError
from tests.train.helpers import QUICK, TINY, hourly, months

pytestmark = pytest.mark.filterwarnings("ignore")  # remarks on short trainings


def axes():
    return Figure().add_subplot()


def lines(ax):
    return {line.get_label(): line for line in ax.lines}


@pytest.fixture(scope="module")
def one():
    frame = hourly()[["date", "y", "x"]]
    frame.loc[390, "y"] = np.nan
    made = Forecaster(6, window=24, size=TINY, training=QUICK, quantiles=(0.05, 0.25, 0.75, 0.95))
    return made.fit(frame, ["y", "x"]), frame


@pytest.fixture(scope="module")
def panel():
    frame = months()
    return Forecaster(4, window=12, size=TINY, training=QUICK).fit(frame), frame


def test_a_summary_tells_choice_errors_coverage_and_training(one):
    made, frame = one
    text = made.summary(frame)
    assert all(f"\n  {part.name}  " in text for part in made.choice.parts)
    assert made.choice.sentences()[0] in text
    assert "window, horizon, season  24, 6, 24 rows" in text
    last = frame["date"][made.facts["seen_rows"] - 1]
    assert f"has seen                 {made.facts['seen_rows']} rows, up to {last}" in text
    evaluation = made.evaluate(frame)
    assert f"{evaluation.windows} unseen windows, {evaluation.first} to {evaluation.last}" in text
    assert f"{evaluation.scores[0].mse:.4f}" in text
    assert all(band.words() in text for band in evaluation.bands)
    short = made.summary()
    assert "summary(frame)" in short
    assert "unseen windows" not in short
    table = text[text.index("What the forecast is made of") :].splitlines()[1:8]
    assert len({len(line) for line in table}) == 1


def test_a_picture_has_history_forecast_and_bands(one):
    made, frame = one
    ax = made.plot(frame, rows=20, ax=axes())
    forecast, found = made.predict(frame), lines(ax)
    times, values = found["forecast"].get_data(orig=True)
    assert list(values) == list(forecast["y"])
    assert list(pd.DatetimeIndex(times)) == list(forecast["date"])
    times, values = found["history"].get_data(orig=True)
    np.testing.assert_array_equal(values, frame["y"].to_numpy()[-20:])
    assert list(pd.DatetimeIndex(times)) == list(pd.to_datetime(frame["date"])[-20:])
    assert [band.get_label() for band in ax.collections] == ["90 %", "50 %"]
    low = ax.collections[0].get_paths()[0].vertices[:, 1].min()
    assert low == pytest.approx(forecast["y_q0.05"].min())
    assert ax.get_title("right") == "y"
    assert ax.get_xlabel() == "date"


def test_the_other_target_and_the_rows_that_are_kept(one):
    made, frame = one
    ax = made.plot(target="x", ax=axes())
    values = lines(ax)["history"].get_data(orig=True)[1]
    np.testing.assert_array_equal(values, frame["x"].to_numpy()[-24:])
    assert list(lines(ax)["forecast"].get_data(orig=True)[1]) == list(made.predict()["x"])


def test_a_forecast_from_an_origin_is_drawn_over_what_came(one):
    made, frame = one
    forecast = made.predict(frame, origin=frame["date"][300], horizon=10)
    found = lines(made.plot(frame, forecast=forecast, rows=5, ax=axes()))
    np.testing.assert_array_equal(
        found["history"].get_data(orig=True)[1], frame["y"].to_numpy()[296:311]
    )
    assert len(found["forecast"].get_data(orig=True)[1]) == 10


def test_a_series_of_a_panel(panel):
    made, frame = panel
    forecast = made.predict(frame)
    for given, name in ((None, "s0"), ("s2", "s2")):
        ax = made.plot(frame, series=given, rows=99, ax=axes())
        mine = forecast[forecast["unique_id"] == name]
        own = frame[frame["unique_id"] == name]
        times, values = lines(ax)["history"].get_data(orig=True)
        np.testing.assert_allclose(values, own["y"])
        assert list(pd.DatetimeIndex(times)) == list(own["ds"])
        np.testing.assert_allclose(lines(ax)["forecast"].get_data(orig=True)[1], mine["y"])
        assert ax.get_title("right") == f"y, {name}"


def test_rows_without_times_and_a_horizon_of_one():
    frame = hourly()[["y"]]
    made = Forecaster(1, window=24, size=TINY, training=QUICK).fit(frame)
    ax = made.plot(frame, rows=3)
    assert list(lines(ax)["history"].get_xdata()) == [397, 398, 399]
    assert list(lines(ax)["forecast"].get_xdata()) == [400]
    assert lines(ax)["forecast"].get_marker() == "."
    assert ax.get_xlabel() == "row"
    assert len(ax.collections) == 1
    import matplotlib.pyplot as plt

    plt.close(ax.figure)


def test_what_cannot_be_drawn_is_one_sentence(one, panel):
    made, frame = one
    many, long = panel
    for call, message in (
        (lambda: made.plot(frame, target="z", ax=axes()), "there is no target 'z'; "),
        (lambda: made.plot(frame, series="s0", ax=axes()), "series is for a forecaster of a panel"),
        (lambda: made.plot(frame, rows=0, ax=axes()), "rows must be"),
        (lambda: many.plot(long, series="s9", ax=axes()), "no forecast of a series 's9'; "),
        (lambda: Forecaster(4).summary(), "not fitted yet"),
        (lambda: Forecaster(4).plot(frame), "not fitted yet"),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_days_have_no_hours():
    times = pd.date_range("2024-01-01", periods=90, freq="D")
    frame = pd.DataFrame({"date": times, "y": np.sin(np.arange(90) / 3)})
    made = Forecaster(3, window=14, size=TINY, training=QUICK).fit(frame)
    assert made.facts["seen_until"] == "2024-03-12"
    evaluation = made.evaluate(frame)
    assert (evaluation.first, evaluation.last) == ("2024-03-13", "2024-03-30")
    assert "00:00" not in made.summary(frame)
    with pytest.raises(InputError, match=r"ends at 2024-02-29; .* rows after 2024-03-12, the last"):
        made.evaluate(frame[:60])
