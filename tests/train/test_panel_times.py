"""Calendars of panels: months, quarters, working days, zones, missing steps, short series; and the
same series in use."""

import numpy as np
import pandas as pd
import pytest

from longstate import Forecaster
from longstate.errors import InputError
from longstate.train._columns import Columns
from longstate.train._panel_table import make_panel
from longstate.train._time_step import Timing
from tests.train.helpers import QUICK, TINY

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")
LONG = Columns(("y",), time="ds", id="unique_id")


def panel(**times):
    """One series at each of these times."""
    draw = np.random.default_rng(0)
    parts = [
        pd.DataFrame({"unique_id": name, "ds": at, "y": 5 + draw.standard_normal(len(at))})
        for name, at in times.items()
    ]
    return pd.concat(parts, ignore_index=True)


def months(step="MS"):
    times = pd.date_range("2001-01-01", periods=81, freq=step)
    return panel(a=times[:60], b=times[1:], c=times[40:70])


def autumn():
    """Local times without a zone, of which one hour comes twice; ordered by time."""
    times = pd.date_range("2023-10-26", periods=120, freq="h", tz="Europe/Berlin")
    whole = panel(a=times, b=times[20:], c=times[10:60])  # c ends before that hour
    return whole.sort_values(["ds", "unique_id"]).assign(ds=lambda d: d["ds"].dt.tz_localize(None))


def holidays():
    """A working day without a row in one series is a gap, in all of them a holiday."""
    days = pd.bdate_range("2001-01-01", periods=110)
    return panel(a=days.delete([20, 40]), b=days.delete([20, 50]), c=days[60:])


def holed():
    whole = months()
    return whole.drop(index=np.random.default_rng(1).choice(len(whole), 20, replace=False))


def short():
    times = pd.date_range("2001-01-01", periods=81, freq="MS")
    return pd.concat([months(), panel(short=times[70:73], flat=times[60:72]).assign(y=3.0)])


def text():
    return months().assign(ds=lambda d: d["ds"].dt.strftime("%d.%m.%Y"))


KINDS = {
    "month ends": lambda: months("ME"),
    "last working days": lambda: months("BME"),
    "quarters": lambda: months("QE"),
    "autumn": autumn,
    "holidays": holidays,
    "holed": holed,
    "short": short,
    "text": text,
}


@pytest.mark.parametrize("kind", KINDS)
def test_panels_in_use(kind):
    """An origin is the data up to it; updates are the whole data; later rows follow the step."""
    frame = KINDS[kind]().reset_index(drop=True)
    zone = "Europe/Berlin" if kind == "autumn" else None
    made = Forecaster(3, window=8, size=TINY, training=QUICK).fit(
        frame, "y", id="unique_id", zone=zone
    )
    whole = made.predict(frame)
    assert np.isfinite(whole[["y", "y_q0.1", "y_q0.9"]]).all().all()
    assert set(whole["unique_id"]) == set(frame["unique_id"])
    stamps = make_panel(frame, LONG, calendar=made.model.spec.calendar)
    at = pd.Series(stamps.calendar.at(stamps.panel.base + stamps.panel.position))
    origin = at.quantile(0.9, interpolation="nearest")
    times = pd.to_datetime(frame["ds"], format="%d.%m.%Y") if kind == "text" else frame["ds"]
    past = times <= origin.tz_localize(None)
    if kind != "autumn":  # where only the order tells the second hour from the first
        found = made.predict(frame, origin=origin)
        pd.testing.assert_frame_equal(found, made.predict(frame[past]), check_exact=True)
    made._recent = None
    made.update(frame[past]).update(frame[~past])
    keys = ["unique_id", "ds"]
    again, whole = (f.sort_values(keys, ignore_index=True) for f in (made.predict(), whole))
    pd.testing.assert_frame_equal(again, whole, rtol=1e-5)
    assert made.predict(frame, horizon=7).groupby("unique_id").size().eq(7).all()
    assert np.isfinite(made.backtest(frame, origins=2, refit=True).forecasts["y"]).all()


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("MS", "month"),
        ("ME", "month, at its end"),
        ("BMS", "month, on its first working day"),
        ("QS-FEB", "quarter"),
        ("YE", "year, at its end"),
        ("W-WED", "week"),
        ("WOM-3FRI", "month, on one weekday"),
        ("30min", "30 minutes"),
    ],
)
def test_steps_of_panels(step, words):
    table = make_panel(months(step), LONG)
    assert table.calendar.words == words
    assert (np.bincount(table.panel.of(np.arange(table.rows))) == [60, 80, 30]).all()
    assert table.observed.all()


@pytest.mark.parametrize("form", ["%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%m.%Y", "%d-%b-%y"])
@pytest.mark.parametrize("shuffled", [False, True])
def test_the_order_of_day_and_month_is_that_of_even_steps(form, shuffled):
    """Also where the times of one series begin before those of the series above it."""
    frame = months()
    frame["ds"] = frame["ds"].dt.strftime(form)
    table = make_panel(frame.sample(frac=1, random_state=0) if shuffled else frame, LONG)
    assert (table.calendar.words, table.calendar.form) == ("month", form)


def test_an_hour_that_comes_twice():
    frame = autumn()
    table = make_panel(frame, LONG, timing=Timing(zone="Europe/Berlin"))
    assert table.observed.all()
    assert len(table.target) == 120 + 100 + 50
    with pytest.raises(InputError, match=r"two rows at 2023-10-29 02:00:00.*zone \(--zone\) names"):
        make_panel(frame, LONG)
    days = panel(a=pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-02"]))
    with pytest.raises(InputError, match=r"keep one of them$"):
        make_panel(days, LONG)


def test_a_fitted_forecaster_takes_a_series_with_every_second_step():
    """Training refuses it; later it has gaps."""
    frame = months()
    sparse = frame[(frame["unique_id"] != "c") | (frame.index % 2 == 0)]
    with pytest.raises(InputError, match="series 'c' has no two rows one step"):
        make_panel(sparse, LONG)
    made = make_panel(sparse, LONG, calendar=make_panel(frame, LONG).calendar)
    assert (~made.observed).sum() == 14


@pytest.mark.parametrize(("later", "said"), [(0, False), (40, True), (39, False)])
def test_series_that_follow_each_other_may_be_the_parts_of_one(later, said):
    first = pd.date_range("2021-01-01", periods=40)
    notes = make_panel(panel(b=first, a=first + pd.Timedelta(days=later)), LONG).notes
    assert any("No two series have a time in common" in note for note in notes) == said
