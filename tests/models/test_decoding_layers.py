"""Which classes prepare_for_decoding swaps in, and when their kernel runs."""

import copy

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import Mamba
from longstate.models import LanguageModel, LanguageSpec, prepare_for_decoding
from longstate.models._block import Block
from longstate.models._decoding._mamba import DecodingBlock, DecodingMamba
from longstate.stream import Stream


@pytest.mark.parametrize("norm", ["rms", "layer"])
@pytest.mark.parametrize("gate", ["auto", "mlp", "glu"])
def test_a_block_is_one_call_where_its_norm_and_gate_allow(norm, gate, monkeypatch):
    torch.manual_seed(0)
    spec = LanguageSpec(70, 16, ("mamba", "longhorn"), norm=norm, gate=gate)
    fast = prepare_for_decoding(LanguageModel(spec).double()).double()
    block, u = fast.blocks[0], torch.randn(2, 16, dtype=torch.float64)
    state = block.mixer.init_state(2)
    assert_close(block.step(u, state)[0], block(u[:, None], state)[0][:, 0])
    mask = torch.tensor([True, False])
    masked = block(u[:, None], state, mask=mask[:, None])[0][:, 0]
    assert_close(block.step(u, state, mask=mask)[0], masked)
    assert_close(block.step(u, state, rate=0.5)[0], block(u[:, None], state, rate=0.5)[0][:, 0])
    monkeypatch.setattr("longstate.models._block.apply_norm", None)  # the plain block's way
    if norm == "rms" and gate == "auto":
        block.step(u, state)
        block(u[:, None])
        with pytest.raises(TypeError):
            block(u[:, None], rate=0.5)
        with pytest.raises(TypeError):
            block.step(u, state, mask=mask)
    else:
        with pytest.raises(TypeError):
            block.step(u, state)
        with pytest.raises(TypeError):
            block(u[:, None])


def test_a_plain_model_uses_no_decoding_kernel():
    model = LanguageModel(LanguageSpec(70, 16, ("mamba",)))
    fast = prepare_for_decoding(model)
    assert type(model.blocks[0].mixer) is Mamba
    assert "step" not in vars(Mamba)
    assert type(fast.blocks[0].mixer) is not Mamba
    assert isinstance(fast.blocks[0].mixer, Mamba)


def test_a_saved_state_does_not_depend_on_the_decoding_class(tmp_path):
    torch.manual_seed(0)
    fast = prepare_for_decoding(LanguageModel(LanguageSpec(70, 16, ("mamba",))))
    plain = copy.deepcopy(fast)  # as it was when a step was part of the plain class
    for module in plain.modules():
        module.__class__ = {DecodingMamba: Mamba, DecodingBlock: Block}.get(
            type(module), type(module)
        )
    for one, other in ((fast, plain), (plain, fast)):
        stream = Stream(one)
        stream.push(torch.randint(70, (1, 5)))
        stream.save(tmp_path / "state")
        Stream(other).load(tmp_path / "state")
