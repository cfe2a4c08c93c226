"""What the report of a forecaster tells of the series of a panel."""

from dataclasses import replace

import pytest

from longstate import Forecaster, reports
from longstate.reports._forecast_advice import Setting
from longstate.reports._forecast_panel import FEWEST
from longstate.train import Example, SeriesScore
from longstate.train._ahead import Ahead
from longstate.train._evaluation import Drawn
from tests.reports.pages import future, lean, report, tables, text, text_of
from tests.reports.samples import one_example
from tests.reports.test_forecast_report import HOSTILE, TAGS, Reader
from tests.train.helpers import QUICK, TINY, months

MONTH = 365.2425 / 12 * 86400


def series(count):
    return tuple(SeriesScore(f"s{i}", 9, 1 / (i + 1), "ridge", 0.1) for i in range(count))


def panel(count, drawn):
    picked = tuple(Drawn(f"s{i}", why, one_example(f"y of s{i}")) for i, why in drawn.items())
    return lean(series=series(count), drawn=picked)


def test_a_panel_speaks_of_series_and_their_units():
    made = replace(
        report(), evaluation=panel(30, {0: "largest error", 10: "random", 29: "smallest error"}),
        interval=MONTH, setting=Setting(series=40),
    )  # fmt: skip
    said = text(made)
    for part in (
        "Forecasting “temperature” of 30 series up to 12 steps (1 year) ahead",
        "Tested on 1,611 windows of 30 of 40 series",
        "in units of each series' own standard deviation",
        "1 is the variance of each series in the training part",
        "The 10 with the largest errors of 30. Errors are in units of the standard deviation of "
        "each series.",
        "How the errors are spread",
        "The largest errors",
        "Random series between",
        "The smallest errors",
        "s10: 0.0909",
    ):
        assert part in said, part
    for part in ("the target's standard deviation", "variance of the target", "at equal distances"):
        assert part not in said
    head, *rows = tables(made)["Errors by series"]
    assert head == ["series", "true values", "squared error", "ridge", "model has"]
    assert rows[0] == ["s0", "9", "1.0000", "0.1000", "+900.0 %"]
    assert len(rows) == 10


def test_few_series_are_all_drawn_and_have_no_histogram():
    drawn = dict.fromkeys(range(FEWEST - 1), "largest error")
    said = text(reports.ForecastReport(panel(FEWEST - 1, drawn)))
    assert f"All {FEWEST - 1} series, the largest errors first" in said
    assert "How the errors are spread" not in said


def test_the_small_drawings_have_the_future_of_their_series():
    drawn = panel(25, {0: "largest error"})
    windows = {"s0": (future("y"),), "s1": (future("y"),)}
    without = reports.render(reports.ForecastReport(drawn))
    made = reports.render(reports.ForecastReport(drawn, ahead=Ahead(windows)))
    assert "and after the dashed line that of the future" in made
    assert "dashed line that of the future" not in without
    assert "<h2>The forecast</h2>" not in made
    assert made.count("<svg ") == without.count("<svg ")
    assert made.count("<path ") > without.count("<path ") + 2  # the forecast, its bands, a border


@pytest.mark.parametrize("name", HOSTILE)
def test_names_of_columns_and_series_are_escaped(name):
    drawn = (Drawn(name, "largest error", one_example(name)),)
    some = (SeriesScore(name, 9, 0.1, "ridge", 0.1),)
    e = lean(series=some, columns=some, drawn=drawn, worst=(one_example(name),))
    setting = Setting(name, name, name, (name,), (), series=3)
    page = reports.render(reports.ForecastReport(e, ahead=Ahead({name: (future(name),)}),
                                                 setting=setting))  # fmt: skip
    reader = Reader(page)
    assert reader.tags <= TAGS
    assert not [a for a in reader.attributes if a[0].startswith("on")]
    known = reports.render(reports.ForecastReport(lean(), setting=replace(setting, known=(name,))))
    assert Reader(known).tags <= TAGS


def test_a_perfect_series_does_not_stop_the_histogram():
    perfect = tuple(replace(one, mse=0.0, best_mse=0.0) for one in series(FEWEST))
    assert "How the errors are spread" in text(reports.ForecastReport(lean(series=perfect)))


def test_the_page_of_a_panel_is_of_modest_size():
    frame = months()
    fitted = Forecaster(4, window=12, layers="mamba", size=TINY, training=QUICK).fit(frame)
    made = reports.describe(fitted, fitted.evaluate(frame), "r", now=frame)
    page = reports.render(made)
    assert len(page) < 1_000_000
    assert page.count('<div class="tiles">') == 1
    assert isinstance(made.ahead.windows["s0"][0], Example)
    assert "up to 4 steps (4 months) ahead" in text_of(page)
    assert made.setting.selective == ("layer 1 (Mamba)",)
    assert made.setting.series == 6
