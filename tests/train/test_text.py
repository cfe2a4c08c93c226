"""Training a language model on text files."""

import json
import math
import os
import signal

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.models import LanguageModel, LanguageSpec
from longstate.train import ByteTokens, TextModel
from longstate.train import _text_task as text_task
from longstate.train._corpus import open_corpus
from longstate.train._text_fit import loop_settings
from longstate.train._text_task import TextTask
from tests.train.text_helpers import LETTERS, history, make_tokenizer, tiny, words


@pytest.fixture
def text(tmp_path):
    return words(tmp_path / "text.txt")


def weights(run):
    return TextModel.load(run).model.state_dict()


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_learns_more_than_the_frequencies(tmp_path):
    path = tmp_path / "periodic.txt"
    path.write_bytes(LETTERS * 200)
    model = tiny(steps=60).fit([path], out=tmp_path / "run")
    # Eight letters, each as frequent as the others: their entropy is 3 bits.
    assert model.history.looks[0].bits_per_byte > 3
    assert model.history.looks[-1].bits_per_byte < 1
    options = {"max_tokens": 16, "temperature": 0}
    for same in (model, TextModel.load(tmp_path / "run")):
        assert same.generate("abcdefgh" * 3, **options) == "abcdefgh" * 2
        assert "".join(same.stream("abcdefgh" * 3, **options)) == "abcdefgh" * 2


def test_a_run_is_a_folder(text, tmp_path):
    found = tiny().fit([text], out=tmp_path / "run")
    assert sorted(os.listdir(tmp_path / "run")) == [
        "checkpoint.safetensors",
        "history.json",
        "model.safetensors",
        "settings.json",
        "validation.npy",
    ]
    told = history(tmp_path / "run")
    assert told["ended"] == found.history.ended == "finished"
    assert [look["step"] for look in told["looks"]] == list(range(0, 21, 2))
    assert told["looks"][0]["train_loss"] is None
    last = told["looks"][-1]
    assert last["perplexity"] == pytest.approx(2 ** last["bits_per_byte"])  # bytes are tokens
    corpus = open_corpus([text], ByteTokens(), tmp_path)
    assert last["passes"] == pytest.approx(20 * 4 * 32 / corpus.train)
    settings = json.loads((tmp_path / "run" / "settings.json").read_text())
    assert (settings["layers"], settings["context"], settings["seed"]) == ("s4d", 32, 0)


@pytest.mark.parametrize("stop", [1, 2, 3, 19])
def test_an_interrupted_and_resumed_run_equals_an_uninterrupted_one(stop, text, tmp_path):
    tiny().fit([text], out=tmp_path / "whole")

    def show(progress):
        if progress.step == stop:
            os.kill(os.getpid(), signal.SIGINT)

    found = tiny().fit([text], out=tmp_path / "run", show=show)
    assert found.history.ended == "interrupted"
    TextModel.load(tmp_path / "run")  # what was learnt so far is there
    steps = []
    found = tiny().fit([text], out=tmp_path / "run", show=lambda p: steps.append(p.step))
    assert (found.history.ended, steps[0]) == ("finished", stop + 1)
    assert_same(weights(tmp_path / "run"), weights(tmp_path / "whole"))
    looks, whole = history(tmp_path / "run")["looks"], history(tmp_path / "whole")["looks"]
    assert looks[1:] == whole[1:]


def test_a_finished_run_is_unchanged_and_another_is_refused(text, tmp_path):
    tiny().fit([text], out=tmp_path / "run")
    before = weights(tmp_path / "run")
    tiny().fit([text], out=tmp_path / "run", show=pytest.fail)
    assert_same(weights(tmp_path / "run"), before)
    with pytest.raises(InputError, match="another run: its context is 32, here it is 16; choose"):
        tiny(context=16).fit([text], out=tmp_path / "run")
    text.write_bytes(text.read_bytes() + b"more")
    with pytest.raises(InputError, match="another run: its text is "):
        tiny().fit([text], out=tmp_path / "run")
    assert_same(weights(tmp_path / "run"), before)


