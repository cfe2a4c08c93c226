"""Several processes train as one process does with the same batches."""

import json
import os
import signal
import subprocess
import sys
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate import Classifier, Forecaster, TextModel
from longstate.errors import InputError
from longstate.layers import S4D
from longstate.models import Stack
from longstate.models._dropout import Dropout
from longstate.train import Execution, Keeping, TextTraining, Training, _series_task, train
from tests.parallel.ranks import on_ranks
from tests.train.helpers import QUICK, TINY, hourly
from tests.train.ranks_tasks import Sums, fit
from tests.train.text_helpers import tiny, words


def interrupt_at(step):
    """A `show` that sends Ctrl-C to this process."""

    def show(progress):
        if progress.step == step:
            os.kill(os.getpid(), signal.SIGINT)

    return show


def same(found, expected, **tolerance):
    assert found[2] == expected[2]
    assert_close(found[:2], expected[:2], equal_nan=True, **tolerance)


EXACT = {"rtol": 0.0, "atol": 0.0}
NARROW = {"dtype": "bfloat16"}


def far(found, expected):
    """The distance between the weights of two trainings."""
    pairs = ((found[1][name], x) for name, x in expected[1].items())
    return float(sum((a - b).double().square().sum() for a, b in pairs)) ** 0.5


def two_ranks(rank, size, folder):
    text, run = folder / "text", folder / "run"
    alone = torch.load(folder / "alone.pt")
    for settings in (
        {},
        {"parallel": "fsdp"},
        {"accumulate": 2},
        {"parallel": "fsdp", "accumulate": 3},
        {"segment": 5},
        {"parallel": "fsdp", "segment": 5, "accumulate": 2},
    ):
        same(fit(settings), alone)
    for way in ("ddp", "fsdp"):  # as near to the float64 weights as one process
        narrow = fit({"parallel": way, **NARROW}, dtype=torch.float32)
        assert far(narrow, alone) < 2 * torch.load(folder / "narrow.pt")
    # dropout differs between ranks, and the same ranks repeat it; Ctrl-C on one stops both
    for way in ("ddp", "fsdp"):
        undisturbed = fit({"parallel": way}, dropout=0.3)
        keeping = Keeping(folder / f"{way}.safetensors")
        stopped = fit({"parallel": way}, dropout=0.3, keeping=keeping, show=interrupt_at(4))
        assert stopped[2] == "interrupted"
        again = fit({"parallel": way}, dropout=0.3, keeping=keeping)
        same(again, undisturbed, **EXACT)
    # what one process began, and what it will end
    same(fit(keeping=Keeping(folder / "begun.safetensors")), alone)
    keeping = Keeping(folder / "handed.safetensors")
    fit({"parallel": "fsdp"}, keeping=keeping, show=interrupt_at(5))
    same(fit({"parallel": "fsdp", "state_budget": 0.1}), fit({"state_budget": 0.1}))

    shown, looked = [], []
    model = tiny(layers="mamba,s4d", n_layers=2, steps=5)
    model.fit(text, out=run, show=shown.append, looked=lambda *look: looked.append(look))
    assert bool(shown) == bool(looked) == (rank == 0)  # one bar
    expected = TextModel.load(folder / "alone")
    assert_close(model.model.state_dict(), expected.model.state_dict())
    got, want = ([vars(look) for look in m.history.looks] for m in (model, expected))
    assert_close(got, want, equal_nan=True)

    frame = hourly(200)
    made = Forecaster(4, window=20, size=TINY, training=QUICK).fit(frame, "y", out=folder / "f")
    assert made.history.ended == "finished"

    for way in ("ddp", "fsdp"):
        classes(Execution(parallel=way), out=folder / way)


def classes(execution, out):
    """A classifier of series of unequal lengths, trained without what ranks draw for themselves."""
    random = np.random.default_rng(0)
    y = np.arange(30) % 3
    X = [np.sin((k + 1) * np.arange(random.integers(20, 30)) / 4)[None] for k in y]
    with patch.object(_series_task, "EARLY", 0.0), patch.object(Dropout, "forward", unchanged):
        made = Classifier(d_model=4, n_layers=1, epochs=2, minutes=None)
        return made.fit(X, y, execution=execution, out=out)


def unchanged(self, x):
    return x


