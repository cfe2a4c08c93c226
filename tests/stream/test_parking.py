"""A stream saved in few bits: what goes back, and what is refused."""

import pytest
import torch

from longstate.compress import plain_codec
from longstate.errors import InputError
from longstate.layers import S4D
from longstate.stream import Stream, load_state, save_state
from longstate.stream._tree import flatten
from tests.layers.test_contract import LAYERS
from tests.stream.helpers import assert_same, backbone, values


@pytest.fixture
def layer():
    return S4D(3, d_state=4)


@pytest.mark.parametrize("number", ["int8", "float16"])
@pytest.mark.parametrize("name", [*LAYERS, "backbone"])
def test_a_parked_state_of_every_layer(name, number, tmp_path):
    module = (backbone() if name == "backbone" else LAYERS[name]()).eval()
    if getattr(module, "grows", False):
        with pytest.raises(InputError, match="gets longer with every sample"):
            plain_codec(module, number)
        return
    with torch.no_grad():
        _, state = module(torch.randn(2, 7, module.d_model))
    if not flatten(state):
        return
    codec = plain_codec(module, number)
    save_state(tmp_path / "s", module, state, codec=codec)
    assert_same(load_state(tmp_path / "s", module, codec=codec), codec.round_trip(state))


def test_a_parked_state_needs_its_codec(layer, tmp_path):
    codec, other = (plain_codec(layer, number) for number in ("int8", "int4"))
    path = tmp_path / "s"
    stream = Stream(layer)
    stream.push(torch.randn(2, 5, 3))
    stream.save(path, codec=codec)
    again = Stream(layer)
    for given, what in ((None, "no codec was given"), (other, f"this is {other.identity}")):
        with pytest.raises(InputError, match=f"parked with the codec {codec.identity}, and {what}"):
            again.load(path, codec=given)
    again.load(path, codec=codec)
    assert again.position == 5
    assert_same(again.state, codec.round_trip(stream.state))
    twin = S4D(3, d_state=4)
    with pytest.raises(InputError, match="with other weights"):
        load_state(path, twin, codec=codec)


def test_a_damaged_parked_state(layer, tmp_path):
    codec, path = plain_codec(layer, "int8"), tmp_path / "s"
    save_state(path, layer, values(layer), codec=codec)
    whole = path.read_bytes()
    for at in range(0, len(whole), 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        with pytest.raises(InputError, match=r"damaged|is not a longstate|format version|cannot"):
            load_state(path, layer, codec=codec)
        path.write_bytes(whole[:at])
        with pytest.raises(InputError, match=r"damaged|is not a longstate"):
            load_state(path, layer, codec=codec)


def test_a_codec_leaves_a_state_alone_that_was_not_parked(layer, tmp_path):
    save_state(tmp_path / "s", layer, values(layer))
    codec = plain_codec(layer, "int2")
    assert_same(load_state(tmp_path / "s", layer, codec=codec), load_state(tmp_path / "s", layer))
