"""Forecasters are reduced, saved with sizes of their own for each layer, and forecast."""

import json

import pandas as pd
import pytest
import torch

from longstate import Forecaster, load, reduce
from longstate.cli import main
from longstate.stream import ForecastStream
from longstate.train import Size
from tests.train.helpers import QUICK, hourly

SMALL = Size(d_model=4, n_layers=2, d_state=4)


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    frame = hourly(300)
    forecaster = Forecaster(4, window=24, layers="s4d,mamba", size=SMALL, training=QUICK)
    return forecaster.fit(frame, target="y", out=folder / "run"), frame, folder


def test_reducing_a_forecaster_gives_a_forecaster(fitted, tmp_path):
    forecaster, frame, _ = fitted
    before = forecaster.predict(frame)
    small, report = reduce(forecaster, lambda: forecaster.predict(frame), keep=0.5)
    assert report.bytes_after < report.bytes_before
    pd.testing.assert_frame_equal(forecaster.predict(frame), before)
    small.save(tmp_path / "model.safetensors")
    again = load(tmp_path)
    pd.testing.assert_frame_equal(again.predict(frame), small.predict(frame))
    sizes = [[b.mixer.d_state for b in f.model.backbone.each_block()] for f in (small, again)]
    assert sizes[0] == sizes[1]
    ForecastStream(again.model)
    again.model.save(tmp_path / "inner.safetensors")
    inner = load(tmp_path / "inner.safetensors")
    states = [m.backbone.init_state(1)[0] for m in (inner, small.model)]
    assert [s.shape for s in states[:1]] == [s.shape for s in states[1:]]


def test_the_command_writes_a_run(fitted, tmp_path, capsys):
    _, frame, folder = fitted
    frame.to_csv(tmp_path / "x.csv", index=False)
    run, out = str(folder / "run"), str(tmp_path / "small")
    call = ["reduce", run, "--keep", "0.5", "--data", str(tmp_path / "x.csv"), "--out", out]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "The state of one sequence goes from" in printed
    assert main(["predict", out, str(tmp_path / "x.csv")]) == 0
    assert main([*call[:-1], str(tmp_path / "two"), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert facts["result"] == "Reduction"
    assert len(facts["layers"]) == SMALL.n_layers
    assert main(call) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_full_layer_is_reported(fitted, tmp_path, capsys):
    _, frame, folder = fitted
    frame.to_csv(tmp_path / "x.csv", index=False)
    call = ["reduce", str(folder / "run"), "--tol", "1e-9", "--data", str(tmp_path / "x.csv")]
    assert main([*call, "--out", str(tmp_path / "same")]) == 0
    assert "full." in capsys.readouterr().out
    one, two = load(folder / "run"), load(tmp_path / "same")
    for a, b in zip(one.model.state_dict().values(), two.model.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
