"""Files that were changed: by accident, which the digest finds, or by hand."""

import copy
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from longstate import _tensorfile as tensorfile
from longstate import load
from longstate.cli import main
from longstate.errors import InputError
from longstate.layers import Mamba
from longstate.models import LanguageModel, LanguageSpec, save_layer
from longstate.stream import ForecastStream, Stream, load_state
from longstate.train import Forecaster, Size, TextModel, TextTraining, Training
from longstate.train import _checkpoint as checkpoint
from tests.saved import FOLDER, frame

ROOT = Path(__file__).resolve().parent.parent


def forecaster(out=None):
    return Forecaster(
        4, window=12, size=Size(d_model=4, n_layers=2, d_state=4),
        training=Training(epochs=1, windows_per_epoch=32, batch_size=16),
    ).fit(frame(), "y", out=out)  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """One file of each kind, by kind, and what opens it."""
    folder = tmp_path_factory.mktemp("made")
    data = folder / "data.csv"
    frame().to_csv(data, index=False)
    found = forecaster(folder / "forecast")
    found.model.save(folder / "forecast.safetensors")
    TextModel(
        "mamba,s4d", d_model=4, context=16, training=TextTraining(steps=2)
    ).fit(text="to be or not to be\n" * 50, out=folder / "text")  # fmt: skip
    model = LanguageModel(LanguageSpec(11, 8, ("s4d", "mamba"), {"s4d": {"d_state": 4}})).eval()
    model.save(folder / "language.safetensors")
    save_layer(Mamba(4, d_state=4), folder / "layer.safetensors")
    stream = Stream(model)
    stream.push(torch.arange(8)[None])
    stream.save(folder / "state")
    rows = ForecastStream(found.model)
    for _, row in frame().astype({"date": str}).head(20).iterrows():
        rows.push(dict(row))
    rows.save(folder / "rows")
    again = ForecastStream(found.model)
    files = {
        "forecaster": (folder / "forecast" / "model.safetensors", load),
        "text": (folder / "text" / "model.safetensors", load),
        "language": (folder / "language.safetensors", load),
        "forecast model": (folder / "forecast.safetensors", load),
        "layer": (folder / "layer.safetensors", load),
        "state": (folder / "state", lambda path: load_state(path, model)),
        "forecast stream": (folder / "rows", again.load),
        "training": (
            folder / "forecast" / "checkpoint.safetensors",
            lambda path: checkpoint.load(path, "training"),
        ),
    }
    for path, read in files.values():
        read(path)
    return files, data


KINDS = (
    "forecaster", "text", "language", "forecast model", "layer", "state", "forecast stream",
    "training",
)  # fmt: skip


def refused(read, path):
    """The one sentence with which a file is refused."""
    with pytest.raises(InputError) as error:
        read(path)
    message = str(error.value)
    assert "\n" not in message
    assert len(message) < 600
    assert str(path) in message or path.parent.name in message
    return message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["header", "data"])
def test_a_flipped_bit_is_found(kind, place, made, tmp_path):
    path, read = made[0][kind]
    whole = path.read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    first, last = (0, begin) if place == "header" else (begin, len(whole))
    target = tmp_path / path.name
    draw = random.Random(f"{kind} {place}")
    for _ in range(80):
        at, bit = draw.randrange(first, last), draw.randrange(8)
        changed = bytearray(whole)
        changed[at] ^= 1 << bit
        target.write_bytes(changed)
        try:
            message = refused(read, target)
        except pytest.fail.Exception:
            pytest.fail(f"byte {at}, bit {bit}: {whole[at - 20 : at + 20]!r} loads")
        assert place == "header" or "the digest differs" in message


def test_files_without_a_digest_are_read_and_get_one(tmp_path):
    old = FOLDER / "forecast_s4d" / "model.safetensors"
    assert tensorfile.DIGEST.encode() not in old.read_bytes()
    Forecaster.load(old).save(tmp_path / "new")
    assert tensorfile.DIGEST.encode() in (tmp_path / "new").read_bytes()


def test_a_removed_digest_is_detected(made, tmp_path):
    from safetensors import safe_open
    from safetensors.torch import save_file

    path, _ = made[0]["layer"]
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = file.metadata()["longstate"]
    save_file(tensors, tmp_path / "f", {"longstate": text})
    assert "the digest differs" in refused(load, tmp_path / "f")


WRONG = (
    None, True, 0, -1, 1.5, 10**9, 10**20, float("nan"), float("inf"), "", "x", [], [None], {},
    {"x": 1}, "../x",
)  # fmt: skip


def edits(facts, path=()):
    """Copies of a description in which one thing is changed, and the way to it."""
    inner = facts.items() if isinstance(facts, dict) else [(0, facts[0])]
    for key, value in inner:
        here = (*path, key)
        yield here, "gone"
        for wrong in WRONG:
            yield here, wrong
        if isinstance(value, dict | list) and value and len(here) < 5:
            yield from edits(value, here)
    if isinstance(facts, dict):
        yield (*path, "unknown"), 1


# A field has 17 edits, of which every fifteenth is 1 or 2; all of them take minutes.
EVERY = pytest.mark.parametrize("every", [15, pytest.param(1, marks=pytest.mark.slow)])


def edited(facts, where, what):
    changed = copy.deepcopy(facts)
    inner = changed
    for key in where[:-1]:
        inner = inner[key]
    if what == "gone":
        del inner[where[-1]]
    else:
        inner[where[-1]] = what
    return changed


