"""Whole models in other number types: what is not trained keeps its digits, and files do too."""

import copy

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

import longstate
from longstate import Classifier, Forecaster, LanguageModel, Regressor
from longstate.errors import InputError
from longstate.layers import Attention, Mamba2, Mamba3
from longstate.layers._dynamics import Dynamic, dynamics_of
from longstate.models import LanguageSpec
from longstate.models._series import SeriesModel
from longstate.stream import ForecastStream
from longstate.train import Size
from longstate.train._windows import Windows
from tests.stream.test_forecast import rows
from tests.train.helpers import QUICK

NARROW = [torch.bfloat16, torch.float16]
WINDOW = 12


def dynamics(model):
    """All of them, by name."""
    layers = [m for m in model.modules() if isinstance(m, Dynamic)]
    own = {id(p) for layer in layers for p in dynamics_of(layer)}
    return {n: p for n, p in model.named_parameters() if id(p) in own}


def assert_kept(model, original):
    expected = dynamics(original)
    assert len(expected) > 0
    assert_close(dict(dynamics(model)), expected, rtol=0, atol=0)


@pytest.fixture(scope="module")
def large():
    """Values of a million, of which the sixth digit counts."""
    t = np.arange(300)
    noise = 0.05 * np.random.default_rng(0).standard_normal(300)
    times = pd.date_range("2024-01-01", periods=300, freq="h").astype(str)
    return pd.DataFrame({"date": times, "y": 1e6 + np.sin(t / 4) + noise, "x": np.cos(t / 5)})


@pytest.fixture(scope="module")
def forecaster(large):
    size = Size(d_model=8, n_layers=1, d_state=4)
    made = Forecaster(3, window=WINDOW, size=size, training=QUICK)
    return made.fit(large, "y", covariates="x")


@pytest.mark.parametrize("dtype", [*NARROW, torch.float32, torch.float64])
def test_a_forecaster_keeps_its_scales_and_its_line(dtype, forecaster, large, tmp_path):
    model = copy.deepcopy(forecaster.model).to(dtype)
    assert_kept(model, forecaster.model.to(torch.promote_types(dtype, torch.float32)))
    forecaster.model.float()
    assert_close(model.scale.mean, forecaster.model.scale.mean, rtol=0, atol=0)
    assert model.scale.mean.dtype == torch.float64
    assert_close(model.line.weight.float(), forecaster.model.line.weight, rtol=0, atol=0)
    window = Windows.last(forecaster._table(large), model.spec)
    line, expected = model.scaled_line(window), forecaster.model.scaled_line(window)
    if dtype == torch.float64:
        assert_close(line.float(), expected)
    else:
        assert_close(line, expected, rtol=0, atol=0)
    narrow = forecaster.with_model(model)
    found = narrow.predict(large)
    narrow.save(tmp_path / "a")
    model.save(tmp_path / "b")
    again = longstate.load(tmp_path / "a")
    assert again.predict(large)["y"].tolist() == found["y"].tolist()
    for opened in (again.model, longstate.load(tmp_path / "b")):
        assert_close(opened.state_dict(), model.state_dict(), rtol=0, atol=0, check_dtype=False)
    stream = ForecastStream(longstate.load(tmp_path / "b"))
    last = [stream.push(row) for row in rows(large)][-1]
    assert last.forecast.point[0, :, 0].tolist() == found["y"].tolist()


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("kind", [Classifier, Regressor])
def test_a_model_of_series_after_conversion(kind, dtype, tmp_path):
    draw = np.random.default_rng(0)
    X, label = draw.standard_normal((24, 2, 30)), np.arange(24) % 2
    X += label[:, None, None]
    made = kind(d_model=8, n_layers=1, epochs=2).fit(
        X, label if kind is Classifier else label + 0.1
    )
    network = copy.deepcopy(made.network_).to(dtype)
    assert_kept(network, made.network_)
    made.network_ = network
    found = made.predict(X)
    made.save(tmp_path / "a")
    again = longstate.load(tmp_path / "a")
    assert again.predict(X).tolist() == found.tolist()
    state = network.state_dict()
    assert_close(again.network_.state_dict(), state, rtol=0, atol=0, check_dtype=False)


def test_a_narrow_model_of_series_counts_beyond_256():
    """The mean over time, of a series of 2,000 equal samples, does not change with its length."""
    model = SeriesModel(1, 2, [longstate.layers.S4D(4, d_state=2)]).eval()
    with torch.no_grad():
        for block in model.backbone.each_block():
            for p in block.parameters():
                p.zero_()
    pooled, state = model.to(torch.bfloat16).pooled(torch.ones(1, 2000, 1))
    assert state.seen.item() == 2000
    assert_close(pooled.each()[0, -1], pooled.each()[0, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_filter_bank_after_conversion(dtype):
    """Its frequencies are not rounded, and the frames of both types are close."""
    torch.manual_seed(0)
    model = SeriesModel(1, 2, [longstate.layers.S4D(4, d_state=2)], stride=16).eval()
    other = copy.deepcopy(model).to(dtype)
    assert_close(other.bank.frequency, model.bank.frequency, check_dtype=False)
    x = torch.randn(2, 100, 1)
    seen = torch.ones(2, 100, dtype=torch.bool)
    frames, _ = model.bank(model.scaled(x), model.init_state(2).bank, seen)
    found, _ = other.bank(other.scaled(x), other.init_state(2).bank, seen)
    assert_close(found.y, frames.y, check_dtype=False)
    assert other(x)[0].dtype == dtype


@pytest.mark.parametrize("layer", ["s4", "s4d", "dss", "s5", "linoss", "mamba"])
def test_a_language_model_after_conversion(layer, tmp_path):
    model = LanguageModel(LanguageSpec(vocab_size=16, d_model=8, layers=(layer,))).eval()
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    assert_kept(narrow, model)
    narrow.save(tmp_path / "a")
    assert_kept(longstate.load(tmp_path / "a"), model)


REFUSED = {
    "heads": (lambda: Mamba2(8), "d_head must divide expand . d_model = 16; got 64"),
    "heads of Mamba3": (lambda: Mamba3(8), "d_head must divide"),
    "attention": (lambda: Attention(9, n_heads=2), "n_heads must divide d_model = 9; got 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_options_that_no_layer_can_have_are_errors_of_input(case):
    make, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        make()
