"""The sections of a forecast report have the numbers of the record, and no others."""

from dataclasses import replace

import pytest

from longstate import Forecaster, reports
from longstate.models._choice import PARTS
from longstate.reports._forecast_advice import Setting
from longstate.reports._forecast_sections import EXPLAINED
from longstate.train import ForecastEvaluation, SeriesScore
from longstate.train._ahead import Ahead
from longstate.train._bands import Band
from longstate.train._residuals import Autocorrelation
from tests.reports.pages import Tables, by_step, future, lean, report, tables, text, text_of
from tests.reports.samples import choice, evaluation, one_example, score
from tests.reports.samples import report as full_report
from tests.train.helpers import QUICK, TINY, hourly


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


def test_every_part_of_a_choice_is_explained():
    assert set(PARTS) <= set(EXPLAINED)
