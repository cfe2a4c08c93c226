import dataclasses
import json
import re
from pathlib import Path

import pytest

from longstate.train import TextModel, TextTraining

LETTERS = b"abcdefgh"
SIZE = {"layers": "s4d", "context": 32, "d_model": 16, "n_layers": 1}
TRAINING = {"batch_size": 4, "steps": 20, "learning_rate": 1e-2}


def tiny(**changes):
    """A small model that trains in a second, with these settings of model or training changed."""
    names = {f.name for f in dataclasses.fields(TextTraining)}
    training = {n: v for n, v in {**TRAINING, **changes}.items() if n in names}
    size = {n: v for n, v in {**SIZE, **changes}.items() if n not in names}
    return TextModel(**size, training=TextTraining(**training))


def peak_kib():
    """The largest memory of this process so far. `ru_maxrss` would be that of its parent too."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))


def words(path, lines=400):
    """Lines of a few words, some of them with letters of two and three bytes."""
    known = ("to be", "or not", "that is", "the question", "né à Zürich", "日本")
    text = "".join(f"{known[i % 6]} {known[i * i % 5]}\n" for i in range(lines))
    path.write_bytes(text.encode())
    return path


def make_tokenizer(path, texts=("to be or not that is the question né à Zürich 日本\n",)):
    """A byte-level BPE of about 280 tokens."""
    tokenizers = pytest.importorskip("tokenizers", reason="needs the extra `text`")
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE())
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=280,
        show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator([t * 20 for t in texts], trainer)
    path.parent.mkdir(parents=True, exist_ok=True)
    bpe.save(str(path))
    return path


def history(run):
    return json.loads((run / "history.json").read_text())
