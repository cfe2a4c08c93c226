"""The bound on the drift of a rounded state, attacked by inputs that are searched for."""

import pytest
import torch

from longstate.compress import drift, quantize_state
from longstate.compress._grids import Grid, RowGrid
from longstate.layers import S4, S4D, S5, LinOSS
from tests.compress.drifts import RADIUS, LeakyBank, limited, searched, worst_case


@pytest.mark.parametrize("scale", ["row", "tensor"])
@pytest.mark.parametrize("rounding", ["nearest", "stochastic"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: S5(3, d_state=6, dt_min=0.05, dt_max=0.3),
        lambda: S4D(2, d_state=6, dt_min=0.05, dt_max=0.3),
        LeakyBank,
        lambda: S4(2, d_state=6, dt_min=0.05, dt_max=0.3),
        lambda: LinOSS(3, d_state=4),
    ],
)
def test_a_search_stays_below_the_bound_of_steps_that_follow_the_state(make, rounding, scale):
    torch.manual_seed(1)
    layer = make().double()
    quantized = quantize_state(layer, bits=12, rounding=rounding, scale=scale)
    u = torch.randn(32, 60, layer.d_model).double()
    bound = drift(quantized, radius=float(u.norm(dim=-1).max()))
    worst = searched(quantized, u)
    if bound.state.shape[1] == 1:  # of the length of a group's state
        worst = worst.reshape(len(bound.state), -1).amax(1, keepdim=True)
    assert bool((worst <= bound.state.reshape(worst.shape)).all())
    assert bool((worst > 0).any())
    with torch.no_grad():
        miss = (layer(u)[0] - quantized(u)[0]).abs().amax((0, 1))
    assert bool((miss <= bound.output).all())


def test_the_bound_is_reached_and_a_wrong_rounding_passes_it(monkeypatch):
    """The search can fail: with a rounding that always goes down the same bound does not hold."""
    torch.manual_seed(0)
    layer = S4D(1, d_state=1, init="real", dt_min=0.01, dt_max=0.01).double()
    quantized = quantize_state(layer, bits=8, allocate=False)
    bound = float(drift(quantized).state)
    found = worst_case(quantized, layer)
    assert 0.95 * bound < found <= bound
    right = Grid.round

    def down(self, x):
        return right(self, x - 0.499 * self.step)

    monkeypatch.setattr(Grid, "round", down)
    layer_input = 0.3 * torch.ones(1, 600, 1).double()
    with torch.no_grad():
        _, exact = layer(layer_input)
        _, rounded = quantized(layer_input)
    assert float((exact - rounded).abs()) > bound


def test_steps_that_are_too_large_pass_the_bound(monkeypatch):
    layer = limited("mamba2")
    quantized = quantize_state(layer, bits=6, scale="row")
    data = 3 * torch.randn(64, 60, layer.d_model).double()
    bound = drift(quantized, radius=RADIUS).state.flatten()
    right = RowGrid.round

    def coarse(self, x):
        found = right(self, 1e-6 * x)
        return found._replace(value=1e6 * found.value + 40 * found.step * 1e6)

    assert bool((searched(quantized, data) <= bound).all())
    monkeypatch.setattr(RowGrid, "round", coarse)
    assert bool((searched(quantized, data) > bound).any())
