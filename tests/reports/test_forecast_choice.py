"""What the report and its headline say of the chosen forecast and of its bands."""

from dataclasses import replace

from longstate import reports
from longstate.train._chosen import Part
from longstate.train._evaluation import Band
from tests.reports.samples import choice, evaluation, report
from tests.reports.test_forecast_report import read


def test_the_choice_is_shown():
    _page, reader = read(replace(report(), choice=choice()))
    text = " ".join(" ".join(reader.text).split())
    for part in (
        "What the forecast is made of",
        "network 0.60 0.1200",
        "smoothing 0.25 0.3000 0.3100",
        "The forecast is 0.60 network + 0.25 smoothing + 0.15 line",
        "The next best is network (0.1200).",
        "The network lowers the squared error by 0.07, with a standard error of 0.02.",
        "80 windows, 7.5 of them without a common row, in 5 rolling folds.",
        "The bands rest on windows that are worth only 8.0 independent ones",
        "For forecasts ridge and line were fitted again to all rows",
    ):
        assert part in text, part
    assert "What the forecast is made of" not in reports.render(report())


def test_the_words_of_a_choice():
    parts = (Part("line", 1.0, 0.2, 0.2), Part("ridge", 0.0, 0.15, 0.25), Part("network", 0.0, 0.3))
    alone = replace(choice(), parts=parts)
    assert alone.words() == "line"
    assert alone.sentences()[0] == "The forecast is line (squared error 0.1900 on all folds)."
    assert alone.sentences()[1] == "The next best is ridge (0.2500)."
    once = replace(alone, folds=1)  # then validation decides
    assert once.sentences()[:2] == (
        "The forecast is line (squared error 0.1000 on validation).",
        "The next best is ridge (0.1500).",
    )
    assert replace(once, parts=parts[::2]).runner_up.name == "network"
    assert "not more than chance" in " ".join(alone.sentences())
    same = replace(alone, gain=0.0, noise=0.0)
    assert "it adds nothing to the simple methods" in " ".join(same.sentences())
    unknown = replace(alone, gain=None, noise=None, refitted=False, folds=1, calibrated=30.0)
    said = " ".join(unknown.sentences())
    assert "too few windows to tell" in said
    assert "Forecasts use what was fitted to the training part." in said
    assert "folds" not in said
    assert "bands" not in said


def test_bands_that_hold_too_little_are_remarked():
    bands = (Band(0.8, 0.71, 0.5, 200.0), Band(0.5, 0.53, 0.4, 200.0))
    found = replace(evaluation(), bands=bands)
    _page, reader = read(reports.ForecastReport(found))
    text = " ".join(" ".join(reader.text).split())
    assert "80 % 71 % 50 % 74 % to 86 %" in text
    assert "50 % 53 % 40 % 43 % to 57 %" in text
    assert "The 80 % bands are too narrow: they held 71 % of the true values" in text
    assert "worth 200.0 independent ones" in text
    assert "The 50 % bands are" not in text
    assert found.verdict()[-1].startswith("The 80 % bands are too narrow")


def test_a_simple_method_that_the_model_is_does_not_count_against_it():
    found = replace(evaluation(model=0.2), chosen="ridge")
    assert "ahead by ridge, the model has a 33.3 % smaller squared error than seasonal naive" in (
        reports.headline(found)
    )
    assert found.beats_all()
    assert "The model is ridge." in found.verdict()
