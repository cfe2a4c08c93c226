"""What a person finds after `import longstate`: names, and one way to open what was saved."""

import importlib
import inspect
import json
from pathlib import Path

import pytest
import torch

import longstate
from longstate import _tensorfile as tensorfile
from longstate.errors import InputError
from longstate.interop import save_language_model
from longstate.layers import (
    S4D,
    S5,
    GatedSSM,
    LinOSS,
    Mamba,
)
from longstate.models import ForecastModel, ForecastSpec, LanguageModel, LanguageSpec
from longstate.stream import save_state
from longstate.train import Forecaster, TextModel
from tests.test_imports import HEAVY, python
from tests.train.helpers import QUICK, TINY, hourly
from tests.train.text_helpers import LETTERS, tiny

PACKAGES = [
    *(
        "bench",
        "compress",
        "datasets",
        "interop",
        "layers",
        "memory",
        "models",
        "ops",
        "reports",
        "stream",
    ),
    *("systems", "tasks", "testing", "train"),
]


def test_the_front_door_lists_packages_and_names():
    names = set(dir(longstate))
    assert names >= {*PACKAGES, "Forecaster", "TextModel", "LanguageModel", "Stream"}
    assert names >= {"load", "save", "generate", "prepare_for_decoding", "InputError"}
    with pytest.raises(AttributeError, match="module 'longstate' has no attribute 'nonsense'"):
        longstate.nonsense  # noqa: B018


@pytest.mark.parametrize("name", ["", *PACKAGES])
def test_every_listed_name_exists_and_is_public(name):
    package = importlib.import_module(f"longstate.{name}".rstrip("."))
    names = dir(package)
    assert names
    for listed in names:
        assert not listed.startswith("_")
        value = getattr(package, listed)
        if inspect.ismodule(value):
            assert value.__name__ == f"{package.__name__}.{listed}"
        else:
            assert getattr(value, "__module__", "longstate").startswith(("longstate", "typing"))


def test_dir_loads_nothing_heavy():
    loaded = python(
        "import sys, torch; before = set(sys.modules); import longstate; dir(longstate);"
        "[getattr(longstate, n) for n in ('layers', 'models', 'memory', 'ops', 'systems',"
        " 'stream', 'interop', 'datasets', 'train', 'testing')];"
        "[dir(longstate.stream), dir(longstate.train), longstate.Stream, longstate.TextModel];"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    ).split()
    assert not set(loaded) & (set(HEAVY) - {"safetensors"})


def test_type_checkers_see_the_names(tmp_path):
    api = pytest.importorskip("mypy.api")
    (tmp_path / "user.py").write_text(
        "import longstate\n"
        "reveal_type(longstate.load)\n"
        "reveal_type(longstate.TextModel('s4d').generate('a'))\n"
        "reveal_type(longstate.layers.S4D(8))\n"
        "longstate.nonsense\n"
    )
    root = Path(__file__).resolve().parent.parent
    config = str(root / "pyproject.toml")
    said, _, _ = api.run(
        ["--config-file", config, "--cache-dir", str(root / ".mypy_cache"),
         str(tmp_path / "user.py")]
    )  # fmt: skip
    lines = said.splitlines()
    assert "Forecaster" in lines[0]
    assert "TextModel" in lines[0]
    assert '"builtins.str"' in lines[1] or '"str"' in lines[1]
    assert "S4D" in lines[2]
    assert 'has no attribute "nonsense"' in lines[3]


