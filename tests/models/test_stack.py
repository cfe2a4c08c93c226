from functools import partial

import pytest
import torch

from longstate.errors import InputError
from longstate.layers import S4, S4D
from longstate.models import Stack, layer_class
from longstate.testing import check_layer


def stack(layer, layers=2):
    return Stack([layer(3, d_state=4) for _ in range(layers)])


def test_a_stack_of_layers_is_a_layer():
    check_layer(partial(stack, S4D), compiles=False, time=15)


def test_a_stack_refuses_what_its_layers_refuse():
    check_layer(partial(stack, S4), takes_dt=False, compiles=False, time=15)


def test_dropout_only_in_training():
    torch.manual_seed(0)
    backbone = Stack([S4D(4, d_state=4)], dropout=0.5)
    u = torch.randn(2, 9, 4)
    assert not torch.equal(backbone(u)[0], backbone(u)[0])
    backbone.eval()
    assert torch.equal(backbone(u)[0], backbone(u)[0])


def test_layers_by_name():
    assert layer_class("s4d") is S4D
    assert layer_class("S4") is S4
    with pytest.raises(InputError, match=r"no layer 's4x'; did you mean '.*'\?"):
        layer_class("s4x")
    with pytest.raises(InputError, match="no layer 'layer'"):
        layer_class("layer")
