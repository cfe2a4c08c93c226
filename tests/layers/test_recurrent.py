"""The classical cells are those of `torch.nn`, with an output projection, masks and resets."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.func import functional_call, grad, vmap

from longstate.layers import GRU, LSTM, Elman, LinearRNN

CELLS = {"elman": (Elman, nn.RNN), "gru": (GRU, nn.GRU), "lstm": (LSTM, nn.LSTM)}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_cell_equals_that_of_pytorch(name, dtype):
    ours, theirs = CELLS[name]
    torch.manual_seed(0)
    layer = ours(3, d_state=5).to(dtype)
    peer = theirs(3, 5, batch_first=True).to(dtype)
    peer.load_state_dict(
        {
            "weight_ih_l0": layer.in_proj.weight, "bias_ih_l0": layer.in_proj.bias,
            "weight_hh_l0": layer.recurrent.weight, "bias_hh_l0": layer.recurrent.bias,
        }
    )  # fmt: skip
    u = torch.randn(2, 9, 3, dtype=dtype)
    h, last = peer(u)
    everything = torch.ones(2, 9, dtype=torch.bool)
    for mask in (None, everything):  # the kernel, and the loop
        y, state = layer(u, mask=mask)
        torch.testing.assert_close(y, layer.out_proj(h))
        for found, want in zip(state.values(), last if name == "lstm" else [last], strict=True):
            torch.testing.assert_close(found, want[0])


def test_the_linear_cell_is_a_sum_of_powers():
    torch.manual_seed(0)
    layer = LinearRNN(2, d_state=3).double()
    u = torch.randn(1, 6, 2).double()
    h = torch.zeros(3).double()
    for t in range(6):
        h = h + torch.linalg.matrix_power(layer.recurrent.weight, 5 - t) @ (
            layer.in_proj(u[0, t]) + layer.recurrent.bias
        )
    torch.testing.assert_close(layer(u)[1]["h"][0], h)


@pytest.mark.parametrize("cell", [Elman, GRU, LSTM, LinearRNN])
def test_derivatives_of_all_kinds(cell):
    torch.manual_seed(0)
    layer = cell(2, d_state=3).double()
    u = torch.randn(2, 4, 2, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda v: layer(v)[0], u)
    torch.autograd.gradgradcheck(lambda v: layer(v)[0], u)

    def loss(weights, row):
        return functional_call(layer, weights, (row[None],))[0].square().sum()

    weights = dict(layer.named_parameters())
    each = vmap(grad(loss), in_dims=(None, 0))(weights, u.detach())
    for i, row in enumerate(u.detach()):
        layer.zero_grad()
        layer(row[None])[0].square().sum().backward()
        for name, p in layer.named_parameters():
            torch.testing.assert_close(each[name][i], p.grad)


@pytest.mark.parametrize("cell", [Elman, GRU, LSTM, LinearRNN])
def test_forward_mode_in_float32(cell):
    """PyTorch's own LSTM of float32 has no forward mode on CPUs."""
    torch.manual_seed(0)
    layer = cell(2, d_state=3)
    u, v = torch.randn(2, 2, 4, 2).unbind()
    _, tangent = torch.autograd.functional.jvp(lambda u: layer(u)[0], u, v)
    with forward_ad.dual_level():
        found = forward_ad.unpack_dual(layer(forward_ad.make_dual(u, v))[0]).tangent
    torch.testing.assert_close(found, tangent)


def test_a_step_of_time_is_refused():
    with pytest.raises(ValueError, match="GRU takes neither dt nor rate: it has no time step"):
        GRU(2)(torch.zeros(1, 3, 2), rate=2.0)


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="d_state must be at least 1; got 0"):
        LSTM(2, d_state=0)
