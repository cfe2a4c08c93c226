"""PanelLinear: nn.Linear in other formats."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from longstate.models._decoding import PanelLinear
from longstate.ops.matvec import quantise_rows
from longstate.testing import assert_within_reference_error


def linear(i=70, o=100, bias=True):
    torch.manual_seed(0)
    return nn.Linear(i, o, bias=bias)


def rounded(weight, kind):
    if kind == "int8":
        q, scale = quantise_rows(weight)
        return q.double() * scale.double()[:, None]
    return weight.to(getattr(torch, kind)).double()


@pytest.mark.parametrize("kind", ["float32", "bfloat16", "int8"])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (30,), (0,)])
def test_is_the_linear_map_of_its_rounded_weights(kind, bias, shape):
    plain = linear(bias=bias)
    layer = PanelLinear(plain.weight, plain.bias, kind)
    x = torch.randn(*shape, 70, dtype=torch.float64)
    W = rounded(plain.weight.detach(), kind)
    expected = x @ W.T + (plain.bias.detach().double() if bias else 0)
    assert_close(layer.double()(x), expected)


def test_float32_is_as_good_as_linear():
    plain = linear()
    layer, x = PanelLinear(plain.weight, plain.bias), torch.randn(4, 70)
    with torch.no_grad():
        exact = nn.functional.linear(x.double(), plain.weight.double(), plain.bias.double())
        assert_within_reference_error(layer(x), exact, plain(x))
        assert layer(x.bfloat16()).dtype == torch.bfloat16


def test_gradients_of_the_input_are_computed():
    plain = linear()
    layer = PanelLinear(plain.weight, plain.bias)
    x = torch.randn(2, 70, requires_grad=True)
    (found,) = torch.autograd.grad(layer(x).square().sum(), x)
    (expected,) = torch.autograd.grad(plain(x).square().sum(), x)
    assert_close(found, expected)
    assert not list(layer.parameters())


def test_is_a_copy_that_saves_and_loads():
    plain, other = linear(), linear()
    layer = PanelLinear(plain.weight, plain.bias, "int8")
    nn.init.normal_(other.weight)
    loaded = PanelLinear(other.weight, other.bias, "int8")
    loaded.load_state_dict(layer.state_dict())
    x = torch.randn(2, 70)
    expected = layer(x)
    nn.init.zeros_(plain.weight)
    nn.init.zeros_(plain.bias)
    assert torch.equal(layer(x), expected)
    assert torch.equal(loaded(x), expected)
    assert repr(layer) == "PanelLinear(70, 100, int8, bias=True)"


def test_refuses():
    with pytest.raises(ValueError, match="float32, bfloat16 or int8; got 'int4'"):
        PanelLinear(torch.ones(2, 2), None, "int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="not finite"):
        PanelLinear(torch.full((2, 2), torch.nan), None, "int8")
