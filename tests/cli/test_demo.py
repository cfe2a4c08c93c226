"""The demo with a very short training; continuous integration runs the complete demo."""

import pytest
import torch

from longstate import Forecaster, datasets, reports
from longstate.cli import demo, main
from longstate.models import Calendar
from longstate.models._calendar import seconds
from longstate.reports._forecast_memory import linear_systems
from longstate.train import ForecastEvaluation, Size, Training


@pytest.fixture
def hurried(monkeypatch):
    def tiny() -> Forecaster:
        return Forecaster(
            6,
            window=12,
            size=Size(d_model=4, n_layers=2, d_state=4),
            training=Training(epochs=1, windows_per_epoch=64),
        )

    frame = datasets.nyc_airports().head(600)
    monkeypatch.setattr(datasets, "nyc_airports", lambda: frame)
    monkeypatch.setattr(demo, "small_forecaster", tiny)


def test_demo_trains_scores_and_reports(hurried, tmp_path, capfd):
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 0
    said = capfd.readouterr().out
    for method in ("model", "last value", "seasonal naive", "ridge"):
        assert method in said
    page = tmp_path / "demo" / "report.html"
    assert str(page) in said.replace("\n", "")
    text = page.read_text("utf-8")
    assert "layer 2 (S4D)" in text
    assert "6 steps (6 h)" in text
    evaluation = ForecastEvaluation.from_json(
        (tmp_path / "demo/evaluation.json").read_text("utf-8")
    )
    assert reports.headline(evaluation, 3600.0) in text.replace("&#x27;", "'")


def test_the_suggested_command_works(hurried, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    said = capfd.readouterr().out
    (advice,) = [line for line in said.splitlines() if line.startswith("Next: longstate ")]
    assert main(advice.removeprefix("Next: longstate ").split()) == 0
    assert capfd.readouterr().out.startswith("time,late,late_q0.1")


def test_a_folder_that_cannot_be_written_is_reported_before_training(hurried, tmp_path, capfd):
    (tmp_path / "file").touch()
    assert main(["demo", "--out", str(tmp_path / "file" / "demo")]) == 2
    assert "cannot be written" in capfd.readouterr().err


def test_the_demo_forecaster_is_small():
    forecaster = demo.small_forecaster()
    steps = forecaster.training.epochs * forecaster.training.windows_per_epoch
    assert steps / forecaster.training.batch_size <= 200


def test_systems_come_from_the_layers(hurried):
    forecaster = demo.small_forecaster()
    forecaster.fit(datasets.nyc_airports(), "late")
    found = linear_systems(forecaster.model.backbone)
    assert list(found) == ["layer 1 (S4D)", "layer 2 (S4D)"]
    assert torch.equal(
        found["layer 2 (S4D)"].A, forecaster.model.backbone.blocks[1].mixer.system().A
    )


@pytest.mark.parametrize(
    ("step", "length"), [("h", 3600), ("30min", 1800), ("D", 86400), ("MS", 86400 * 146097 / 4800)]
)
def test_seconds_of_a_step(step, length):
    assert seconds(Calendar(step)) == pytest.approx(length)
