"""`longstate train classify` and the commands that use its runs."""

import csv
import io
import wave
from pathlib import Path

import numpy as np
import pytest

from longstate.cli import main
from longstate.train import ClassEvaluation
from tests.saved import FOLDER

SMALL = ["--epochs", "1", "--d-model", "4", "--n-layers", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run, and beside it the file that it was trained on."""
    folder = tmp_path_factory.mktemp("classify")
    random = np.random.default_rng(0)
    lines = ["@classLabel true low <high>", "@data"]
    for i in range(24):
        values = random.normal(size=random.integers(12, 20))
        values += (i % 2) * 3 * np.sin(np.arange(len(values)))
        lines.append(",".join(f"{v:.3f}" for v in values) + (":<high>" if i % 2 else ":low"))
    (folder / "x.ts").write_text("\n".join(lines))
    assert main(["train", "classify", f"{folder}/x.ts", *SMALL, "--out", f"{folder}/run"]) == 0
    return folder / "run"


def test_a_run_has_a_model_scores_and_a_page(run):
    found = ClassEvaluation.from_json((run / "evaluation.json").read_text())
    assert found.cases == np.sum(found.confusion) == 5
    page = (run / "report.html").read_text()
    assert found.verdict() in page
    assert "&lt;high&gt;" in page
    assert "<high>" not in page
    for title in ("Which classes are confused", "Calibration", "What the layers remember"):
        assert title in page


def test_predict_writes_probabilities(run, capsys):
    assert main(["predict", str(run), f"{run.parent}/x.ts"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 24
    assert {row["predicted"] for row in rows} <= {"low", "<high>"}
    assert abs(float(rows[0]["p(low)"]) + float(rows[0]["p(<high>)"]) - 1) < 1e-5


def test_evaluate_and_info(run, capsys):
    assert main(["evaluate", str(run), f"{run.parent}/x.ts"]) == 0
    assert "24 test cases, 2 classes" in capsys.readouterr().out
    assert main(["info", str(run)]) == 0
    assert "a classifier" in capsys.readouterr().out


def test_wrong_input_is_one_sentence(run, capsys):
    other = run.parent / "other.ts"
    other.write_text("@classLabel true low lost\n@data\n1,2:low\n3,4:lost\n")
    assert main(["evaluate", str(run), str(other)]) == 2
    assert "class 'lost' was not in training" in capsys.readouterr().err
    other.write_text("@classLabel true low\n@data\n1,2:3,4:low\n")
    assert main(["predict", str(run), str(other)]) == 2
    assert "X has 2 channels, but the model was fitted to 1" in capsys.readouterr().err


def test_reduce_makes_a_smaller_run_with_a_page(run, tmp_path, capsys):
    small, data = tmp_path / "small", f"{run.parent}/x.ts"
    assert main(["reduce", str(run), "--data", data, "--keep", "0.5", "--out", str(small)]) == 0
    out = capsys.readouterr().out
    assert "log loss of the network" in out
    assert "cases" in out
    page = (small / "report.html").read_text()
    assert "Memory against the task" in page
    assert "24 cases of" in page
    assert main(["evaluate", str(small), data]) == 0
    assert "24 test cases" in capsys.readouterr().out


def test_healing_is_judged_on_cases_that_it_did_not_learn_from(run, tmp_path, capsys):
    small, data = tmp_path / "small", f"{run.parent}/x.ts"
    options = ["--data", data, "--keep", "0.25", "--heal-minutes", "0.02", "--out", str(small)]
    assert main(["reduce", str(run), *options]) == 0
    assert "6 of the 24 cases of" in (small / "report.html").read_text()


def test_memory_and_certify_read_series(run, tmp_path, capsys):
    data = f"{run.parent}/x.ts"
    assert main(["memory", str(run), "--data", data, "--out", str(tmp_path / "m.html")]) == 0
    assert "24 cases of" in (tmp_path / "m.html").read_text()
    assert main(["certify", str(run), "--data", data]) in (0, 1)
    assert "Traceback" not in capsys.readouterr().err


@pytest.fixture(scope="module")
def waves(tmp_path_factory) -> Path:
    """WAV files of two tones, at 8 kHz and at 4 kHz, and a run trained on the former."""
    folder = tmp_path_factory.mktemp("waves")
    for rate in (8000, 4000):
        for i in range(24):
            tone, name = (200, "low") if i % 2 else (600, "high")
            path = folder / str(rate) / name / f"{i}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            y = np.sin(2 * np.pi * tone * np.arange(rate // 100 + i) / rate + i)
            with wave.open(str(path), "wb") as file:
                file.setnchannels(1)
                file.setsampwidth(2)
                file.setframerate(rate)
                file.writeframes((9999 * y).astype("<i2").tobytes())
    command = ["train", "classify", f"{folder}/8000", *SMALL, "--out", f"{folder}/run"]
    assert main(command) == 0
    return folder


def test_the_rate_of_wave_files_is_known(waves, capsys):
    run, data = str(waves / "run"), str(waves / "4000")
    assert main(["predict", run, data]) == 0
    known = capsys.readouterr()
    note = "The files have 4000 samples per second, and the model was trained on 8000: they are"
    assert f"{note} read with --rate 2." in known.err
    assert "At rate=2 the network decides alone" in known.err
    assert main(["predict", run, data, "--rate", "2"]) == 0
    assert capsys.readouterr().out == known.out
    assert main(["evaluate", run, data]) == 0
    shown = capsys.readouterr()
    assert note in shown.err
    assert "At rate=2 the network decides alone" in shown.out
    assert main(["predict", run, data, "--rate", "3"]) == 2
    assert "which is a rate of 2. Leave --rate out" in capsys.readouterr().err


def test_a_rate_is_given_where_files_do_not_tell(run, capsys):
    file = f"{run.parent}/x.ts"
    assert main(["predict", str(run), file]) == 0
    first = capsys.readouterr().out
    assert main(["predict", str(run), file, "--rate", "1"]) == 0
    assert capsys.readouterr().out == first
    assert main(["predict", str(run), file, "--rate", "2"]) == 0
    assert capsys.readouterr().out != first
    assert main(["evaluate", str(FOLDER / "text"), str(FOLDER / "text.txt"), "--rate", "2"]) == 2
    assert "--rate is for a classifier; got 2 for a model of another" in capsys.readouterr().err
