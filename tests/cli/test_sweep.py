"""Every numeric option of every command, read from the program, with values that make no sense.

Exit code 2 and one sentence, or a run that ends with 0 where the value has a meaning: a limit that
is never reached is none. `test_numbers` says which values the trainings refuse.
"""

import inspect
from typing import get_args, get_origin

import pytest

from longstate.cli import app, main
from longstate.train import Classifier, read_series
from tests.saved import FOLDER, frame

BIG = str(10**20)
VALUES = {float: ("nan", "inf", "-inf", "-1", "0", "1e20", "abc"), int: ("-1", "0", BIG, "abc")}
ARGUMENTS = {
    "train forecast": "CSV --target y --horizon 4 --window 12 --epochs 1 --d-model 4 --n-layers 1 "
    "--d-state 4 --windows-per-epoch 8 --out OUT",
    "train classify": "CASES --d-model 4 --n-layers 1 --epochs 1 --no-convolutions --out OUT",
    "train text": "TEXT --d-model 4 --context 16 --steps 1 --n-layers 1 --out OUT",
    "generate": "RUN --max-tokens 2",
    "certify": "RUN",
    "stream": "FORECASTS",
    "predict": "CLASSES CASES",
    "backtest": "FORECASTS CSV",
    "evaluate": "CLASSES CASES",
    "reduce": "RUN --out OUT",
    "tasks run": "--layers s4d --tasks parity --scale 0.001 --rates 0.01 --width 4 --blocks 1 "
    "--seconds 0.1 --seeds 1 --workers 1 --out OUT",
    "bench": "--layers mamba --d-model 4 --length 8 --seconds 0.01",
}
HARMLESS = {  # options for which these values have a meaning
    ("train forecast", "lower"): ("-1", "-inf"),
    ("train forecast", "upper"): ("-1",),
    ("generate", "seed"): ("-1",),
}


def numeric_options():
    """Command, option and type, of every option whose value is a number."""
    groups = [((), app), *(((g.name,), g.typer_instance) for g in app.registered_groups)]
    for path, group in groups:
        for command in group.registered_commands:
            name = command.name or command.callback.__name__
            for option, p in inspect.signature(command.callback).parameters.items():
                hint = get_args(p.annotation)[0] if hasattr(p.annotation, "__metadata__") else str
                kinds = get_args(hint) if get_origin(hint) is not list else ()
                for kind in {hint, *kinds} & {int, float}:
                    yield " ".join((*path, name)), option.replace("_", "-"), kind


CASES = sorted({(c, o, v) for c, o, kind in numeric_options() for v in VALUES[kind]})


def test_the_options_are_found():
    found = {(command, option) for command, option, _ in CASES}
    assert {c for c, _ in found} == ARGUMENTS.keys()
    assert ("generate", "state-bits") in found
    assert ("train text", "state-budget") in found
    assert ("reduce", "heal-minutes") in found


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sweep")
    frame(120).to_csv(folder / "data.csv", index=False)
    (folder / "a.txt").write_text("to be or not to be\n" * 100)
    rows = [f"{i},{t},{(i % 2) * t},{'ab'[i % 2]}" for i in range(20) for t in range(6)]
    (folder / "cases.csv").write_text("\n".join(["case,time,x,label", *rows]) + "\n")
    data = read_series(folder / "cases.csv")
    model = Classifier(d_model=4, n_layers=1, epochs=1, convolutions=False).fit(data.X, data.y)
    model.save(folder / "classes.safetensors")
    return {
        "CASES": str(folder / "cases.csv"), "CLASSES": str(folder / "classes.safetensors"),
        "CSV": str(folder / "data.csv"), "TEXT": str(folder / "a.txt"), "RUN": str(FOLDER / "text"),
        "FORECASTS": str(FOLDER / "forecast_s4d"),
    }  # fmt: skip


@pytest.mark.parametrize(("command", "option", "value"), CASES)
def test_no_number_is_a_traceback(command, option, value, files, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("longstate.cli.stream.input_lines", lambda: iter(()))
    out = str(tmp_path / "out")
    words = [files.get(w, w.replace("OUT", out)) for w in ARGUMENTS[command].split()]
    code = main([*command.split(), *words, f"--{option}={value}"])
    error = capsys.readouterr().err
    senseless = value in ("nan", "inf", "-inf", "-1", "abc")
    if senseless and value not in HARMLESS.get((command, option), ()):
        assert code == 2, error
        assert not (tmp_path / "out").exists()
    assert code in (0, 2)
    if code == 2:
        lines = [line for line in error.splitlines() if not line.startswith("longstate: compil")]
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
