"""The sections of a forecast report have the numbers of the record, and no others."""

import math
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from longstate import Forecaster, reports
from longstate.models._choice import PARTS
from longstate.reports._forecast_advice import Setting
from longstate.reports._forecast_panel import FEWEST
from longstate.reports._forecast_sections import EXPLAINED
from longstate.train import Example, ForecastEvaluation, SeriesScore
from longstate.train._ahead import Ahead
from longstate.train._bands import Band
from longstate.train._evaluation import Drawn
from longstate.train._residuals import Autocorrelation
from tests.reports.samples import HORIZON, choice, evaluation, one_example, score
from tests.reports.samples import report as full_report
from tests.reports.test_forecast_report import HOSTILE, TAGS, Reader
from tests.train.helpers import QUICK, TINY, hourly, months


def lean(**changes):
    """An evaluation without the pictures that other tests look at."""
    return replace(evaluation(), **{"examples": (), "quantiles": (), **changes})


def report():
    return replace(full_report(), evaluation=lean(), systems={}, history=None)


MONTH = 365.2425 / 12 * 86400


class Tables(HTMLParser):
    """The cells of each table, by the heading before it."""

    def __init__(self, page: str):
        super().__init__()
        self.found: dict[str, list[list[str]]] = {}
        self.heading, self.row, self.inside = "", [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.inside = tag if tag in ("h2", "th", "td") else self.inside
        if tag == "h2":
            self.heading = ""
        if tag == "tr":
            self.row = []
            self.found.setdefault(self.heading, []).append(self.row)
        if tag in ("th", "td"):
            self.row.append("")

    def handle_endtag(self, tag):
        self.inside = "" if tag == self.inside else self.inside

    def handle_data(self, data):
        if self.inside == "h2":
            self.heading += data
        elif self.inside:
            self.row[-1] += data.replace("\u00a0", " ")


def tables(made):
    return Tables(reports.render(made)).found


def text(made):
    return text_of(reports.render(made))


def text_of(page):
    return " ".join(" ".join(Reader(page).text).split())


def by_step(share):
    return tuple(share - 0.01 * i for i in range(HORIZON))


def future(target="temperature"):
    one = one_example(target)
    return replace(one, truth=(math.nan,) * HORIZON, forecasts={"model": one.forecasts["model"]})


def test_scores_are_those_of_the_record():
    head, *rows = tables(report())["Is it better than simple methods?"]
    assert head == ["method", "squared error", "model has", "absolute error"]
    assert [row[0] for row in rows] == [s.method for s in evaluation().scores]
    for row, s in zip(rows, evaluation().scores, strict=True):
        assert (row[1], row[3]) == (f"{s.mse:.4f}", f"{s.mae:.4f}")
    assert [row[2] for row in rows] == ["", "−75.0 %", "−66.7 %", "−50.0 %"]


def test_what_chance_explains_is_said_of_the_methods():
    scores = tuple(replace(s, noise=0.5 if s.method == "ridge" else 0.0) for s in
                   evaluation().scores)  # fmt: skip
    said = "Differs from the model by no more than chance (two standard errors): ridge."
    assert said in text(replace(report(), evaluation=lean(scores=scores)))
    assert "no more than chance" not in text(report())


def test_the_methods_of_the_record_are_explained():
    said = text(report())
    assert (
        "Last value repeats the newest sample; seasonal naive repeats the last season of 24" in said
    )
    assert "the next one, again and again" not in said
    more = lean(scores=(*evaluation().scores, score("map", 0.3), score("<other>", 0.3)))
    said = text(replace(report(), evaluation=more))
    assert "map goes from the newest samples to the next one, again and again." in said
    assert "<other> 0." in said  # a row of the table


def test_errors_and_coverage_by_distance():
    band = Band(0.8, 0.75, 0.5, 50.0, by_step(0.82))
    found = tables(replace(report(), evaluation=lean(bands=(band,))))
    head, *rows = found["Errors by distance into the future"]
    assert head == ["steps ahead", "squared error", "ridge", "model has", "held, of 80 %"]
    model, ridge = evaluation().score("model"), evaluation().score("ridge")
    for row, step in zip(rows, (1, 3, 6, 9, 12), strict=True):
        assert row[0].split()[0] == str(step)
        assert row[1:3] == [f"{s.mse_by_step[step - 1]:.4f}" for s in (model, ridge)]
        assert row[3] == "−50.0 %"
        assert row[4] == f"{100 * band.observed_by_step[step - 1]:.0f} %"
    assert "The largest error is 12 steps (12 h) ahead." in text(report())
    assert len(tables(report())["Errors by distance into the future"][0]) == 4  # no bands


def test_one_step_has_one_row():
    one = tuple(score(method, 0.2, 1) for method in ("model", "ridge"))
    least = lean(scores=one, horizon=1)
    rows = tables(reports.ForecastReport(least))["Errors by distance into the future"]
    assert rows[1:] == [["1", "0.1386", "0.1386", "0.0 %"]]


def test_the_forecast_of_the_future():
    band = Band(0.8, 0.75, 0.5, 50.0)
    made = replace(report(), evaluation=lean(bands=(band,)), ahead=Ahead({"": (future(),)}))
    head, *rows = tables(made)["The forecast"]
    assert head == ["time", "forecast", "quantile 0.1", "quantile 0.9"]
    one, at = future(), (0, 2, 3, 5, 6, 8, 9, 11)
    assert len(rows) == len(at)
    for row, i in zip(rows, at, strict=True):
        assert row[0] == one.times[24 + i].removesuffix(":00")
        expected = (one.forecasts["model"][i], one.quantiles[0.1][i], one.quantiles[0.9][i])
        assert [float(x.replace("−", "-")) for x in row[1:]] == pytest.approx(expected, abs=6e-4)
    said = text(made)
    assert "12 steps (12 h), from 2013-10-20 22:00 to 2013-10-21 09:00" in said
    assert "In the test part 75 % of the true values were in the 80 % band." in said
    assert "The table has 8 of 12 rows." in said
    assert "The future in the data's own units" in said
    assert reports.render(made).count("<svg ") == reports.render(report()).count("<svg ") + 1


def test_several_columns_share_a_table():
    names = ("a", "b", "c", "d", "e")
    made = replace(report(), ahead=Ahead({"": tuple(map(future, names))}))
    head, *rows = tables(made)["The forecast"]
    assert head == ["time", "a", "b", "c", "d"]
    assert len(rows) == 8
    assert "1 further columns are not shown" in text(made)


def test_a_forecast_that_lacks_something_says_what():
    said = text(replace(report(), ahead=Ahead(lacks="a forecast needs 12 rows")))
    assert "There is no forecast of the rows after the data: a forecast needs 12 rows." in said
    assert "The forecast " not in text(report())


def test_the_worst_windows_are_drawn():
    made = replace(evaluation(), worst=(one_example("pressure"),))
    page = reports.render(replace(report(), evaluation=made))
    assert "The worst windows" in page
    assert "pressure, from 2013-10-20 22:00" in page
    assert "The worst windows" not in reports.render(report())


def test_what_is_left_in_the_errors():
    left = Autocorrelation("y", (0.5, 0.3, 0.25, 0.2), (0.1,) * 4)
    made = replace(report(), evaluation=lean(residuals=(left,)))
    assert left.sentence() in text(made)
    assert "Lags 1 to 4; 4 are outside the bound." in text(made)
    assert "Next" in text(made)


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


def test_columns_have_their_errors():
    columns = (SeriesScore("a", 5, 0.4, "ridge", 0.2), SeriesScore("b", 5, 0.1, "ridge", 0.2))
    made = reports.ForecastReport(lean(columns=columns))
    assert tables(made)["Errors by column"][1:] == [
        ["a", "5", "0.4000", "0.2000", "+100.0 %"],
        ["b", "5", "0.1000", "0.2000", "−50.0 %"],
    ]
    assert "On 1 of 2 columns the model is better than ridge, on 1 worse." in text(made)


def test_a_network_without_weight_is_said_beside_its_memory():
    parts = tuple(replace(p, weight=float(p.name == "line")) for p in choice().parts)
    whole = replace(full_report(), evaluation=lean(), history=None)
    alone = replace(whole, choice=replace(choice(), parts=parts))
    said = "The network has no weight in this forecast"
    assert said in text(alone)
    assert said not in text(replace(whole, choice=choice()))


def test_selective_layers_have_a_command():
    setting = Setting("runs/r", "d.csv", "d.csv", selective=("layer 2 (Mamba)",))
    command = "longstate memory runs/r --data d.csv"
    whole = replace(full_report(), evaluation=lean(), history=None)
    for made in (replace(whole, systems={}, setting=setting), replace(whole, setting=setting)):
        said = text(made)
        assert said.count("What the layers remember") == 1
        assert f"only data tell what it remembers: layer 2 (Mamba). {command}" in said
    assert "only data tell" not in text(whole)


def test_the_page_of_a_run_has_the_numbers_of_its_record():
    """Of a single series, through `describe`."""
    frame = hourly()
    fitted = Forecaster(6, window=24, size=TINY, training=QUICK).fit(frame, ["y", "x"])
    record = fitted.evaluate(frame)
    record = replace(record, examples=record.examples[:1], worst=record.worst[:1])
    again = ForecastEvaluation.from_json(record.to_json())
    made = reports.describe(fitted, again, "r", now=frame, files=("runs/r", "d.csv", "d.csv"))
    page = reports.render(made)
    found = Tables(page).found
    for row, one in zip(found["What the forecast is made of"][1:],
                        sorted(fitted.choice.parts, key=lambda p: (-p.weight, p.error)),
                        strict=True):  # fmt: skip
        assert tuple(row) == one.cells()
    forecast = fitted.predict(frame)
    assert [float(row[1]) for row in found["The forecast"][1:]] == pytest.approx(
        forecast["y"].tolist(), abs=6e-3
    )
    held = found["Do the bands hold?"][1]
    assert held[:3] == [f"{100 * x:.0f} %" for x in (
        record.bands[0].level, record.bands[0].observed, record.bands[0].before)]  # fmt: skip
    said = text_of(page)
    assert "longstate predict runs/r d.csv -o forecast.csv" in said
    assert "Errors of y and later ones" in said


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


def test_every_part_of_a_choice_is_explained():
    assert set(PARTS) <= set(EXPLAINED)
