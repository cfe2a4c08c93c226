"""A running state in few bits: noise as predicted, and a bound that nothing passes."""

import math

import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from longstate.compress import quantize_state
from longstate.errors import InputError
from longstate.layers import S4, S4D, S5
from tests.compress.states import LINEAR, SELECTIVE, language, made

ROUNDINGS = ("nearest", "stochastic", "feedback")


class LeakyBank(S4D):
    """32 real states of one channel that forget within a few hundred samples."""

    def __init__(self):
        super().__init__(1, d_state=32, init="real", dt_min=0.01, dt_max=0.01)


def noise_of(quantized, layer, batch=512, length=700, skip=100):
    """Mean and standard error of the energy that rounding adds to an output sample."""
    torch.manual_seed(0)
    u = torch.randn(batch, length, layer.d_model, dtype=torch.float64)
    with torch.no_grad():
        y, z = layer(u)[0], quantized(u)[0]
    energy = (z - y)[:, skip:].square().sum(-1).mean(1)
    return float(energy.mean()), float(energy.std() / batch**0.5)


@pytest.mark.parametrize("allocate", [False, True])
@pytest.mark.parametrize("name", ["s5", "s4d", "s4"])
def test_noise_of_eight_bits_is_as_predicted(name, allocate):
    """Within 5 %; the standard error is below 1 %."""
    torch.manual_seed(3)
    layer = {
        "s5": lambda: S5(4, d_state=8, dt_min=0.05, dt_max=0.3),
        "s4d": lambda: S4D(2, d_state=8, dt_min=0.05, dt_max=0.3),
        "s4": lambda: S4(2, d_state=8, dt_min=0.05, dt_max=0.3),
    }[name]().double()
    # the slow states of S4 move by less than a step: to nearest, that is no noise
    rounding = "stochastic" if name == "s4" else "nearest"
    quantized = quantize_state(layer, bits=8, rounding=rounding, allocate=allocate)
    report = quantized.noise()
    mean, error = noise_of(quantized, layer)
    assert error < 0.01 * mean
    assert abs(mean / report.noise[0] - 1) < 0.05
    assert report.kind == "estimate"
    assert 7.9 < report.bits[0] <= 8


def test_allocated_bits_give_less_noise():
    layer = LeakyBank().double()
    even, best = (quantize_state(layer, bits=8, allocate=a) for a in (False, True))
    assert best.noise().noise[0] < 0.5 * even.noise().noise[0]
    assert noise_of(best, layer)[0] < 0.6 * noise_of(even, layer)[0]


def test_stochastic_rounding_is_unbiased():
    torch.manual_seed(3)
    layer = S5(4, d_state=8, dt_min=0.05, dt_max=0.3).double()
    quantized = quantize_state(layer, bits=6, rounding="stochastic")
    mean, error = noise_of(quantized, layer)
    assert error < 0.01 * mean
    assert abs(mean / quantized.noise().noise[0] - 1) < 0.05
    grid = quantized.grids[0]
    x = (0.3 * grid.step).expand(20_000, *grid.step.shape)
    off = (grid.round(x).value - x).mean(0) / grid.step  # deviation sqrt(0.21), over 20,000
    assert float(off.abs().max()) < 5 * math.sqrt(0.21 / 20_000)


def test_feedback_equals_twice_the_bits():
    torch.manual_seed(3)
    layer = S5(4, d_state=8, dt_min=0.05, dt_max=0.3).double()
    one = quantize_state(layer, bits=5, rounding="feedback", allocate=False)
    other = quantize_state(layer, bits=10, allocate=False)
    assert one.noise().bits == other.noise().bits
    assert one.noise().noise[0] == pytest.approx(other.noise().noise[0])
    assert noise_of(one, layer)[0] == pytest.approx(noise_of(other, layer)[0], rel=0.1)


@pytest.mark.parametrize("rounding", ROUNDINGS)
@pytest.mark.parametrize("name", [*LINEAR, *SELECTIVE])
def test_a_quantized_layer_is_called_like_the_layer(name, rounding):
    """Steps, chunks and a whole sequence are one thing, and the layer's to many bits."""
    layer = made(name).double()
    data = torch.randn(30, 24, layer.d_model).double()
    quantized = quantize_state(layer, data, bits=20, rounding=rounding)
    u = data[:2]
    with torch.no_grad():
        exact, _ = layer(u)
        torch.manual_seed(7)
        whole, last = quantized(u)
        torch.manual_seed(7)
        first, state = quantized(u[:, :9])
        second, other = quantized(u[:, 9:], state)
        assert torch.equal(whole, torch.cat([first, second], dim=1))
        assert all(map(torch.equal, tree_leaves(last), tree_leaves(other)))
        steps, state = [], quantized.init_state(2)
        for t in range(9):
            y, state = quantized.step(u[:, t], state)
            steps.append(y)
    assert float((whole - exact).norm() / exact.norm()) < 1e-3
    assert float((torch.stack(steps, dim=1) - first).norm() / first.norm()) < 1e-3


def test_a_rounded_state_has_few_values():
    layer = made("s5").double()
    quantized = quantize_state(layer, bits=3, allocate=False)
    with torch.no_grad():
        _, state = quantized(10 * torch.randn(500, 20, 4).double())
    x = quantized.grids[0].place.real(state)
    assert max(len(column.unique()) for column in x.T) == 8
    assert quantized.clipped > 0


def test_options_of_a_call_reach_the_layer():
    layer = made("s5").double()
    quantized = quantize_state(layer, bits=20, every=4)
    u, dt = torch.randn(2, 9, 4).double(), torch.rand(2, 9).double()
    options = {"dt": dt, "mask": torch.rand(2, 9) < 0.8, "reset": torch.rand(2, 9) < 0.2}
    with torch.no_grad():
        y, z = layer(u, None, **options)[0], quantized(u, None, **options)[0]
    assert float((y - z).norm() / y.norm()) < 1e-3


def test_a_model_of_layers():
    model = language()
    tokens = torch.randint(0, 11, (40, 20))
    errors = []
    with torch.no_grad():
        for bits in (4, 8, 16):
            quantized = quantize_state(model, tokens, bits=bits)
            errors.append(float((quantized(tokens)[0] - model(tokens)[0]).norm()))
    assert errors[0] > 4 * errors[1] > 16 * errors[2]


def test_refused_arguments_have_clear_messages():
    layer = made("mamba2")
    for call, sentence in (
        (lambda: quantize_state(layer), "depends on its input; pass data"),
        (lambda: quantize_state(made("s5"), bits=0.5), "bits must be between 1 and 24"),
        (lambda: quantize_state(made("s5"), rounding="up"), "rounding must be one of"),
        (lambda: quantize_state(made("s5"), every=0), "every must be at least 1"),
        (lambda: quantize_state(nn.Linear(2, 2)), "Linear has no state"),
    ):
        with pytest.raises(InputError, match=sentence):
            call()
