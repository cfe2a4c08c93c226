import json

import pytest
import safetensors.torch
import torch

from longstate.errors import InputError
from longstate.train import Keeping, train
from longstate.train import _checkpoint as checkpoint
from tests.train.test_loop import SETTINGS, Regression


def saved(path):
    checkpoint.save(path, "model", {"a": torch.arange(100.0)}, {"x": [1, None, "é"]})
    return path


def test_checkpoint_round_trip(tmp_path):
    tensors, facts = checkpoint.load(saved(tmp_path / "c"), "model")
    assert torch.equal(tensors["a"], torch.arange(100.0))
    assert facts == {"x": [1, None, "é"]}


def test_a_damaged_checkpoint_is_reported_and_unchanged(tmp_path):
    path = saved(tmp_path / "c")
    whole = path.read_bytes()
    for size in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        expected = "is damaged" if size else "an empty file"
        with pytest.raises(InputError, match=expected) as error:
            checkpoint.load(path, "model")
        assert "\n" not in str(error.value)
        with pytest.raises(InputError, match=expected):
            train(Regression(), SETTINGS, keeping=Keeping(path))
        assert path.read_bytes() == whole[:size]


def test_other_files_are_refused(tmp_path):
    path = saved(tmp_path / "c")
    with pytest.raises(InputError, match="is not a longstate training file"):
        checkpoint.load(path, "training")
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}))
    with pytest.raises(InputError, match="is not a longstate model file"):
        checkpoint.load(path, "model")
    header = {"longstate": json.dumps({"format": 99, "kind": "model", "facts": {}})}
    path.write_bytes(safetensors.torch.save({"a": torch.zeros(1)}, metadata=header))
    with pytest.raises(InputError, match=r"has format version 99; .* reads version 1"):
        checkpoint.load(path, "model")
    with pytest.raises(InputError, match="does not exist"):
        checkpoint.load(tmp_path / "none", "model")
