"""Layers by name, also such as `smr:mamba`: trainers make, save, load and stream them."""

import numpy as np
import pandas as pd
import pytest
import torch

import longstate
from longstate import Classifier, Forecaster, Stream, TextModel
from longstate.errors import InputError
from longstate.layers import S4D, S5, SMR, Attention, LinearCDE, Longhorn, Mamba, Spiking, Timed
from longstate.models import LanguageModel, LanguageSpec, make_layer, prepare_for_decoding
from longstate.tasks._candidates import candidate
from longstate.train import Size, TextTraining, Training
from tests.saved import frame
from tests.train.test_classifier import waves


def kinds(blocks) -> list[tuple[type, type]]:
    return [(type(b.mixer), type(b.mixer.layer)) for b in blocks.each_block()]


def test_a_name_makes_the_layer_with_the_options_of_the_inner_one():
    layer = make_layer("SMR:Mamba", 6, d_state=5)
    assert (type(layer), type(layer.layer), layer.layer.d_state) == (SMR, Mamba, 5)
    assert type(make_layer("s5", 6)) is S5
    assert type(candidate("smr:mamba2").make(32)) is SMR
    for name in ("smr", "smr:smr", "smr:", "smr:lstn", "gate:s5"):
        with pytest.raises(InputError, match="there is no layer"):
            make_layer(name, 6)


SMALL = {
    "window": 24, "size": Size(d_model=16, n_layers=2, d_state=4),
    "training": Training(epochs=1, windows_per_epoch=64),
}  # fmt: skip


def mixers(model) -> list[LinearCDE]:
    return [block.mixer for block in model.each_block()]


def test_matrices_of_an_input_are_stable_wherever_they_are_trained(tmp_path):
    forecaster = Forecaster(6, layers="linearcde", **SMALL).fit(frame(), "y", out=tmp_path / "f")
    X, y = waves(8)
    classifier = Classifier("linearcde", d_model=4, n_layers=1, epochs=1, convolutions=False)
    text = TextModel("linearcde", d_model=8, n_layers=1, context=8, training=TextTraining(steps=1))
    text.fit(text="to be or not to be " * 50, out=tmp_path / "t")
    again = [longstate.load(tmp_path / name).model for name in "ft"]
    made = mixers(forecaster.model.backbone) + mixers(classifier.fit(X, y).network_.backbone)
    made += mixers(again[0].backbone) + mixers(again[1])
    assert len(made) == 6
    assert all(type(layer) is LinearCDE and layer.stable for layer in made)
    assert candidate("linearcde").make(8).stable


def test_a_forecaster_may_have_layers_without_states(tmp_path):
    model = Forecaster(6, layers="attention,s4d", **SMALL).fit(frame(), "y", out=tmp_path)
    again = longstate.load(tmp_path)
    assert [type(layer) for layer in mixers(again.model.backbone)] == [Attention, S4D]
    pd.testing.assert_frame_equal(model.predict(frame()), again.predict(frame()), check_exact=True)


def test_classifier(tmp_path):
    X, y = waves(20)
    model = Classifier("smr:s5,SMR:Mamba", d_model=8, epochs=1, convolutions=False).fit(X, y)
    model.save(tmp_path / "model.safetensors")
    again = longstate.load(tmp_path / "model.safetensors")
    assert kinds(again.network_.backbone) == [(SMR, S5), (SMR, Mamba)]
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    p = again.stream().push(X[0])
    torch.testing.assert_close(
        torch.from_numpy(p[-1]).float(),
        torch.from_numpy(model.predict_proba(X[:1], 1.0)[0]).float(),
    )


def test_forecaster(tmp_path):
    model = Forecaster(6, layers="smr:s4d", **SMALL).fit(frame(), "y", out=tmp_path)
    again = longstate.load(tmp_path)
    assert kinds(again.model.backbone) == [(SMR, S4D)] * 2
    pd.testing.assert_frame_equal(model.predict(frame()), again.predict(frame()), check_exact=True)


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    folder = tmp_path_factory.mktemp("smr")
    model = TextModel(
        "smr:longhorn,smr:s4d", d_model=16, n_layers=2, context=16, training=TextTraining(steps=2)
    )
    model.fit(text="to be or not to be " * 100, out=folder / "run")
    return longstate.load(folder / "run").model


def test_text_model_streams_and_decodes(text, tmp_path):
    assert kinds(text) == [(SMR, Longhorn), (SMR, S4D)]
    tokens = torch.randint(0, 256, (1, 12))
    with torch.no_grad():
        whole = text(tokens)[0]
    stream = Stream(text)
    pieces = [stream.push(tokens[:, :5]), stream.push(tokens[:, 5:6])]
    stream.save(tmp_path / "state.safetensors")
    other = Stream(text)
    other.load(tmp_path / "state.safetensors")
    pieces.append(other.push(tokens[:, 6:]))
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    fast = prepare_for_decoding(text)
    with torch.no_grad():
        torch.testing.assert_close(fast(tokens)[0], whole)


def test_a_reduced_text_model_is_described_as_it_is(text, tmp_path):
    small, _ = longstate.reduce(text, [torch.randint(0, 200, (2, 16))], keep=0.5)
    assert small.blocks[1].mixer.layer.d_state < text.blocks[1].mixer.layer.d_state
    longstate.save(small, tmp_path / "small.safetensors")
    again = longstate.load(tmp_path / "small.safetensors")
    tokens = torch.arange(12)[None]
    with torch.no_grad():
        assert torch.equal(again(tokens)[0], small(tokens)[0])


def test_every_wrapper_can_be_named(tmp_path):
    spec = LanguageSpec(11, 8, ("spiking:s4d", "timed:mamba", "smr:s5"))
    model = LanguageModel(spec).eval()
    assert kinds(model) == [(Spiking, S4D), (Timed, Mamba), (SMR, S5)]
    model.save(tmp_path / "model")
    tokens = torch.arange(6)[None]
    assert torch.equal(longstate.load(tmp_path / "model")(tokens)[0], model(tokens)[0])
