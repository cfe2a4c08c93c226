"""State Memory Replay adjusts the input of a layer, and nothing else."""

import math

import pytest
import torch

import longstate
from longstate.layers import S4D, S5, SMR, LinOSS, Mamba
from longstate.models import Stack
from longstate.models._saving import load_layer, save_layer

FORMS = {
    "product": lambda m, u: m * u,
    "gate": lambda m, u: 2 / (1 + math.exp(-m)) * u,
    "residual": lambda m, u: u + m * u,
}


@pytest.mark.parametrize("form", FORMS)
def test_the_layer_gets_the_equation(form):
    torch.manual_seed(0)
    smr = SMR(S4D(2, d_state=4), window=3, form=form).double()
    u = torch.randn(1, 9, 2).double()
    weight, bias = smr.weight.tolist(), smr.bias.tolist()
    v = torch.zeros_like(u)
    for t in range(9):
        for d in range(2):
            seen = sum(weight[d][2 - i] * float(u[0, t - i, d]) for i in range(3) if t >= i)
            v[0, t, d] = FORMS[form](bias[d] + seen, float(u[0, t, d]))
    torch.testing.assert_close(smr(u)[0], smr.layer(v)[0])


@pytest.mark.parametrize("form", FORMS)
def test_without_weights_it_is_the_layer_itself(form):
    smr = SMR(Mamba(4, d_state=3), form=form).double()
    torch.nn.init.zeros_(smr.weight)
    u = torch.randn(2, 7, 4).double()
    torch.testing.assert_close(smr(u)[0], smr.layer(u)[0])


def test_a_rate_is_for_the_layer():
    smr = SMR(S5(4, d_state=4)).double()
    u = torch.randn(2, 7, 4).double()
    dt = torch.rand(2, 7).double()
    torch.testing.assert_close(smr(u, rate=2.0)[0], smr(u, dt=torch.full((2, 7), 2.0).double())[0])
    assert not torch.allclose(smr(u, dt=dt)[0], smr(u)[0])


def test_saved_and_loaded(tmp_path):
    smr = SMR(LinOSS(4, d_state=3, variant="imex"), window=2, form="gate").eval()
    save_layer(smr, tmp_path / "layer.safetensors")
    again = load_layer(tmp_path / "layer.safetensors")
    u = torch.randn(1, 5, 4)
    assert torch.equal(again(u)[0], smr(u)[0])


def test_a_smaller_layer_inside_is_saved_as_it_is(tmp_path):
    torch.manual_seed(0)
    smr = SMR(S4D(4, d_state=16)).eval()
    small, report = longstate.reduce(Stack([smr]), keep=0.5)
    assert [row.after for row in report.layers] == [8]
    inner = small.blocks[0].mixer
    save_layer(inner, tmp_path / "layer.safetensors")
    again = load_layer(tmp_path / "layer.safetensors")
    assert again.layer.d_state == 8
    u = torch.randn(1, 5, 4)
    assert torch.equal(again(u)[0], inner(u)[0])


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match="window must be at least 1; got 0"):
        SMR(S4D(2), window=0)
    with pytest.raises(ValueError, match=r"form must be .*; got 'sum'"):
        SMR(S4D(2), form="sum")


def test_it_has_no_name_where_layers_are_built_from_a_number_of_channels():
    with pytest.raises(longstate.errors.InputError, match="no layer 'smr'"):
        longstate.models.layer_class("smr")
