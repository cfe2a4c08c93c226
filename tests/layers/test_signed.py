"""S4D with real modes of both signs, against its recurrence as a loop."""

import math

import pytest
import torch
from torch.testing import assert_close

import longstate
from longstate.layers import S4D
from longstate.models import Stack
from longstate.models._saving import load_layer, save_layer
from longstate.systems import DiagonalSystem


def made(variant="zoh", **options) -> S4D:
    torch.manual_seed(0)
    sizes = {"d_state": 5, "dt_min": 0.1, "dt_max": 0.5}
    return S4D(3, init="signed", variant=variant, **sizes, **options).double()


def by_loop(layer: S4D, u):
    """Channel by channel and mode by mode, with Python's numbers."""
    outputs = torch.zeros_like(u)
    for row in range(len(u)):
        for d in range(u.shape[2]):
            dt = math.exp(layer.log_dt[d].item())
            for k in range(layer.d_state):
                rate = math.exp(layer.log_decay[d, k].item())
                if layer.variant == "zoh":
                    A, scale = math.exp(-rate * dt), (1 - math.exp(-rate * dt)) / rate
                else:
                    A, scale = (1 - rate * dt / 2) / (1 + rate * dt / 2), dt / (1 + rate * dt / 2)
                A, x = -A if k % 2 else A, 0.0
                for t in range(u.shape[1]):
                    x = A * x + scale * layer.B[d, k].item() * u[row, t, d].item()
                    outputs[row, t, d] += layer.C[d, k].item() * x
    return outputs + layer.D * u


@pytest.mark.parametrize("variant", ["zoh", "bilinear"])
def test_every_second_mode_changes_its_sign(variant):
    layer, u = made(variant), torch.randn(2, 9, 3, dtype=torch.float64)
    assert_close(layer(u)[0], by_loop(layer, u))


def test_its_impulse_response_is_that_of_its_system():
    layer = made()
    u = torch.zeros(1, 40, 3, dtype=torch.float64)
    u[:, 0] = 1
    assert_close(layer(u)[0][0], layer.system().impulse_response(40)[..., 0, 0].mT)


def test_it_has_no_time_between_samples():
    layer, u = made(), torch.zeros(1, 2, 3, dtype=torch.float64)
    for call in (lambda: layer(u, rate=2.0), lambda: layer.step(u[:, 0], None, rate=2.0)):
        with pytest.raises(ValueError, match=r"S4D\(init='signed'\) takes no rate; a sign that"):
            call()
    ones = torch.ones(1, 2).double()
    for call in (lambda: layer(u, dt=ones), lambda: layer.step(u[:, 0], None, dt=ones[:, 0])):
        with pytest.raises(ValueError, match=r"S4D\(init='signed'\) takes no dt; a sign that"):
            call()


def test_another_recurrence_brings_its_signs(tmp_path):
    layer = made()
    A = torch.tensor([[0.5, -0.25], [-0.9, -0.1], [0.3, 0.2]], dtype=torch.float64)
    B, C = torch.randn(3, 2, 1).double(), torch.randn(3, 1, 2).double()
    system = DiagonalSystem(A, B, C, layer.system().D, discrete=True)
    new = layer.with_system(system)
    assert_close(new.system().A, A)
    assert_close(new.system().impulse_response(20), system.impulse_response(20))
    save_layer(new.eval(), tmp_path / "layer.safetensors")
    u = torch.randn(1, 6, 3).double()
    assert torch.equal(load_layer(tmp_path / "layer.safetensors")(u)[0], new(u)[0])


def test_a_reduced_model_keeps_its_signs():
    stack = Stack([made().float().eval()])
    small, _ = longstate.reduce(stack, keep=0.6)
    assert small.blocks[0].mixer.d_state == 3
    assert {-1.0, 1.0} == set(small.blocks[0].mixer.sign.flatten().tolist())


def test_both_directions():
    layer, u = made(bidirectional=True), torch.randn(2, 9, 3, dtype=torch.float64)
    ahead, back = made(), made()
    for other, C in zip((ahead, back), layer.C, strict=True):
        other.load_state_dict({**layer.state_dict(), "C": C})
    later = back(u.flip(1))[0].flip(1) - back.D * u
    expected = ahead(u)[0] + torch.cat([later[:, 1:], torch.zeros_like(u[:, :1])], dim=1)
    assert_close(layer(u)[0], expected)
