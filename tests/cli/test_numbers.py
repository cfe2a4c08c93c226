"""Numbers out of range, for every numeric option: exit code 2 and one sentence, at once."""

import pytest
import torch

from longstate.cli import main
from longstate.train._memory import check_memory
from tests.saved import frame

BIG, NO = str(10**20), ("-1", "0")
REALS = ("-1", "0", "nan", "inf", "-inf")
FORECAST = {
    **dict.fromkeys(("horizon", "window", "season", "d-model", "n-layers", "d-state"), (*NO, BIG)),
    **dict.fromkeys(("epochs", "batch-size", "windows-per-epoch", "patience"), (*NO, BIG)),
    **dict.fromkeys(("minutes", "learning-rate", "dynamics-rate"), REALS),
    "weight-decay": ("-1", "nan", "inf"),
    "dropout": ("-1", "1", "nan"),
    "lower": ("nan", "inf"),
    "upper": ("nan", "-inf"),
    "seed": ("-1", BIG),
    "split": ("nan,nan,nan", "inf,0,0", "0.5,0.5", "1,1,-1", ""),
    "quantiles": ("nan", "0", "1", "inf", "0.1,0.1"),
}
TEXT = {
    **dict.fromkeys(("d-model", "n-layers", "context", "batch-size", "steps"), (*NO, BIG)),
    **dict.fromkeys(("epochs", "minutes", "learning-rate", "dynamics-rate"), REALS),
    "weight-decay": ("-1", "nan", "inf"),
    "seed": ("-1", BIG),
}
CASES = [
    (command, name, value)
    for command, options in (("forecast", FORECAST), ("text", TEXT))
    for name, values in options.items()
    for value in values
] + [
    ("forecast", "d-model", "1000000000"),
    ("forecast", "d-model", "1000000"),  # more than a machine has
    ("forecast", "n-layers", "1000000"),
    ("forecast", "d-state", "1000000000"),
    ("text", "d-model", "1000000000"),
    ("text", "n-layers", "1000000"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("numbers")
    frame().to_csv(folder / "data.csv", index=False)
    (folder / "a.txt").write_text("to be or not to be\n" * 50)
    return {"forecast": folder / "data.csv", "text": folder / "a.txt"}


@pytest.mark.parametrize(("command", "name", "value"), CASES)
def test_a_number_out_of_range(command, name, value, data, tmp_path, capsys):
    options = {"out": str(tmp_path / "run")}
    if command == "forecast":
        options |= {"target": "y", "horizon": "4", "window": "12", "epochs": "1"}
    options[name] = value
    words = [f"--{option}={x}" for option, x in options.items()]
    assert main(["train", command, str(data[command]), *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e20"])
def test_a_duration_of_timings_out_of_range_is_refused(value, capsys):
    assert main(["bench", "--layers", "mamba", f"--seconds={value}"]) == 2
    assert "seconds must be above 0 and at most 3600" in capsys.readouterr().err


@pytest.mark.parametrize("value", ["0", "-1", BIG])
@pytest.mark.parametrize("name", ["batch", "length", "d-model"])
def test_sizes_of_a_benchmark(name, value, capsys):
    assert main(["bench", "--layers", "mamba", f"--{name}={value}"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {name.replace('-', '_')} must be a whole")


def test_a_benchmark_larger_than_the_machine(capsys):
    assert main(["bench", "--layers", "mamba", "--batch=100000", "--length=1000000"]) == 2
    assert "input and output need 381,470 GiB, and this machine has" in capsys.readouterr().err


def test_asking_for_memory_draws_no_random_numbers():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    check_memory(lambda: torch.nn.Linear(4, 4, device="cpu"))
    assert torch.equal(torch.rand(1), expected)
