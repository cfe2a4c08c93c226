"""Checkpoints of transformers and mamba-ssm are reduced, and what comes out is used like any other
model: certified, reduced again, streamed, converted back."""

import numpy as np
import pytest
import torch

from longstate import generate, load
from longstate.cli import main
from longstate.errors import InputError
from longstate.interop import load_language_model, save_language_model
from longstate.stream import load_state, save_state
from tests.compress.helpers import language, tokens

KINDS = {"mamba": ["--allocation", "uniform"], "mamba2": ["--method", "energy"]}


@pytest.fixture
def checkpoint(request, tmp_path):
    """Folder of a small random model, and a file of tokens."""
    layer, dialect = request.param
    folder = tmp_path / dialect
    model = language(layer, layer, d_model=16)
    save_language_model(model, folder, dialect)
    data = tmp_path / "tokens.npy"
    np.save(data, tokens(rows=8, length=60).flatten().numpy())
    return layer, dialect, folder, data


def reduced(folder, data, out, *more):
    call = ["reduce", str(folder), "--keep", "0.5", "--data", str(data), "--out", str(out), *more]
    assert main([*call, "--rows", "4", "--length", "60"]) == 0
    return load(out)


both = pytest.mark.parametrize(
    "checkpoint",
    [(layer, dialect) for layer in KINDS for dialect in ("transformers", "mamba-ssm")],
    indirect=True,
    ids="-".join,
)


@both
def test_a_checkpoint_becomes_a_smaller_model_like_any_other(checkpoint, tmp_path, capfd):
    _, _, folder, data = checkpoint
    small = reduced(folder, data, tmp_path / "small")
    whole = load_language_model(folder)
    assert bytes_of(small) < bytes_of(whole)
    assert len(generate(small, [[1, 2, 3]], max_tokens=5)[0].tokens) == 5
    x, small = tokens(rows=2), small.double()
    y, state = small(x)
    halves, between = small(x[:, :13])
    rest, _ = small(x[:, 13:], between)
    torch.testing.assert_close(torch.cat([halves, rest], 1), y)
    save_state(tmp_path / "state.safetensors", small, state)
    torch.testing.assert_close(load_state(tmp_path / "state.safetensors", small), state)
    assert main(["certify", str(tmp_path / "small"), "--data", str(data), "--no-attack"]) == 0
    again = reduced(tmp_path / "small", data, tmp_path / "smaller")
    assert bytes_of(again) < bytes_of(small)
    capfd.readouterr()


def bytes_of(model):
    return sum(s["ssm"].numel() for s in model.init_state(1))


@both
def test_it_goes_back_to_the_library_that_it_came_from(checkpoint, tmp_path, capfd):
    layer, dialect, folder, data = checkpoint
    more = ["--allocation", "uniform", *KINDS[layer]]
    small = reduced(folder, data, tmp_path / "small", *more)
    out = tmp_path / "back"
    assert main(["convert", str(tmp_path / "small"), str(out), "--to", dialect]) == 0
    back, x = load_language_model(out), tokens()
    torch.testing.assert_close(back(x)[0], small(x)[0], rtol=0, atol=0)
    capfd.readouterr()


@pytest.mark.parametrize("checkpoint", [("mamba2", "mamba-ssm")], indirect=True)
def test_a_projected_state_stays_here_and_the_message_says_what_else_there_is(checkpoint, tmp_path):
    _, dialect, folder, data = checkpoint
    small = reduced(folder, data, tmp_path / "small", "--allocation", "uniform")
    with pytest.raises(InputError, match="reduce with method='energy'"):
        save_language_model(small, tmp_path / "back", dialect)
