"""Files of an earlier version can be read, and give the same numbers as then."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from longstate import load, save
from longstate.layers import S4D, Mamba, Mamba2
from longstate.models import Stack
from longstate.stream import Stream
from longstate.train import Forecaster, Size, TextModel, TextTraining, Training
from longstate.train import _checkpoint as checkpoint
from tests.saved import (
    EXAMPLE_SIGNALS,
    EXAMPLE_TOKENS,
    FOLDER,
    assert_as_saved,
    cases,
    frame,
    interrupt_after,
    text,
)

layers = pytest.mark.parametrize("layer", ["s4d", "mamba"])


@layers
def test_a_forecaster(layer):
    saved = Forecaster.load(FOLDER / f"forecast_{layer}")
    assert saved.model.spec.gate == "glu"
    forecast = saved.predict(frame()).iloc[:, 1:].to_numpy().copy()
    assert_as_saved(torch.from_numpy(forecast), f"forecast_{layer}")


@layers
def test_a_forecaster_is_written_as_it_was_read(layer, tmp_path):
    Forecaster.load(FOLDER / f"forecast_{layer}").save(tmp_path / "again.safetensors")
    again = Forecaster.load(tmp_path / "again.safetensors")
    forecast = again.predict(frame()).iloc[:, 1:].to_numpy().copy()
    assert_as_saved(torch.from_numpy(forecast), f"forecast_{layer}")


@layers
def test_a_stopped_training_of_a_forecaster_is_continued(layer, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(FOLDER / f"stopped_{layer}", run)
    steps = []
    Forecaster(
        4,
        window=12,
        layers=layer,
        size=Size(d_model=4, n_layers=2, d_state=4),
        training=Training(epochs=2, windows_per_epoch=32, batch_size=16),
    ).fit(frame(), "y", out=run, show=lambda progress: steps.append(progress.step))
    assert steps == [4]  # the one that was left
    assert Forecaster.load(run).model.spec.gate == "glu"
    was, now = (load_file(f / "model.safetensors") for f in (FOLDER / f"forecast_{layer}", run))
    old = {k: v for k, v in now.items() if not k.startswith("choice.")}  # which is new
    assert {k: v.shape for k, v in was.items()} == {k: v.shape for k, v in old.items()}


def test_a_text_run():
    saved = load(FOLDER / "text")
    model, tokens = saved.model, saved.tokens
    with torch.no_grad():
        assert_as_saved(model(torch.tensor([tokens.encode(text()[:20].decode())]))[0], "text")


def test_a_stopped_training_of_a_text_model_is_continued(tmp_path):
    run = tmp_path / "run"
    shutil.copytree(FOLDER / "stopped_text", run)
    steps = []
    TextModel(
        "longhorn,mamba", context=16, d_model=4, n_layers=2,
        training=TextTraining(batch_size=2, steps=6),
    ).fit([FOLDER / "text.txt"], out=run, show=lambda p: steps.append(p.step))  # fmt: skip
    assert steps == [4, 5, 6]


def test_a_language_model_and_its_state():
    model = load(FOLDER / "language.safetensors").model
    stream = Stream(model)
    assert_as_saved(stream.push(EXAMPLE_TOKENS), "language", bits=False)
    stream.load(FOLDER / "language_state.safetensors")
    assert stream.position == 12
    assert_as_saved(stream.push(EXAMPLE_TOKENS.flip(1)), "language_next", bits=False)


def test_a_model_of_transformers():
    pytest.importorskip("transformers")
    from longstate.interop import LongstateForCausalLM

    wrapped = LongstateForCausalLM.from_pretrained(FOLDER / "transformers")
    for model in (wrapped.to_longstate(), load(FOLDER / "transformers")):
        with torch.no_grad():
            assert_as_saved(model(EXAMPLE_TOKENS)[0], "language", bits=False)


def test_a_stack_and_its_state():
    mixers = [
        S4D(6, d_state=4, variant="bilinear"),
        Mamba2(6, d_state=3, d_head=4),
        Mamba(6, d_state=3),
    ]
    stack = Stack(mixers, gate="glu").eval()
    stack.load_state_dict(checkpoint.load(FOLDER / "backbone.safetensors", "backbone")[0])
    stream = Stream(stack)
    assert_as_saved(stream.push(EXAMPLE_SIGNALS), "backbone", bits=False)
    stream.load(FOLDER / "backbone_state.safetensors")
    assert_as_saved(stream.push(EXAMPLE_SIGNALS.flip(1)), "backbone_next", bits=False)


def test_a_classifier_whose_filters_do_not_compete(tmp_path):
    X, _ = cases()
    model = load(FOLDER / "series" / "classifier.safetensors")
    save(model, tmp_path / "again.safetensors")
    for each in (model, load(tmp_path / "again.safetensors")):
        scores = each._ridge_scores(each._read(X[:, :, ::-1]))
        assert_as_saved(scores, "scores", FOLDER / "series")


def test_a_run_that_this_version_stops_is_continued(tmp_path):
    """The same path as above, with files of today."""
    options = {
        "layers": "mamba",
        "window": 12,
        "size": Size(d_model=4, n_layers=2, d_state=4),
        "training": Training(epochs=2, windows_per_epoch=32, batch_size=16),
    }
    whole = Forecaster(4, **options).fit(frame(), "y")
    assert whole.model.spec.gate == "none"  # new models honour the gate of the layer itself
    Forecaster(4, **options).fit(frame(), "y", out=tmp_path, show=interrupt_after(3))
    resumed = Forecaster(4, **options).fit(frame(), "y", out=tmp_path)
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
