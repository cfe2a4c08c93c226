"""What `certify` refuses: layers without a bound, and models that its bound does not describe."""

import pytest
import torch
from torch import nn

from longstate.errors import InputError
from longstate.layers import (
    GRU,
    GRUD,
    LSTM,
    S4D,
    CfC,
    Chimera,
    ConvS5,
    Elman,
    LinearCDE,
    LinearRNN,
    Mamba,
)
from longstate.memory import certify
from longstate.models import LanguageModel, LanguageSpec
from tests.memory.test_certify import make


def test_without_norm_a_radius_is_needed():
    with pytest.raises(InputError, match="radius"):
        certify(Mamba(8))
    assert certify(Mamba(8), radius=3.0).passed


def test_an_unknown_kind_of_norm_gives_no_bound():
    """A norm over the batch lets any length through; so may anything that is only called a norm."""
    model = make(("mamba",))
    for norm in (nn.BatchNorm1d(8), nn.Identity(), nn.LayerNorm((2, 8))):
        model.blocks[0].norm = norm
        with pytest.raises(InputError, match="radius"):
            certify(model)


def test_refuses():
    with pytest.raises(InputError, match="nothing in this Linear can be certified"):
        certify(nn.Linear(2, 2))
    layer = S4D(4)
    layer.D.data[0] = float("nan")
    with pytest.raises(InputError, match="NaN"):
        certify(layer)
    with pytest.raises(InputError, match="cannot read"):
        certify(make(("mamba",)), torch.randint(0, 20, (2, 40)) + 100)


class Louder(Mamba):
    def forward(self, u, state=None, **options):
        return super().forward(50 * u, state, **options)


class LouderLinear(S4D):
    def forward(self, u, state=None, **options):
        y, state = super().forward(u, state, **options)
        return 100 * y, state


def test_a_derived_class_is_not_described_by_its_base():
    model = LanguageModel(LanguageSpec(11, 8, ("mamba",), {}))
    model.blocks[0].mixer = Louder(8, d_state=4)
    own = r"has its own forward\(\) and the selection\(\) of SelectiveLayer"
    for arguments in ({}, {"data": torch.arange(9)[None]}, {"radius": 3.0}):
        with pytest.raises(InputError, match=own):
            certify(model, **arguments)
    with pytest.raises(InputError, match=r"its own forward\(\) and the system\(\) of"):
        certify(LouderLinear(4))

    class Quiet(S4D):
        """Changes nothing that the system does not say."""

        def forward(self, u, state=None, **options):
            return super().forward(u, state, **options)

        def system(self, *, rate=1.0):
            return super().system(rate=rate)

    assert certify(Quiet(4)).passed


def test_code_beside_a_layer_that_may_change_its_input():
    def louder(_, args):
        return (50 * args[0], *args[1:])

    model = LanguageModel(LanguageSpec(11, 8, ("mamba",), {}))
    hook = model.blocks[0].mixer.register_forward_pre_hook(louder)
    with pytest.raises(InputError, match="a hook that may change its input, and no data shows"):
        certify(model)
    with pytest.raises(InputError, match="is not the output of the norm beside it"):
        certify(model, torch.arange(9)[None])
    hook.remove()
    hook = model.blocks[0].mixer.in_proj.register_forward_hook(lambda *given: 50 * given[2])
    with pytest.raises(InputError, match=r"mixer\.in_proj has a hook that may change"):
        certify(model, torch.arange(9)[None])
    hook.remove()
    assert certify(model).passed
    model.blocks[0].norm.forward = lambda x: 50 * x
    with pytest.raises(InputError, match=r"the norm beside .* has no known bound"):
        certify(model)


@pytest.mark.parametrize(
    "layer", [LSTM, GRU, Elman, LinearRNN, LinearCDE, CfC, Chimera, ConvS5, GRUD]
)
def test_layers_without_a_certificate_are_named(layer):
    with pytest.raises(InputError, match=rf"^nothing in this {layer.__name__} can be certified"):
        certify(layer(4))
    model = LanguageModel(LanguageSpec(11, 8, (layer.__name__.lower(), "s4d"), {}))
    assert f"blocks.0.mixer ({layer.__name__})" in certify(model).sentence
