"""The output of a layer follows from its trace alone."""

import pytest
import torch

from longstate.layers import FalconMamba, Longhorn, Mamba, Mamba2, Mamba3
from longstate.systems import Trace

LAYERS = {
    "falcon mamba": lambda: FalconMamba(8, d_state=3),
    "mamba": lambda: Mamba(8, d_state=3),
    "mamba, limits": lambda: Mamba(8, d_state=3, dt_limit=(0.01, 0.03)),
    "longhorn, diagonal": lambda: Longhorn(8, d_state=3),
    "longhorn, exact": lambda: Longhorn(8, d_state=3, variant="exact"),
    "mamba2": lambda: Mamba2(8, d_state=4, d_head=4, n_groups=2),
    "mamba2, limits": lambda: Mamba2(8, d_state=4, d_head=4, dt_limit=(0.01, 0.03)),
    "mamba3": lambda: Mamba3(8, d_state=4, d_head=4, n_groups=2),
}


@pytest.fixture(params=LAYERS)
def layer(request):
    torch.manual_seed(0)
    layer = LAYERS[request.param]().double()
    for p in layer.parameters():  # at the start many of them are constant
        p.data += 0.1 * torch.randn_like(p)
    return layer


def finish(layer, trace):
    return layer.out_proj(trace.outputs() * trace.gate)


def test_outputs_are_those_of_the_layer(layer):
    u = torch.randn(2, 9, 8, dtype=torch.float64)
    torch.testing.assert_close(finish(layer, layer.trace(u)), layer(u)[0])


def test_the_recorded_convolution_gives_the_input(layer):
    trace = layer.trace(torch.randn(2, 9, 8, dtype=torch.float64))
    if isinstance(layer, Mamba3):
        assert trace.conv is None
        return
    v, taps, bias, scale = trace.conv
    k = taps.shape[1]
    padded = torch.nn.functional.pad(v, (0, 0, k - 1, 0))
    plain = sum(taps[:, j] * padded[:, j : j + 9] for j in range(k)) + bias
    torch.testing.assert_close(scale * plain, trace.x)


def test_a_trace_may_begin_at_a_state(layer):
    u = torch.randn(2, 9, 8, dtype=torch.float64)
    y, _ = layer(u)
    _, state = layer(u[:, :5])
    torch.testing.assert_close(finish(layer, layer.trace(u[:, 5:], state)), y[:, 5:])


def test_the_last_state_is_that_of_the_layer(layer):
    u = torch.randn(2, 9, 8, dtype=torch.float64)
    _, state = layer(u)
    torch.testing.assert_close(layer.trace(u).states()[:, -1].flatten(1), state["ssm"].flatten(1))


def test_shapes_that_do_not_fit_are_refused(layer):
    trace = layer.trace(torch.randn(1, 3, 8, dtype=torch.float64))
    with pytest.raises(ValueError, match="skip must be"):
        Trace(trace.x, trace.decay, trace.gain, trace.write, trace.read, trace.start, torch.ones(1))


def test_a_part_has_the_outputs_of_its_rows_samples_and_channels(layer):
    trace = layer.trace(torch.randn(3, 9, 8, dtype=torch.float64))
    y, state = trace.outputs(), trace.states()[:, 3]
    part = trace.part(slice(1, 3), slice(4, 7), [5, 2], start=state)
    torch.testing.assert_close(part.outputs(), y[1:3, 4:7][:, :, [5, 2]])
    assert part.conv is None
    every = trace.part(channels=slice(None, None, 3))
    torch.testing.assert_close(every.outputs(), y[:, :, ::3])
    assert (every.conv is None) == (trace.conv is None)
    if every.conv is not None:
        assert every.conv.taps.shape[0] == every.conv.v.shape[2] == every.x.shape[2]


def test_is_analysed_in_double_precision(layer):
    trace = layer.float().trace(torch.randn(1, 3, 8)).double()
    values = [v for v in vars(trace).values() if isinstance(v, torch.Tensor)]
    assert all(v.dtype == torch.float64 for v in [*values, *(trace.conv or ())])
    assert not trace.states().requires_grad


def test_a_step_decays_and_erases():
    """(diag(1/2, 1/2) - 1/4 w w') h of h = (2, 4) and w = (1, 1): (1, 2) less 6 / 4 of w."""
    one = torch.ones(1, 1, 1, dtype=torch.float64)
    both = torch.ones(1, 1, 1, 2, dtype=torch.float64)
    start = torch.tensor([[[2.0, 4.0]]], dtype=torch.float64)
    trace = Trace(0 * one, 0.5 * both, one, both, both, start, one[0, 0], erase=0.25 * one)
    assert trace.carry(0, start).tolist() == [[[-0.5, 0.5]]]
    assert trace.states().tolist() == [[[[-0.5, 0.5]]]]
