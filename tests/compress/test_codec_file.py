"""What a codec's file says is checked before it is used."""

import copy
import hashlib
import json

import pytest
import torch

from longstate import _tensorfile as tensorfile
from longstate.compress import StateCodec, fit_codec
from longstate.errors import InputError
from tests.compress.states import language

ODD = (None, True, -1, 0, 0.5, 2**70, 1e300, float("nan"), "x", "", [], [1], {}, {"a": 1}, "int4")


@pytest.fixture
def written(tmp_path):
    """A codec's file, tensors and facts, and what writes it with others."""
    path = tmp_path / "c"
    fit_codec(language(), torch.randint(0, 11, (30, 16)), error=0.01, rest="int4").save(path)
    tensors, facts = tensorfile.load(path, "codec")

    def write(tensors, facts):
        """As whoever means to: with digests that fit."""
        mine = {name: facts[name] for name in ("parts", "structure")}
        total = hashlib.blake2b(json.dumps(mine, sort_keys=True).encode(), digest_size=8)
        for name in sorted(tensors):
            total.update(f"{name} {tuple(tensors[name].shape)}".encode())
            total.update(tensors[name].contiguous().numpy().tobytes())
        tensorfile.save(path, "codec", tensors, {**facts, "identity": total.hexdigest()})

    write(tensors, facts)
    StateCodec.load(path)
    return path, tensors, facts, write


def test_a_damaged_codec_is_refused(written):
    path, tensors, facts, _ = written
    other = {**tensors, "0.right": tensors["0.right"] + 1}
    tensorfile.save(path, "codec", other, facts)
    with pytest.raises(InputError, match="c is damaged: its contents are not what was written"):
        StateCodec.load(path)
    for bad, sentence in (
        ({}, "lacks the field 'parts'"),
        ({**facts, "parts": 3}, "parts must be a list; got 3"),
        ({**facts, "parts": [{}]}, "part 0 lacks the field 'place'"),
        ({**facts, "more": 1}, "unknown field 'more'"),
        ({**facts, "identity": 3}, "identity must be a text; got 3"),
    ):
        tensorfile.save(path, "codec", tensors, bad)
        with pytest.raises(InputError, match=sentence):
            StateCodec.load(path)


def places(value, path=()):
    """Every place in a nested value."""
    yield path
    if isinstance(value, dict | list):
        for key, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(v, (*path, key))


def replaced(value, path, new):
    if not path:
        return new
    copied = copy.copy(value)
    copied[path[0]] = replaced(value[path[0]], path[1:], new)
    return copied


def refused_or_of_use(path):
    """A codec that is not refused parks a state of zeros and reads it again."""
    try:
        codec = StateCodec.load(path)
    except InputError:
        return
    zeros = {p.place.name: torch.zeros(2, *p.place.shape, dtype=p.place.type) for p in codec.parts}
    codec.unpark(codec.park(codec.state_of(zeros)))


def test_every_edited_description_of_a_codec_is_refused_or_holds(written):
    path, tensors, facts, write = written
    mine = {"parts": facts["parts"], "structure": facts["structure"]}
    for place in places(mine):
        if not place:
            continue
        for new in ODD:
            write(tensors, {**facts, **replaced(mine, place, new)})
            refused_or_of_use(path)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("0.right", lambda t: t[:, :1]),
        ("0.right", lambda t: t.float()),
        ("0.right_back", lambda t: t * float("nan")),
        ("0.mean", lambda t: t.flatten()),
        ("0.levels", lambda t: t * 0),
        ("0.levels", lambda t: t.long()),
        ("0.deviation", lambda t: -t),
        ("0.low", lambda t: t[:-1]),
        ("0.left", lambda t: t),
        ("7.mean", lambda t: torch.zeros(2)),
        ("0.other", lambda t: torch.zeros(2)),
    ],
)
def test_tensors_of_a_codec_are_checked(name, change, written):
    path, tensors, facts, write = written
    changed = change(tensors.get(name, torch.zeros(1, 2, 2)))
    write({**tensors, name: changed}, facts)
    with pytest.raises(InputError):
        StateCodec.load(path)


def test_a_codec_of_giants_takes_no_memory(written):
    path, _, facts, write = written
    parts = [{"place": ["state", [10**6, 10**6], "float32", "real"], "number": "exact"}]
    write({}, {**facts, "parts": parts, "structure": "state"})
    with pytest.raises(InputError, match="no state holds"):
        StateCodec.load(path)
