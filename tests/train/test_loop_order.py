"""What the loop does at each step, on a task whose losses are written down beforehand."""

import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.train import Keeping, Training, train

BATCHES = 4


class Written:
    """One weight, which every step moves; losses of training and validation as given.

    Args:
        validation: the loss at each evaluation.
        slope: gradient of every batch.
        losses: of each batch, in order; 0 behind their end.
    """

    def __init__(self, validation, slope=1.0, losses=()):
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.validation, self.losses, self.slope = list(validation), list(losses), slope
        self.asked, self.training, self.evaluated = [], [], []

    def epoch(self, epoch):
        return [np.array([epoch, i]) for i in range(BATCHES)]

    def loss(self, indices):
        self.asked.append(tuple(indices.tolist()))
        self.training.append(self.model.training)
        weight = self.model.weight.sum()
        value = self.losses.pop(0) if self.losses else 0.0
        return self.slope * (weight - weight.detach()) + value

    def validate(self):
        self.evaluated.append((self.model.weight.item(), self.model.training))
        return self.validation.pop(0)


class Stop(Exception):
    pass


def stop_at(step):
    def show(progress):
        if progress.step == step:
            raise Stop

    return show


def settings(epochs, **options):
    return Training(epochs=epochs, batch_size=1, **options)


def test_every_batch_of_every_epoch_once_and_in_order(tmp_path):
    expected = [(epoch, i) for epoch in range(3) for i in range(BATCHES)]
    task = Written([4, 3, 2, 1])
    train(task, settings(3))
    assert task.asked == expected
    assert all(task.training)
    assert not any(training for _, training in task.evaluated)
    keeping = Keeping(tmp_path / "c", seconds=0.0)
    with pytest.raises(Stop):
        train(Written([4, 3]), settings(3), keeping=keeping, show=stop_at(6))
    task = Written([2, 1])
    train(task, settings(3), keeping=keeping)
    assert task.asked == expected[5:]  # what was shown at step 6 came before its checkpoint


def test_patience_restarts_after_a_better_loss():
    history = train(Written([5, 6, 4, 6, 7, 1, 1]), settings(9, patience=2))
    assert history.ended == "no progress"
    assert [look.validation_loss for look in history.looks] == [5, 6, 4, 6, 7]
    assert history.best_step == 2 * BATCHES


def test_the_best_weights_survive_a_stop(tmp_path):
    keeping = Keeping(tmp_path / "c", seconds=0.0)
    first = Written([5, 1, 3])
    with pytest.raises(Stop):
        train(first, settings(4), keeping=keeping, show=stop_at(2 * BATCHES + 2))
    task = Written([3, 3])
    assert train(task, settings(4), keeping=keeping).best_step == BATCHES
    best, _ = first.evaluated[1]
    assert task.model.weight.item() == best
    assert best != 0


def test_an_interrupted_run_continues_after_its_last_step(tmp_path):
    keeping = Keeping(tmp_path / "c", seconds=1e9)

    def interrupt(progress):
        if progress.step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    train(Written([4, 3]), settings(2), keeping=keeping, show=interrupt)
    task = Written([2])
    train(task, settings(2), keeping=keeping)
    assert task.asked == [(1, 2), (1, 3)]


def test_a_setting_that_only_one_run_has_makes_them_differ(tmp_path):
    keeping = Keeping(tmp_path / "c", {"data": "a"})
    train(Written([2, 1]), settings(1), keeping=keeping)
    with pytest.raises(InputError, match="its rooms is None, here it is 3"):
        train(Written([]), settings(1), keeping=Keeping(tmp_path / "c", {"data": "a", "rooms": 3}))


@pytest.mark.parametrize(("slope", "expected"), [(50.0, 1.0), (-50.0, -1.0), (0.5, 0.5)])
def test_gradients_are_clipped_to_norm_one(slope, expected):
    task, found = Written([2, 1], slope), []
    train(task, settings(1), show=lambda _: found.append(task.model.weight.grad.clone()))
    assert_close(torch.stack(found).flatten(), torch.full((BATCHES,), expected))


def test_training_loss_is_the_mean_since_the_last_evaluation():
    history = train(Written([3, 2, 1], losses=[1, 2, 3, 6, 10, 10, 10, 30]), settings(2))
    assert [look.train_loss for look in history.looks[1:]] == [3.0, 15.0]


def test_seconds_of_all_parts_are_added(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("longstate.train._loop.time", SimpleNamespace(monotonic=lambda: clock.now))

    def show(progress):
        clock.now += 10
        if progress.step == 5 and clock.now < 1000:
            raise Stop

    keeping = Keeping(tmp_path / "c", seconds=0.0)
    with pytest.raises(Stop):
        train(Written([3, 2]), settings(2), keeping=keeping, show=show)
    clock.now = 1000.0
    history = train(Written([1]), settings(2), keeping=keeping, show=show)
    # The checkpoint of step 4 says 30 s; four steps follow, the last of which ends at 30 s.
    assert history.seconds == 60


def test_a_loss_that_is_not_finite_leaves_the_best_weights():
    task, seen = Written([3.0, 1.0, 2.0], losses=[0.0] * 2 * BATCHES + [0.0, float("nan")]), []
    weights = []

    def looked(progress):
        seen.append(progress.step)
        weights.append(task.model.weight.detach().clone())

    with pytest.raises(InputError, match=f"stopped at step {2 * BATCHES + 1}"):
        train(task, Training(epochs=5), looked=looked)
    assert seen == [0, BATCHES, 2 * BATCHES]
    assert not torch.equal(weights[1], weights[2])
    assert torch.equal(task.model.weight.detach(), weights[1])
