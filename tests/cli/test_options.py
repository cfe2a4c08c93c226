"""Options of commands and settings in Python: the same names, the same defaults."""

import dataclasses
import inspect

import pytest
import typer

from longstate.cli import app
from longstate.cli._options import descriptions
from longstate.models import generate
from longstate.train import (
    Classifier,
    Execution,
    Forecaster,
    Size,
    TextModel,
    TextTraining,
    Training,
)


def options(*names: str) -> dict[str, object]:
    """Option -> default of a command. The option is spelled as its name, and tuples as lists."""
    command = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]
    found = {}
    for parameter in command.params:
        if parameter.param_type_name == "option":
            assert parameter.opts[-1] == "--" + parameter.name.replace("_", "-")
            found[parameter.name] = parameter.default
    found.pop("help", None)
    return found


def arguments(function: object, *without: str) -> dict[str, object]:
    parameters = inspect.signature(function).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in (*without, "self")}


def fields(settings: type) -> dict[str, object]:
    return {f.name: f.default for f in dataclasses.fields(settings)}


def plain(value: object) -> object:
    """Defaults as the command line spells them: None is empty, numbers are separated by commas."""
    if value is inspect.Parameter.empty or value is None or value == () or value == []:
        return None
    if isinstance(value, tuple):
        return ",".join(f"{x:g}" for x in value)
    return str(value)


def assert_same(command: dict[str, object], python: dict[str, object]) -> None:
    assert command.keys() == python.keys()
    for name in command:
        assert plain(command[name]) == plain(python[name]), name


def test_train_forecast_has_every_setting_of_the_forecaster():
    assert_same(
        options("train", "forecast"),
        arguments(Forecaster, "size", "training")
        | arguments(Forecaster.fit, "frame", "show")
        | fields(Size)
        | fields(Training),
    )


def test_train_classify_executes_as_the_other_trainings_do():
    assert fields(Execution).items() <= options("train", "classify").items()


def test_train_text_has_every_setting_of_the_text_model():
    assert_same(
        options("train", "text"),
        arguments(TextModel, "training")
        | arguments(TextModel.fit, "files", "text", "show", "looked", "encoded", "minutes")
        | fields(TextTraining),
    )


def test_generate_has_every_setting_of_the_text_model():
    assert_same(options("generate"), arguments(TextModel.generate))
    assert arguments(TextModel.generate) == arguments(TextModel.stream)
    filled_in = ("stop_tokens", "decode", "allowed_tokens", "state", "on_piece")
    library = arguments(generate, "model", "prompts", *filled_in)
    # a model for `longstate.generate` is prepared for its bits before
    assert library.keys() == arguments(TextModel.generate, "prompt", "state_bits").keys()


def test_evaluate_predict_and_certify_have_no_other_names():
    from longstate.memory import certify

    ours = arguments(Forecaster.predict, "frame").keys()
    assert options("predict").keys() == {"out", "rate", "plot", "series", *ours}
    assert {"rate"} <= arguments(Classifier.predict).keys()
    assert {"series"} <= arguments(Forecaster.plot).keys()
    assert (
        options("backtest").keys() - {"out"}
        == arguments(Forecaster.backtest, "frame", "show").keys()
    )
    assert options("certify").keys() - {"json"} <= arguments(certify).keys()


@pytest.mark.parametrize("settings", [Size, Execution, Training, TextTraining])
def test_every_option_has_a_text(settings):
    assert descriptions(settings).keys() == fields(settings).keys()
    assert all(text.endswith((".", "given.")) for text in descriptions(settings).values())


def test_settings_arrive(tmp_path, capsys):
    from longstate import load
    from longstate.cli import main
    from tests.train.helpers import hourly

    hourly().to_csv(tmp_path / "data.csv", index=False)
    command = (
        "train forecast data.csv --target y --horizon 4 --window 24 --layers s4d,mamba --epochs 1 "
        "--d-model 6 --n-layers 3 --d-state 4 --dropout 0.2 --batch-size 7 --windows-per-epoch 21 "
        "--learning-rate 0.004 --dynamics-rate 0.0005 --weight-decay 0.02 --patience 3 --out run "
        "--split 0.6,0.2,0.2 --quantiles 0.5 --season 24 --seed 3 --accumulate 2 --dtype bfloat16 "
        "--segment 16 --parallel fsdp"
    )
    words = [str(tmp_path / w) if w in ("data.csv", "run") else w for w in command.split()]
    assert main(words) == 0, capsys.readouterr().err
    found = load(tmp_path / "run")
    assert found.size == Size(6, 3, 4, 0.2)
    ways = {"accumulate": 2, "dtype": "bfloat16", "segment": 16, "parallel": "fsdp"}
    assert found.training == Training(1, None, 7, 21, 0.004, 0.0005, 0.02, 3, **ways)
    assert found.layers == ("s4d", "mamba")
    kinds = [type(b.mixer).__name__ for b in found.model.backbone.blocks]
    assert kinds == ["S4D", "Mamba", "S4D"]
    assert (found.seed, found.season, found.quantiles) == (3, 24, (0.5,))
    assert found.facts["split"] == [0.6, 0.2, 0.2]
