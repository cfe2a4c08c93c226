import pytest
import torch

from longstate.errors import InputError
from longstate.layers import S4D, S5, Longhorn, Mamba, Mamba2, Mamba3
from longstate.memory import hidden_attention

SELECTIVE = {
    "mamba": lambda: Mamba(8, d_state=3),
    "longhorn, diagonal": lambda: Longhorn(8, d_state=3),
    "longhorn, exact": lambda: Longhorn(8, d_state=3, variant="exact"),
    "mamba2": lambda: Mamba2(8, d_state=4, d_head=4),
    "mamba3": lambda: Mamba3(8, d_state=4, d_head=4),
}


def trace_of(name):
    torch.manual_seed(0)
    layer = SELECTIVE[name]().double()
    u = torch.randn(2, 11, 8).double()
    return layer, u, layer.trace(u).double()


@pytest.mark.parametrize("name", SELECTIVE)
def test_the_matrix_times_the_input_is_the_scan(name):
    _, _, trace = trace_of(name)
    weights = hidden_attention(trace).weights
    torch.testing.assert_close(torch.einsum("bcts,bsc->btc", weights, trace.x), trace.outputs())
    assert bool((weights.triu(1) == 0).all())


@pytest.mark.parametrize("name", ["mamba", "longhorn, diagonal", "mamba2"])
def test_with_convolution_and_gate_it_is_the_layer_before_its_last_projection(name):
    layer, u, trace = trace_of(name)
    layer.conv1d.bias.data.zero_()
    trace = layer.trace(u).double()
    weights = hidden_attention(trace, conv=True, gate=True).weights
    inside = torch.einsum("bcts,bsc->btc", weights, trace.conv.v)
    torch.testing.assert_close(layer.out_proj(inside), layer(u)[0])


@pytest.mark.parametrize("layer", [S4D, S5], ids=lambda c: c.__name__)
def test_of_a_linear_layer(layer):
    torch.manual_seed(0)
    layer = layer(4).double()
    u = torch.randn(1, 20, 4).double()
    weights = hidden_attention(layer.system(), length=20).weights
    if weights.dim() == 5:  # one channel beside the other
        y = torch.einsum("doits,bsd->btd", weights, u)
    else:
        y = torch.einsum("oits,bsi->bto", weights, u)
    torch.testing.assert_close(y, layer(u)[0])


def test_some_channels():
    _, _, trace = trace_of("mamba2")
    whole = hidden_attention(trace, conv=True, gate=True).weights
    some = hidden_attention(trace, channels=[3, 0], conv=True, gate=True).weights
    torch.testing.assert_close(some, whole[:, [3, 0]], rtol=0, atol=0)


def test_reach_of_a_delay():
    result = hidden_attention(trace_of("mamba")[2])
    shifted = torch.diag(torch.ones(7), -3)
    object.__setattr__(result, "weights", shifted)
    assert float(result.reach()) == 3


def test_refuses():
    _, _, trace = trace_of("mamba3")
    with pytest.raises(InputError, match="no convolution"):
        hidden_attention(trace, conv=True)
    with pytest.raises(InputError, match="channels must be among"):
        hidden_attention(trace, channels=[99])
    with pytest.raises(InputError, match="length"):
        hidden_attention(S4D(4).system())
    with pytest.raises(InputError, match="fewer channels"):
        hidden_attention(S4D(64).system(), length=10_000)