def same(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


LAYERS = {
    "s4d": lambda: S4D(4, d_state=6),
    "s5": lambda: S5(4, d_state=8, n_blocks=2, bidirectional=True),
    "linoss": lambda: LinOSS(4, d_state=6),
    "gated": lambda: GatedSSM(4, d_state=6, top_k=2, floor=0.1),
    "mamba": lambda: Mamba(4, d_state=3, expand=3, d_conv=2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_saved_and_loaded(name, tmp_path):
    layer = LAYERS[name]().eval()
    longstate.save(layer, tmp_path / "layer.safetensors")
    loaded = longstate.load(tmp_path / "layer.safetensors")
    assert type(loaded) is type(layer)
    assert same(loaded, layer)
    u = torch.randn(2, 10, 4)
    assert torch.equal(loaded(u)[0], layer(u)[0])


def test_a_language_model_is_saved_and_loaded(tmp_path):
    model = LanguageModel(LanguageSpec(40, 8, ("mamba", "s4d"), options={"s4d": {"d_state": 4}}))
    model.save(tmp_path / "model.safetensors")
    for loaded in (
        longstate.load(tmp_path / "model.safetensors"),
        LanguageModel.load(tmp_path / "model.safetensors"),
    ):
        assert type(loaded) is LanguageModel
        assert loaded.spec == model.spec
        assert not loaded.training
        assert same(loaded, model)
    with pytest.raises(InputError, match="do not fit its spec: a model that was prepared"):
        longstate.prepare_for_decoding(model).save(tmp_path / "fast.safetensors")
    assert not (tmp_path / "fast.safetensors").exists()
    with pytest.raises(InputError, match="holds a language model without its tokens"):
        TextModel.load(tmp_path / "model.safetensors")


def test_a_forecast_model_is_saved_and_loaded(tmp_path):
    spec = ForecastSpec(("y",), (), (), None, None, (), 12, 3, 1, (0.5,))
    layers = iter((S4D(4, d_state=6), Mamba(4, d_state=3)))
    model = ForecastModel(spec, lambda _: next(layers), d_model=4, dropout=0.25).eval()
    model.save(tmp_path / "model.safetensors")
    loaded = longstate.load(tmp_path / "model.safetensors")
    assert type(loaded) is ForecastModel
    assert loaded.spec == spec
    assert same(loaded, model)
    assert str(loaded) == str(model)


def test_a_text_model_is_saved_and_loaded(tmp_path):
    model = tiny(steps=2).fit(text=LETTERS.decode() * 50)
    model.save(tmp_path / "letters.safetensors")
    loaded = longstate.load(tmp_path / "letters.safetensors")
    assert type(loaded) is TextModel
    assert same(loaded.model, model.model)
    assert loaded.settings() == model.settings()
    assert loaded.history.looks[1:] == model.history.looks[1:]
    assert loaded.score(text="abcdefgh") == model.score(text="abcdefgh")


def test_runs_of_both_kinds_are_opened(tmp_path):
    (tmp_path / "a.txt").write_bytes(LETTERS * 50)
    tiny(steps=2).fit(tmp_path / "a.txt", out=tmp_path / "text")
    Forecaster(4, window=24, size=TINY, training=QUICK).fit(
        hourly(), "y", out=tmp_path / "forecast"
    )
    for run, kind in (("text", TextModel), ("forecast", Forecaster)):
        for path in (tmp_path / run, tmp_path / run / "model.safetensors"):
            assert type(longstate.load(path)) is kind


def test_a_published_checkpoint_is_opened(tmp_path):
    model = LanguageModel(LanguageSpec(40, 8, ("mamba",)))
    save_language_model(model, tmp_path / "theirs")
    for path in (tmp_path / "theirs", tmp_path / "theirs" / "model.safetensors"):
        assert same(longstate.load(path), model)


def test_a_model_saved_by_transformers_is_opened(tmp_path):
    pytest.importorskip("transformers", reason="needs the extra 'hf'")
    from longstate.interop import LongstateForCausalLM

    model = LanguageModel(LanguageSpec(40, 8, ("s4d",)))
    LongstateForCausalLM.from_longstate(model).save_pretrained(tmp_path / "hf")
    assert same(longstate.load(tmp_path / "hf"), model)


def test_what_cannot_be_opened_or_saved_is_one_sentence(tmp_path):
    layer = S4D(4)
    save_state(tmp_path / "state", layer, layer.init_state(1))
    (tmp_path / "text.txt").write_text("no model")
    tensorfile.save(tmp_path / "strange", "soup", {"a": torch.zeros(1)}, {})
    (tmp_path / "half").mkdir()
    tensorfile.save(tmp_path / "half" / "checkpoint.safetensors", "training", {}, {})
    (tmp_path / "empty").mkdir()
    for name, message in {
        "stat": "there is no run or checkpoint .*; did you mean .*state",
        "state": "holds a state; longstate.stream.load_state reads it",
        "text.txt": "is a text file; a run of `longstate train`, .* was expected",
        "strange": "holds a soup; a model was expected",
        "half": "has not written a model yet .* run the same command again",
        "half/checkpoint.safetensors": "holds a checkpoint of a training",
        "empty": "neither a run .* nor a checkpoint",
    }.items():
        with pytest.raises(InputError, match=message):
            longstate.load(tmp_path / name)
    for thing, message in (
        (
            torch.nn.Linear(2, 2),
            "a Linear; a Forecaster, a Classifier, a Regressor, a TextModel",
        ),
        (type("Mine", (S4D,), {})(4), "Mine is not a layer of longstate.layers"),
    ):
        with pytest.raises(InputError, match=message):
            longstate.save(thing, tmp_path / "out")


def test_a_run_of_an_older_version_is_loaded_and_continued(tmp_path):
    """Settings had other names, and the model's file did not hold them."""
    (tmp_path / "a.txt").write_bytes(LETTERS * 50)
    run = tmp_path / "run"
    model = tiny(steps=4).fit(tmp_path / "a.txt", out=run)
    old = {"layers": "layer", "batch_size": "batch"}
    added = ("weight_decay", "dynamics_rate")
    settings = {old.get(n, n): v for n, v in model.settings().items() if n not in added}
    (run / "settings.json").write_text(json.dumps(settings))
    tensors, facts = tensorfile.load(run / "model.safetensors", "language")
    del facts["settings"]
    tensorfile.save(run / "model.safetensors", "language", tensors, facts)
    loaded = longstate.load(run)
    assert loaded.settings() == model.settings()
    tensors, facts = tensorfile.load(run / "checkpoint.safetensors", "training")
    words = {"text": facts["identity"]["text"]} | {n: str(v) for n, v in settings.items()}
    facts["identity"] = {n.replace("_", " "): v for n, v in words.items()}
    tensorfile.save(run / "checkpoint.safetensors", "training", tensors, facts)
    tiny(steps=4).fit(tmp_path / "a.txt", out=run, show=pytest.fail)  # finished: nothing to do
    with pytest.raises(InputError, match=r"its weight decay is 0\.1, here it is 0\.2"):
        tiny(steps=4, weight_decay=0.2).fit(tmp_path / "a.txt", out=run)
