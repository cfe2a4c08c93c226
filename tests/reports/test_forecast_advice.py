"""What the report of a forecaster suggests to do next, and from which facts."""

import shlex
from dataclasses import replace

import pytest
from typer.main import get_command

from longstate.cli import app
from longstate.reports._forecast_advice import MOST, Setting, advice
from longstate.train import SeriesScore
from longstate.train._ahead import Ahead
from longstate.train._bands import Band
from longstate.train._residuals import Autocorrelation
from tests.reports.samples import choice, evaluation, history, one_example

SETTING = Setting("runs/x", "a b.csv", "a b.csv", tuned=True, interval=3600.0)
USE = "longstate predict runs/x 'a b.csv' -o forecast.csv"
AGAIN = "longstate train forecast 'a b.csv' ..."


def commands(e=None, setting=SETTING, *, calibrated=50.0, chosen=None, **more):
    chosen = replace(chosen or choice(), calibrated=calibrated)
    return [one.command for one in advice(e or evaluation(), setting, chosen, **more)]


def test_a_good_run_is_used():
    assert commands() == [USE]
    ahead = Ahead({"": (one_example(),)})
    (use,) = advice(evaluation(), SETTING, None, None, ahead)
    assert use.text == "Write the forecast of the 12 steps (12 h) after 2013-10-20 21:00."


def test_known_columns_need_rows_of_the_future():
    (use,) = advice(evaluation(), replace(SETTING, known=("price",)))
    assert "12 rows of the future with “price” filled" in use.text
    assert use.command == "longstate predict runs/x ROWS -o forecast.csv"
    given = Ahead({"": (one_example(),)})  # the data has these rows
    assert advice(evaluation(), replace(SETTING, known=("price",)), ahead=given)[0].command == USE


def test_a_method_that_is_better_beyond_chance_is_named():
    beaten, method = evaluation(model=0.25), "longstate predict runs/x 'a b.csv' --method ridge"
    with_ridge = replace(
        choice(), parts=(*choice().parts, replace(choice().parts[0], name="ridge"))
    )
    assert commands(beaten, chosen=with_ridge) == [USE, method]
    assert commands(beaten) == [USE]  # ridge is no part of this choice
    unsure = replace(beaten, scores=tuple(replace(s, noise=0.06) for s in beaten.scores))
    assert commands(unsure, chosen=with_ridge) == [USE]


def test_few_windows_ask_for_rows():
    assert commands(calibrated=9.0) == [USE, f"{AGAIN} --split 0.5,0.3,0.2"]
    short = replace(evaluation(), bands=(Band(0.8, 0.8, 0.8, 3.0),))
    assert commands(short) == [USE, f"{AGAIN} --split 0.5,0.1,0.4"]
    assert "worth 3.0 independent ones" in advice(short, SETTING, None)[1].text


def test_series_without_a_test_window_are_counted():
    series = tuple(SeriesScore(f"s{i}", 9, 0.1, "ridge", 0.2) for i in range(5))
    found = advice(replace(evaluation(), series=series), replace(SETTING, series=7))
    assert found[1].text.startswith("2 of 7 series have no window in the test part")
    whole = replace(SETTING, series=5)
    assert len(advice(replace(evaluation(), series=series), whole)) == 1


def test_a_training_that_still_improved_goes_on():
    setting = replace(SETTING, epochs=4)
    assert commands(setting=setting, history=history()) == [USE, f"{AGAIN} --epochs 12"]
    early = replace(history(), best_step=20)
    assert commands(setting=setting, history=early) == [USE]


def test_bands_beyond_chance_may_follow_the_truth():
    wrong = replace(evaluation(), bands=(Band(0.8, 0.6, 0.5, 100.0),))
    assert commands(wrong) == [USE, "longstate stream runs/x --adapt 0.01"]
    chance = replace(evaluation(), bands=(Band(0.8, 0.6, 0.5, 12.0),))
    assert commands(chance) == [USE]


@pytest.mark.parametrize(
    ("lag", "value", "window", "command"),
    [
        (7, 0.5, 48, f"{AGAIN} --season 7"),  # of 24
        (24, 0.5, 40, f"{AGAIN} --window 48"),
        (1, 0.5, 48, f"{AGAIN} --window 96"),
        (7, -0.5, 48, f"{AGAIN} --window 96"),
    ],
)
def test_what_is_left_in_the_errors(lag, value, window, command):
    values = tuple(value if k == lag else 0.3 if k % 3 == 0 else 0.0 for k in range(1, 25))
    left = Autocorrelation("y", values, (0.1,) * 24)
    e = replace(evaluation(), residuals=(left,), window=window)
    assert commands(e) == [USE, command]
    white = replace(left, bounds=(0.6,) * 24)
    assert commands(replace(e, residuals=(white,))) == [USE]


def test_covariates_and_a_search_come_last():
    setting = replace(SETTING, covariates=("wind", "rain"), tuned=False)
    assert commands(setting=setting) == [USE, f"{AGAIN} --known wind", f"{AGAIN} --tune 10"]


def test_there_are_at_most_five_and_all_can_be_typed():
    """Commands that the program has, with options that it takes."""
    bad = replace(
        evaluation(model=0.3), bands=(Band(0.8, 0.4, 0.3, 40.0),),
        residuals=(Autocorrelation("y", (0.9,) * 24, (0.1,) * 24),),
        series=(SeriesScore("s", 1, 1.0, "ridge", 1.0),),
    )  # fmt: skip
    setting = Setting("r", "d.csv", "d.csv", ("wind",), (), 3, tuned=False, series=4, interval=None)
    found = advice(bad, setting, replace(choice(), calibrated=2.0), history())
    assert len(found) == MOST
    every = [USE, *commands(calibrated=1.0), *commands(bad), *(one.command for one in found)]
    every += commands(setting=replace(SETTING, covariates=("wind",), tuned=False))
    for command in every:
        words = shlex.split(command)
        assert words[0] == "longstate"
        program = get_command(app)
        for name in words[1:]:
            if not hasattr(program, "commands"):
                break
            program = program.commands[name]
        taken = {option for one in program.params for option in one.opts}
        assert {word for word in words if word.startswith("-")} <= taken, command