def test_the_same_seed_gives_the_same_run(text, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)  # the state outside must not matter
        tiny(steps=3, seed=seed).fit([text], out=tmp_path / name)
    assert_same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not torch.equal(
        weights(tmp_path / "a")["embedding.weight"], weights(tmp_path / "c")["embedding.weight"]
    )


def test_a_loss_that_is_not_finite_keeps_the_best(text, tmp_path):
    with pytest.raises(InputError, match=r"stopped at step \d+: .*run holds the best weights"):
        tiny(learning_rate=1e30).fit([text], out=tmp_path / "run")
    assert all(bool(w.isfinite().all()) for w in weights(tmp_path / "run").values())
    assert history(tmp_path / "run")["looks"]


def test_minutes_end_a_run_and_lower_the_rate(text, tmp_path, monkeypatch):
    places = []

    def set_rate(optimiser, step, total):
        places.append(step / total)

    monkeypatch.setattr("longstate.train._loop.set_rate", set_rate)
    model = tiny(steps=None).fit([text], minutes=0.02)
    assert model.history.ended == "out of time"
    assert model.training.minutes == 0.02
    assert places == sorted(places)
    assert places[-1] > 0.5


def test_epochs_are_passes(text, tmp_path):
    tiny(steps=None, epochs=0.25).fit([text], out=tmp_path / "run")
    train = open_corpus([text], ByteTokens(), tmp_path).train
    steps = round(0.25 * train / (4 * 32))
    last = history(tmp_path / "run")["looks"][-1]
    assert (last["step"], last["passes"]) == (steps, steps * 4 * 32 / train)


def test_a_pattern_of_layers_repeats():
    assert TextModel("mamba, s4d", n_layers=5).layers == (
        "mamba",
        "s4d",
        "mamba",
        "s4d",
        "mamba",
    )
    assert TextModel("Mamba,mamba,s4d").layers == ("mamba", "mamba", "s4d")
    assert set(TextModel("s5").layers) == {"s5"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"layers": "mambo"}, "there is no layer 'mambo'; did you mean 'mamba'"),
        ({"layers": "mamba,,s4d"}, "there is no layer ''"),
        ({"context": 0}, "context must be a whole number of at least 1; got 0"),
        ({"n_layers": 0}, "n_layers must be a whole number of at least 1; got 0"),
        ({"layers": "4"}, "layers must be names, such as 'mamba,s4d'; got '4'"),
        ({"layers": "s4d,mamba"}, "2 layers need n_layers of at least 2; got 1"),
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1; got 0"),
        ({"minutes": -1.0}, "minutes must be a number above 0; got -1.0"),
        ({"learning_rate": math.nan}, "learning_rate must be a number above 0; got nan"),
        ({"steps": 1, "epochs": 1.0}, "steps or epochs, not both"),
        ({"seed": -1}, "seed must be a whole number of at least 0; got -1"),
    ],
)
def test_settings_out_of_range(wrong, message):
    with pytest.raises(InputError, match=message):
        tiny(**wrong)


def make_task(path, folder, context=32, tokens=None):
    corpus = open_corpus([path], tokens or ByteTokens(), folder)
    torch.manual_seed(0)
    from longstate.models import LanguageModel, LanguageSpec

    model = LanguageModel(LanguageSpec(300, 8, ("s4d",))).double().eval()
    return TextTask(
        model, corpus, context, steps=7, settings=loop_settings(tiny().training, 7), seed=0
    )


@pytest.mark.parametrize("context", [7, 32, 100, 10**6])
@torch.no_grad()
def test_bits_per_byte_is_the_sum_over_all_tokens(context, text, tmp_path):
    task = make_task(text, tmp_path, context)
    valid = torch.from_numpy(np.frombuffer(text.read_bytes(), np.uint8)[task.corpus.train :].copy())
    total = 0.0
    for start in range(0, len(valid) - 1, context):
        piece = valid[start : start + context + 1].long()
        logits, _ = task.model(piece[None, :-1])
        total += float(F.cross_entropy(logits[0], piece[1:], reduction="sum"))
    expected = total / math.log(2) / (len(valid) - 1)
    assert_close(task.validate(), expected)


