"""States that the first version with codecs parked are read, and go on as they did."""

import pytest
import torch

from longstate import load
from longstate.compress import StateCodec, plain_codec, unpark
from longstate.stream import Stream
from tests.saved import EXAMPLE_TOKENS, FOLDER, assert_as_saved

PARKED = FOLDER / "parked"


@pytest.fixture(scope="module")
def model():
    return load(FOLDER / "language.safetensors").model.eval()


@pytest.fixture(scope="module")
def codec():
    return StateCodec.load(PARKED / "codec.safetensors")


def next_outputs(stream):
    with torch.no_grad():
        return stream.push(EXAMPLE_TOKENS.flip(1))


def test_a_stream_that_was_parked(model, codec):
    stream = Stream(model)
    stream.load(PARKED / "state.safetensors", codec=codec)
    assert stream.position == 12
    assert_as_saved(next_outputs(stream), "fitted", PARKED, bits=False)


@pytest.mark.parametrize("name", ["fitted", "plain"])
def test_a_parked_state(name, model, codec):
    codec = codec if name == "fitted" else plain_codec(model, "int4")
    state = unpark((PARKED / f"{name}.bin").read_bytes(), codec)
    assert_as_saved(next_outputs(Stream(model, state)), name, PARKED, bits=False)