@EVERY
@pytest.mark.parametrize("kind", [k for k in KINDS if k != "training"])
def test_edited_descriptions_are_refused_or_valid(kind, every, made, tmp_path):
    """Whatever a field says, there is one sentence, or a file that loads and can be used."""
    path, read = made[0][kind]
    tensors, facts = tensorfile.load(path, tensorfile.kind_of(path))
    target, refusals, wrong = tmp_path / "model.safetensors", 0, []
    for where, what in list(edits(facts))[::every]:
        changed = edited(facts, where, what)
        tensorfile.save(target, tensorfile.kind_of(path), tensors, changed)
        try:
            read(target)
        except InputError as e:
            refusals += 1
            if "\n" in str(e) or len(str(e)) > 600:
                wrong.append((where, what, str(e)))
        except Exception as e:
            wrong.append((where, what, repr(e)))
    assert not wrong, "\n".join(str(w)[:300] for w in wrong[:20])
    assert refusals > 5


@EVERY
def test_edited_checkpoints_are_refused_or_continued(every, made, tmp_path):
    path, _ = made[0]["training"]
    tensors, facts = tensorfile.load(path, "training")
    target, wrong = tmp_path / "run" / path.name, []

    def goes_on(tensors, facts):
        tensorfile.save(target, "training", tensors, facts)
        try:
            forecaster(tmp_path / "run")
        except InputError as e:
            return str(e)
        except Exception as e:
            wrong.append(repr(e)[:300])
        return None

    assert goes_on(tensors, facts) is None
    progress = [
        ("progress", name) for name in ("epoch", "step", "looks", "best_loss", "ended", "total")
    ]
    places = (("identity",), ("identity", "gate"), ("progress",), *progress)
    pairs = [(where, what) for where in places for what in ("gone", None, "x", [], 1.5, 2)]
    for where, what in pairs[::every]:
        goes_on(tensors, edited(facts, where, what))
    assert not wrong
    for name in list(tensors)[::every]:
        assert goes_on({n: t for n, t in tensors.items() if n != name}, facts), name
        assert goes_on({**tensors, name: torch.zeros(3, 5)}, facts), name


@pytest.mark.parametrize("kind", ["forecaster", "text", "language", "forecast model", "layer"])
def test_weights_that_are_not_finite(kind, made, tmp_path):
    path, read = made[0][kind]
    tensors, facts = tensorfile.load(path, tensorfile.kind_of(path))
    for value in (float("nan"), float("-inf")):
        for name in list(tensors)[:6]:
            if not tensors[name].numel():
                continue
            bad = {**tensors, name: tensors[name].clone()}
            bad[name].view(-1)[-1] = value
            tensorfile.save(tmp_path / "model", tensorfile.kind_of(path), bad, facts)
            assert f"its {name} holds numbers that are not finite" in refused(
                read, tmp_path / "model"
            )


def test_a_description_of_a_giant_takes_no_memory(made, tmp_path):
    """Under a limit that the giant would break; also from the command line, in every command."""
    pytest.importorskip("resource")
    path, _ = made[0]["forecaster"]
    tensors, facts = tensorfile.load(path, "forecaster")
    giants = [
        edited(facts, ("size", "d_model"), 10**6), edited(facts, ("size", "n_layers"), 1000),
        edited(facts, ("size", "d_state"), 10**6), edited(facts, ("spec", "window"), 10**9),
        edited(facts, ("spec", "horizon"), 10**9),
    ]  # fmt: skip
    files = []
    for i, giant in enumerate(giants):
        files.append(str(tmp_path / f"{i}.safetensors"))
        tensorfile.save(files[-1], "forecaster", tensors, giant)
    code = (
        "import resource, sys\n"
        "from longstate.cli import main\n"
        "main(['info', sys.argv[1]])\n"
        "most = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most + 2**28,) * 2)\n"
        "for path in sys.argv[3:]:\n"
        "    for command in (['info', path], ['predict', path, sys.argv[2]], "
        "['evaluate', path, sys.argv[2]], ['stream', path], ['certify', path], ['memory', path]):\n"
        "        assert main(command) == 2, command"
    )
    if not os.path.exists("/proc/self/statm"):
        pytest.skip("needs /proc")
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(made[1]), *files],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stderr.splitlines()
    assert len(said) == 6 * len(files)
    assert all(line.startswith("error: ") for line in said)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"date,y\n2024-01-01,1\n", "a text file"),
        ("größer\n".encode() * 200, "a text file"),
        (b"PK\3\4" + b"x" * 90, "a ZIP archive or a file of torch.save"),
        (b"\x80\4" + b"x" * 90, "a pickle"),
        (b"\x93NUMPY\1\0v\0", "a file of NumPy"),
        (b"", "an empty file"),
    ],
)
def test_a_file_of_another_format_is_named(data, said, tmp_path, capsys):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    commands = ("evaluate", "predict", "info", "stream", "generate", "convert", "certify", "memory")
    rest = {"evaluate": [str(path)], "predict": [str(path)], "convert": ["x", "--to", "mamba-ssm"]}
    for command in (*commands, "reduce"):
        words = [command, str(path), *rest.get(command, [])]
        words += ["--out", str(tmp_path / "x")] if command == "reduce" else []
        assert main(words) == 2
        error = capsys.readouterr().err
        assert error == (
            f"error: {path} is {said}; a run of `longstate train`, the file of a model or a folder "
            "with a checkpoint was expected\n"
        )
    with pytest.raises(InputError, match=f"is not a longstate layer file but {said}"):
        tensorfile.load(path, "layer")