@torch.no_grad()
def test_a_long_validation_part_is_sampled(text, tmp_path, monkeypatch):
    monkeypatch.setattr(text_task, "VALIDATION_TOKENS", 200)
    sampled = make_task(text, tmp_path)
    seen = []
    window = sampled.corpus.window
    object.__setattr__(sampled.corpus, "window", lambda s, n: seen.append((s, n)) or window(s, n))
    found = sampled.validate()
    assert len(seen) == 200 // 32
    losses = sampled._losses(np.array([s for s, _ in seen]), 32)
    assert_close(found, float(losses.mean()) / math.log(2))  # bytes are tokens
    assert seen[0][0] == sampled.corpus.train
    assert max(s + n for s, n in seen) <= sampled.corpus.tokens


def test_training_windows_stay_out_of_the_validation_part(text, tmp_path):
    train = make_task(text, tmp_path).corpus.train
    task = make_task(text, tmp_path, context=train - 3)  # three places are left
    batches = [b for epoch in range(7) for b in task.epoch(epoch)]
    assert len(batches) == 7
    assert set(np.concatenate(batches).tolist()) == {0, 1, 2}
    far = [b for epoch in range(7) for b in make_task(text, tmp_path).epoch(epoch)]
    assert len({tuple(b) for b in far}) == 7


def test_bits_per_byte_does_not_depend_on_the_tokenizer(text, tmp_path):
    from longstate.train import FileTokens

    tokens = FileTokens(make_tokenizer(tmp_path / "tokenizer.json"))
    task = make_task(text, tmp_path, tokens=tokens)
    with torch.no_grad():
        task.model.embedding.weight.zero_()  # every token is as likely as any other
        bits = task.validate()
    data = text.read_bytes()
    tail = data[len(data) - task.corpus.validation_bytes :]
    assert task.corpus.tokens - task.corpus.train < 0.6 * len(tail)
    per_byte = math.log2(300) * len(tokens.encode(tail.decode())) / len(tail)
    assert_close(bits, per_byte)
    assert_close(task.perplexity(bits), 300.0)


def test_a_run_with_a_tokenizer_holds_it(text, tmp_path):
    path = make_tokenizer(tmp_path / "elsewhere" / "tokenizer.json")
    seen = []
    model = tiny(tokenizer=str(path), steps=4)
    model.fit([text], out=tmp_path / "run", encoded=lambda *n: seen.append(n))
    size = text.stat().st_size
    assert seen[-1] == (size, size)
    path.rename(path.with_name("moved.json"))
    loaded = TextModel.load(tmp_path / "run")
    model, tokens = loaded.model, loaded.tokens
    assert model.spec.vocab_size == tokens.size
    assert tokens.decode(tokens.encode("to be né 日本\n")) == "to be né 日本\n"


def test_runs_that_cannot_be_loaded(text, tmp_path):
    tiny(steps=1).fit([text], out=tmp_path / "shakespeare")
    with pytest.raises(InputError, match=r"no run .*shakespear; did you mean .*/shakespeare\?"):
        TextModel.load(tmp_path / "shakespear")
    with pytest.raises(InputError, match="holds no language model"):
        TextModel.load(tmp_path)
    path = tmp_path / "shakespeare" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="is damaged"):
        TextModel.load(tmp_path / "shakespeare")


def test_the_first_tokens_of_the_validation_part_stay_beside_the_model(tmp_path):
    text = ("".join(f"line {i} of it\n" for i in range(400))).encode()
    (tmp_path / "a.txt").write_bytes(text)
    tiny(d_model=8, context=16, steps=1).fit(tmp_path / "a.txt", out=tmp_path / "run")
    kept = np.load(tmp_path / "run" / "validation.npy")
    assert text.endswith(bytes(kept.tolist()))
    assert 0.05 * len(text) < len(kept) < 0.15 * len(text)


def test_token_numbers_without_a_token_are_not_drawn():
    """A model of 300 rows, whose tokens are the 256 bytes; rows above are the likeliest."""
    model = LanguageModel(LanguageSpec(300, 8, ("mamba",)))
    with torch.no_grad():
        model.embedding.weight[256:] = 100 * model.embedding.weight[:44]
    text = TextModel.of(model).generate("a", max_tokens=50, temperature=2.0)
    assert text
