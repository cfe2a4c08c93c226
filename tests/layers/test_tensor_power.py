"""The cell of learned powers, against its equation in plain numbers."""

import math

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import TensorPower


def made(**options) -> TensorPower:
    torch.manual_seed(0)
    return TensorPower(3, d_state=4, **options).double()


@pytest.mark.parametrize("rank", [1, 3])
def test_the_equation_in_plain_numbers(rank):
    layer, u = made(rank=rank), torch.randn(1, 6, 3).double()
    torch.nn.init.normal_(layer.log_power, std=0.5)
    torch.nn.init.normal_(layer.bias)
    W, U = layer.in_proj.weight.tolist(), layer.recurrent.weight.tolist()
    b, e, h = layer.bias.tolist(), 1e-3, [0.0] * 4
    power = [math.exp(v) for v in layer.log_power.tolist()]
    for x in u[0].tolist():
        new = []
        for i in range(4):
            total = b[i]
            for row in range(i, 4 * rank, 4):
                s = sum(w * v for w, v in zip(W[row] + U[row], x + h, strict=True))
                total += math.copysign((abs(s) + e) ** power[i] - e ** power[i], s)
            new.append(math.tanh(total))
        h = new
    y, state = layer(u)
    assert_close(state["h"][0], torch.tensor(h).double())
    assert_close(y[0, -1], layer.out_proj(torch.tensor(h).double()))


def test_a_power_of_one_is_the_cell_of_elman():
    layer, u = made(rank=2), torch.randn(2, 7, 3).double()
    W, U = (p.weight[:4] + p.weight[4:] for p in (layer.in_proj, layer.recurrent))
    peer = torch.nn.RNN(3, 4, batch_first=True).double()
    zero = torch.zeros(4).double()
    peer.load_state_dict(
        {"weight_ih_l0": W, "weight_hh_l0": U, "bias_ih_l0": zero, "bias_hh_l0": zero}
    )
    assert_close(layer(u)[1]["h"], peer(u)[1][0])


@pytest.mark.parametrize("power", [0.3, 1.0, 2.5])
def test_gradients_are_finite_at_zero_and_correct_elsewhere(power):
    layer = made()
    torch.nn.init.constant_(layer.log_power, math.log(power))
    layer(torch.zeros(1, 3, 3).double())[0].sum().backward()
    assert all(bool(torch.isfinite(p.grad).all()) for p in layer.parameters())
    u = torch.randn(1, 4, 3).double().requires_grad_()
    torch.autograd.gradcheck(lambda v: layer(v)[0], u)


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="rank must be at least 1; got 0"):
        TensorPower(3, rank=0)
    with pytest.raises(ValueError, match="TensorPower takes neither dt nor rate"):
        made()(torch.zeros(1, 2, 3).double(), rate=2.0)
