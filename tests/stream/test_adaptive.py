import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate.errors import InputError
from longstate.stream import ForecastStream
from tests.train.helpers import QUICK, TINY


@pytest.fixture(scope="module")
def model():
    """Trained on noise of the standard deviation 1."""
    frame = pd.DataFrame({"y": np.random.default_rng(0).standard_normal(600)})
    forecaster = Forecaster(2, window=4, season=1, size=TINY, training=QUICK).fit(frame, "y")
    return forecaster.model


def held(model, rate, values, steps=0):
    """The share of values inside the band of the forecasts for this step, of the last half."""
    stream, inside, bands = ForecastStream(model, adapt=rate), [], []
    for value in values:
        if len(bands) > steps:
            low, high = bands[-1 - steps]
            inside.append(low <= value <= high)
        streamed = stream.push({"y": value})
        if streamed is not None:
            q = streamed.forecast.quantiles[0, steps, 0]
            bands.append((float(q[0]), float(q[-1])))
    return np.mean(inside[len(inside) // 2 :])


@pytest.fixture(scope="module")
def other():
    """An autoregression whose steps are like those of the noise, but whose errors are larger."""
    values = [0.0]
    for error in np.random.default_rng(1).standard_normal(800):
        values.append(0.9 * values[-1] + 1.4 * error)
    return values


@pytest.mark.parametrize("steps", [0, 1])
def test_bands_follow_a_spread_that_changes(model, other, steps):
    assert held(model, 0.0, other, steps) < 0.7
    assert 0.76 <= held(model, 0.02, other, steps) <= 0.84


def test_one_error_moves_a_quantile_by_its_share_of_the_width(model):
    fixed, stream = ForecastStream(model), ForecastStream(model, adapt=0.1)
    for value in (0.0, 1.0, -1.0, 0.5):
        before, first = fixed.push({"y": value}), stream.push({"y": value})
    assert_close(first.forecast.quantiles, before.forecast.quantiles, rtol=0, atol=0)
    q = first.forecast.quantiles[0, 0, 0].double()
    fixed, after = fixed.push({"y": 1e3}).forecast, stream.push({"y": 1e3}).forecast
    shift = 0.1 * (q[2] - q[0]) * torch.tensor([0.1, 0.5, 0.9]).double()  # it is above all
    assert_close(after.quantiles[0, 0, 0].double(), fixed.quantiles[0, 0, 0].double() + shift)
    assert_close(after.quantiles[0, 1], fixed.quantiles[0, 1], rtol=0, atol=0)  # not yet known


def test_a_stream_continues_after_a_restart(model, tmp_path):
    values = np.random.default_rng(2).standard_normal(40)
    whole, first, second = (ForecastStream(model, adapt=0.05) for _ in range(3))
    expected = [whole.push({"y": v}) for v in values]
    for value in values[:20]:
        first.push({"y": value})
    first.save(tmp_path / "state")
    second.load(tmp_path / "state")
    for value, wanted in zip(values[20:], expected[20:], strict=True):
        found = second.push({"y": value}).forecast
        assert_close(found.quantiles, wanted.forecast.quantiles, rtol=0, atol=0)
    plain = ForecastStream(model)
    plain.load(tmp_path / "state")  # without adapting, the shifts are left


def test_a_row_without_a_value_moves_nothing(model):
    stream = ForecastStream(model, adapt=0.1)
    for value in (0.0, 1.0, -1.0, 0.5, ""):
        stream.push({"y": value})
    assert not stream._adaptive.shift.any()


@pytest.mark.parametrize("name", ["shift", "widths"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_shifts_that_are_not_finite_are_refused(model, name, value):
    adaptive = ForecastStream(model, adapt=0.1)._adaptive
    tensors = {key: tensor.clone() for key, tensor in adaptive.tensors().items()}
    tensors[f"adaptive/{name}"].view(-1)[0] = value
    with pytest.raises(InputError, match="not finite"):
        adaptive.load(tensors)
    assert adaptive.shift.isfinite().all()


@pytest.mark.parametrize("rate", [-0.1, 1.1, float("nan")])
def test_rates_are_checked(model, rate):
    with pytest.raises(InputError, match="adapt must be a number from 0 to 1"):
        ForecastStream(model, adapt=rate)
