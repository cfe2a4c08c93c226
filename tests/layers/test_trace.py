"""A trace says what the recurrence did: from it alone, the layer's output."""

import pytest
import torch
from torch.nn import functional as F

from longstate.layers import Longhorn, Mamba, Mamba2, Mamba3
from longstate.systems import Trace

LAYERS = {
    "mamba": lambda: Mamba(8, d_state=3),
    "longhorn, diagonal": lambda: Longhorn(8, d_state=3),
    "longhorn, exact": lambda: Longhorn(8, d_state=3, update="exact"),
    "mamba2": lambda: Mamba2(8, d_state=4, headdim=4, n_groups=2),
    "mamba3": lambda: Mamba3(8, d_state=4, headdim=4, n_groups=2),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    layer = LAYERS[request.param]().double()
    for p in layer.parameters():  # at the start many of them are constant
        p.data += 0.1 * torch.randn_like(p)
    return layer


def finish(layer, u, trace):
    """The rest of the layer, after the recurrence."""
    z = layer.in_proj(u)
    if isinstance(layer, Mamba2):
        return layer.out_proj(layer.norm(trace.outputs(), z[..., : layer.norm.weight.numel()]))
    inner = layer.out_proj.in_features
    z = z[..., :inner] if isinstance(layer, Mamba3) else z[..., inner:]
    return layer.out_proj(trace.outputs() * F.silu(z))


def test_outputs_are_those_of_the_layer(layer):
    u = torch.randn(2, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(finish(layer, u, layer.trace(u)), layer(u)[0])


def test_goes_on_from_a_state(layer):
    u = torch.randn(2, 9, 8, dtype=torch.float64)
    y, _ = layer(u)
    _, state = layer(u[:, :5])
    torch.testing.assert_close(finish(layer, u[:, 5:], layer.trace(u[:, 5:], state)), y[:, 5:])


def test_the_last_state_is_that_of_the_layer(layer):
    u = torch.randn(2, 9, 8, dtype=torch.float64)
    _, state = layer(u)
    torch.testing.assert_close(layer.trace(u).states()[:, -1].flatten(1), state["ssm"].flatten(1))


def test_shapes_that_do_not_fit_are_refused(layer):
    trace = layer.trace(torch.randn(1, 3, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="skip must be"):
        Trace(trace.x, trace.decay, trace.gain, trace.write, trace.read, trace.start, torch.ones(1))


def test_is_analysed_in_double_precision(layer):
    trace = layer.float().trace(torch.randn(1, 3, 8)).double()
    assert all(v.dtype == torch.float64 for v in vars(trace).values() if v is not None)
    assert not trace.states().requires_grad