def test_two_ranks_are_one_process(tmp_path):
    torch.save(fit(), tmp_path / "alone.pt")
    torch.save(far(fit(NARROW, dtype=torch.float32), fit()), tmp_path / "narrow.pt")
    words(tmp_path / "text")
    tiny(layers="mamba,s4d", n_layers=2, steps=5).fit(tmp_path / "text", out=tmp_path / "alone")
    fit(keeping=Keeping(tmp_path / "begun.safetensors"), show=interrupt_at(2))
    on_ranks(2, two_ranks, tmp_path)
    same(fit(keeping=Keeping(tmp_path / "handed.safetensors")), fit())
    assert TextModel.load(tmp_path / "run").history.ended == "finished"
    assert Forecaster.load(tmp_path / "f").history.ended == "finished"
    one = classes(Execution(), out=tmp_path / "one")
    for way in ("ddp", "fsdp"):
        found = Classifier.load(tmp_path / way)
        assert_close(found.network_.state_dict(), one.network_.state_dict())
        got, want = ([vars(look) for look in m.history_.looks] for m in (found, one))
        assert_close(got, want, equal_nan=True)


def torchrun(*arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--max-restarts=1", "-m", "tests.train.ranks_restart", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True, timeout=300)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="ddp", marks=pytest.mark.slow),
        pytest.param(
            {"parallel": "fsdp", "accumulate": 2, "segment": 8, **NARROW}, id="fsdp in pieces"
        ),
    ],
)
def test_after_a_rank_was_killed_torchrun_goes_on_to_the_same_bits(settings, tmp_path):
    words(tmp_path / "text")
    torchrun(tmp_path, "undisturbed", "live", json.dumps(settings))
    torchrun(tmp_path, "killed", "die", json.dumps(settings))
    assert (tmp_path / "killed.txt").read_text() == "1"
    found, expected = (TextModel.load(tmp_path / name) for name in ("killed", "undisturbed"))
    same_weights = (m.model.state_dict() for m in (found, expected))
    assert_close(*same_weights, **EXACT)


@pytest.mark.parametrize("settings", [{"accumulate": 2}, {"accumulate": 7}, {"segment": 5}])
def test_gradients_in_pieces_are_those_of_the_batch(settings):
    same(fit(settings), fit())


def test_bfloat16_is_for_products_and_not_for_weights():
    exact, whole, narrow = fit(), fit(dtype=torch.float32), fit(NARROW, dtype=torch.float32)
    assert {x.dtype for x in narrow[1].values()} == {torch.float32}
    assert 0 < 100 * far(whole, exact) < far(narrow, exact) < 0.1 * far(exact, start())


def start():
    """The weights before training."""
    return None, dict(Sums().model.state_dict())


def test_the_segments_of_a_training_are_not_those_of_its_model():
    task, seen = Sums(), []
    task.model.register_forward_hook(lambda *_: seen.append(task.model.segment))
    train(task, Training(epochs=1, segment=5))
    assert task.model.segment is None
    assert set(seen) == {5, None}  # training, and validation


def test_what_segments_cannot_do_is_refused_before_the_training():
    with pytest.raises(InputError, match="state_budget measures whole windows"):
        fit({"segment": 5, "state_budget": 0.1})
    task = Sums()
    task.model = Stack([S4D(4, bidirectional=True)]).double()
    with pytest.raises(InputError, match="segment needs layers in one direction"):
        train(task, Training(epochs=1, segment=5))


def test_an_unknown_way_is_refused():
    with pytest.raises(InputError, match="parallel must be 'ddp' or 'fsdp'; got 'tp'"):
        Training(parallel="tp")
    with pytest.raises(InputError, match="accumulate must be"):
        Training(accumulate=0)
    with pytest.raises(InputError, match="dtype must be 'float32' or 'bfloat16'; got 'float16'"):
        Training(dtype="float16")
    with pytest.raises(InputError, match="segment must be"):
        TextTraining(segment=0)


def test_a_loss_that_is_not_finite_on_one_rank_ends_all():
    on_ranks(2, broken_rank)


def broken_rank(rank, size):
    task = Sums()
    task.u[3] = torch.nan  # in one window
    task.validate = lambda: 1.0
    with pytest.raises(InputError, match="training stopped at step"):
        train(task, Training(epochs=1))
