"""Durations, times and axes of times in a report."""

from dataclasses import replace

import numpy as np

from longstate.reports._forecast_figures import example
from longstate.reports._forecast_panel import tile
from longstate.reports._units import duration, marks, short_time, steps
from longstate.train._evaluation import Drawn
from tests.reports.samples import one_example


def test_durations():
    assert [duration(s) for s in (1, 90, 3600, 5400, 86400, 172800, 604800, 1209600, 63113904)] == [
        "1 s", "90 s", "1 h", "90 min", "1 day", "2 days", "7 days", "2 weeks", "2 years",
    ]  # fmt: skip
    assert steps(1, None) == "1 step"
    assert steps(48, 3600.0) == "48 steps (2 days)"
    month = 365.2425 / 12 * 86400
    assert [duration(n * month) for n in (1, 6, 18, 24)] == [
        "1 month", "6 months", "18 months", "2 years",
    ]  # fmt: skip
    assert duration(1461 * 3600) == "60.9 days"  # not quite two months
    assert short_time("2024-01-01 00:00:00") == "2024-01-01 00:00"
    assert short_time("2024-01-01") == "2024-01-01"  # as an evaluation writes times of days
    assert short_time("2024-01-01T06:00:30.000") == "2024-01-01 06:00:30"
    assert marks(0.5, 200, 3600.0) == [(1, "1 h"), (6, "6 h"), (24, "1 day"), (168, "1 week")]
    assert marks(1, 100, None) == []


def test_times_of_any_span_have_an_axis():
    """Matplotlib warns where it finds no interval between its ticks, and a warning is an error."""
    one, begin = one_example(), np.datetime64("2017-01-01")
    steps = np.geomspace(1, 1e4, 30).astype(int)  # hours
    for i, step in enumerate(steps):
        times = begin + np.arange(len(one.times)) * np.timedelta64(int(step), "h")
        dated = replace(one, times=tuple(str(t).replace("T", " ") for t in times))
        assert "<svg" in example(dated, None)
        assert i % 3 or "<svg" in tile(Drawn("s", "random", dated), None)
