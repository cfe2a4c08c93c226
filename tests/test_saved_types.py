"""Files are loaded in the number types that they were saved in."""

import pytest
import torch

import longstate
from longstate import _tensorfile as tensorfile
from longstate.layers import (
    DSS,
    S4,
    S4D,
    Attention,
    FalconMamba,
    Longhorn,
    Mamba2,
    Mamba3,
)
from longstate.models import ForecastModel, ForecastSpec, LanguageModel, LanguageSpec
from tests.test_front_door import LAYERS, same

EVERY = {
    **LAYERS,
    "s4": lambda: S4(4, d_state=6),
    "dss": lambda: DSS(4, d_state=6),
    "mamba2": lambda: Mamba2(4, d_state=3, d_head=4),
    "mamba3": lambda: Mamba3(4, d_state=4, d_head=4),
    "longhorn": lambda: Longhorn(4, d_state=3, variant="exact"),
    "falcon-mamba": lambda: FalconMamba(4, d_state=3),
    "attention": lambda: Attention(4, n_heads=2),
}


def assert_types_and_numbers(loaded, saved):
    assert {n: t.dtype for n, t in loaded.state_dict().items()} == {
        n: t.dtype for n, t in saved.state_dict().items()
    }
    assert same(loaded, saved)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EVERY)
def test_a_layer_is_loaded_in_the_type_that_it_was_saved_in(name, dtype, tmp_path):
    """What one of float64 computes is equal to the last digit; `dynamics` stay wide."""
    torch.manual_seed(0)
    layer = EVERY[name]().to(dtype).eval()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_(0.01 * torch.randn_like(p))  # digits that float32 does not hold
    longstate.save(layer, tmp_path / "layer.safetensors")
    loaded = longstate.load(tmp_path / "layer.safetensors")
    assert_types_and_numbers(loaded, layer)
    u = torch.randn(2, 10, layer.d_model, dtype=dtype)
    assert torch.equal(loaded(u)[0], layer(u)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("tie", [True, False])
def test_a_model_is_loaded_in_the_type_that_it_was_saved_in(dtype, tie, tmp_path):
    options = {"s4d": {"d_state": 4}}
    model = LanguageModel(LanguageSpec(40, 8, ("mamba", "s4d"), options, tie=tie)).to(dtype).eval()
    model.save(tmp_path / "model.safetensors")
    loaded = longstate.load(tmp_path / "model.safetensors")
    assert_types_and_numbers(loaded, model)
    tokens = torch.arange(12)[None]
    assert torch.equal(loaded(tokens)[0], model(tokens)[0])


def test_a_forecast_model_is_loaded_in_the_type_that_it_was_saved_in(tmp_path):
    spec = ForecastSpec(("y",), (), (), None, None, (), 12, 3, 1, (0.5,))
    model = ForecastModel(spec, lambda _: S4D(4, d_state=6), d_model=4).double().eval()
    model.save(tmp_path / "model.safetensors")
    assert_types_and_numbers(longstate.load(tmp_path / "model.safetensors"), model)


def test_dynamics_of_a_file_that_rounded_them_are_float32(tmp_path):
    layer = S4D(4, d_state=6)
    narrow = {name: t.bfloat16() for name, t in layer.state_dict().items()}
    longstate.save(layer, tmp_path / "layer")
    facts = tensorfile.load(tmp_path / "layer", "layer")[1]
    tensorfile.save(tmp_path / "layer", "layer", narrow, facts)
    loaded = longstate.load(tmp_path / "layer")
    types = {name: t.dtype for name, t in loaded.state_dict().items()}
    assert types == {name: t.dtype for name, t in layer.bfloat16().state_dict().items()}
