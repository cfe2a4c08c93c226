import errno
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from longstate.errors import InputError
from longstate.train import Keeping, Training, train
from longstate.train import _checkpoint as checkpoint
from longstate.train._loop import _steps

SETTINGS = Training(epochs=3, batch_size=8, patience=9)


class Regression:
    """A small task with dropout, so that random state matters."""

    def __init__(self, seed=0):
        torch.manual_seed(seed)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Dropout(0.3), nn.Linear(8, 1))
        draw = torch.Generator().manual_seed(5)
        self.x = torch.randn(64, 4, generator=draw)
        self.y = self.x[:, :1] ** 2

    def epoch(self, epoch):
        return np.array_split(np.random.default_rng([0, epoch]).permutation(64), 8)

    def loss(self, indices):
        return ((self.model(self.x[indices]) - self.y[indices]) ** 2).mean()

    def validate(self):
        with torch.no_grad():
            return float(self.loss(np.arange(64)))


def weights(task):
    return {k: v.clone() for k, v in task.model.state_dict().items()}


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_trains_and_keeps_the_best():
    task = Regression()
    history = train(task, SETTINGS)
    losses = [look.validation_loss for look in history.looks]
    assert [look.step for look in history.looks] == [0, 8, 16, 24]
    assert history.ended == "finished"
    assert history.looks[losses.index(min(losses))].step == history.best_step
    task.model.eval()
    assert task.validate() == min(losses) < losses[0]


def test_leaves_global_random_state_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    task = Regression()
    torch.manual_seed(3)
    train(task, SETTINGS)
    assert torch.equal(torch.rand(1), expected)


class Stop(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 5, 8, 9, 11, 24])
def test_resumes_bit_for_bit_in_the_middle_of_an_epoch(stop, tmp_path):
    whole = Regression()
    expected = train(whole, SETTINGS)

    def show(progress):
        if progress.step == stop:
            raise Stop

    keeping = Keeping(tmp_path / "c", {"task": "regression"}, seconds=0.0)
    with pytest.raises(Stop):
        train(Regression(), SETTINGS, keeping=keeping, show=show)
    task = Regression(seed=99)  # what it starts from must not matter
    history = train(task, SETTINGS, keeping=keeping)
    assert_same(weights(task), weights(whole))
    assert history.looks[1:] == expected.looks[1:]
    assert history.best_step == expected.best_step


def test_a_finished_run_is_not_trained_again(tmp_path):
    keeping = Keeping(tmp_path / "c")
    task = Regression()
    first = train(task, SETTINGS, keeping=keeping)
    again = Regression(seed=9)
    history = train(again, SETTINGS, keeping=keeping, show=pytest.fail)
    assert history.looks[1:] == first.looks[1:]
    assert (history.ended, history.seconds) == (first.ended, first.seconds)
    assert_same(weights(again), weights(task))


def test_another_run_s_checkpoint_is_refused_and_unchanged(tmp_path):
    path = tmp_path / "c"
    train(Regression(), SETTINGS, keeping=Keeping(path, {"layers": "s4d"}))
    before = path.read_bytes()
    with pytest.raises(InputError, match="another run: its layers is s4d, here it is s4; choose"):
        train(Regression(), SETTINGS, keeping=Keeping(path, {"layers": "s4"}))
    with pytest.raises(InputError, match="another run: its layers is s4d, here it is None; choose"):
        train(Regression(), SETTINGS, keeping=Keeping(path, {}))
    assert path.read_bytes() == before


def test_stops_without_progress():
    task = Regression()
    task.validate = lambda: 1.0
    history = train(task, Training(epochs=50, patience=2))
    assert history.ended == "no progress"
    assert history.best_step == 0
    assert len(history.looks) == 3


def test_stops_by_the_clock():
    history = train(Regression(), Training(epochs=10**6, minutes=1e-9))
    assert history.ended == "out of time"
    assert history.looks[-1].step == 1


def test_steps_of_many_epochs_are_estimated():
    task, counted = Regression(), []
    every = len(task.epoch(0))
    task.epoch = lambda e: counted.append(e) or np.arange(every + e % 2)
    assert _steps(task, 999) == 999 * every + 499
    assert _steps(task, 10**6) == 10**6 * every + 10**6 // 2
    assert len(counted) == 999 + 1000


def test_an_interrupt_keeps_the_best_weights_and_can_be_continued(tmp_path):
    keeping = Keeping(tmp_path / "c")
    before = signal.getsignal(signal.SIGINT)

    def show(progress):
        if progress.step == 11:
            os.kill(os.getpid(), signal.SIGINT)

    task = Regression()
    history = train(task, SETTINGS, keeping=keeping, show=show)
    assert history.ended == "interrupted"
    assert signal.getsignal(signal.SIGINT) is before
    task.model.eval()
    assert task.validate() == min(look.validation_loss for look in history.looks)
    assert train(task, SETTINGS, keeping=keeping).ended == "finished"
    whole = Regression()
    train(whole, SETTINGS)
    assert_same(weights(task), weights(whole))


def test_runs_in_another_thread():
    result = []
    thread = threading.Thread(target=lambda: result.append(train(Regression(), SETTINGS)))
    thread.start()
    thread.join()
    assert result[0].ended == "finished"


class Poison(nn.Module):
    """Gives a NaN, forwards or backwards."""

    class Backward(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            return gradient * float("nan")

    def __init__(self, forward):
        super().__init__()
        self.bad_forward = forward

    def forward(self, x):
        return x / 0 if self.bad_forward else Poison.Backward.apply(x)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (True, r"step 0: the output of 2 \(Poison\) is the first that is not finite"),
        (False, r"step 0: the gradient from 2 \(Poison\) is the first that is not finite"),
    ],
)
def test_names_the_module_that_first_went_nonfinite(forward, message):
    task = Regression()
    task.model[2] = Poison(forward)
    task.validate = lambda: 1.0
    before = weights(task)
    with pytest.raises(InputError, match=message):
        train(task, SETTINGS)
    assert_same(weights(task), before)


def test_names_the_parameter_that_is_nonfinite():
    task = Regression()
    task.validate = lambda: 1.0
    with torch.no_grad():
        task.model[3].bias.fill_(float("inf"))
    with pytest.raises(InputError, match=r"the parameter 3\.bias is no longer finite"):
        train(task, SETTINGS)


def test_a_nonfinite_validation_loss_is_reported():
    task = Regression()
    task.validate = lambda: float("nan")
    with pytest.raises(InputError, match="step 0: the validation loss is nan"):
        train(task, SETTINGS)


KILLED = """
import sys
from pathlib import Path
from tests.train.test_loop import Keeping, Regression, SETTINGS, train
from longstate.train import _checkpoint as checkpoint
task = Regression()
train(task, SETTINGS, keeping=Keeping(Path(sys.argv[1]), seconds=0.0),
      show=lambda p: print(p.step, flush=True))
checkpoint.save(Path(sys.argv[2]), "model", task.model.state_dict(), {})
"""


def test_sigkill_at_any_moment_changes_nothing(tmp_path):
    whole = Regression()
    train(whole, SETTINGS)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "c"), str(tmp_path / "done")]
    draw = np.random.default_rng(time.time_ns())
    for attempt in range(20):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], text=True
        )
        assert process.stdout is not None
        if attempt < 3:
            for _ in range(int(draw.integers(2, 7))):
                process.stdout.readline()
            time.sleep(draw.random() * 0.01)
            process.kill()
        process.communicate()
        if process.returncode == 0:
            break
    assert process.returncode == 0
    assert attempt == 3
    assert_same(checkpoint.load(tmp_path / "done", "model")[0], weights(whole))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, monkeypatch):
    whole = Regression()
    train(whole, SETTINGS)
    keeping = Keeping(tmp_path / "c", seconds=0.0)
    replace, saves = os.replace, []

    def fills_up(*arguments):
        saves.append(arguments)
        if len(saves) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(*arguments)

    monkeypatch.setattr(os, "replace", fills_up)
    with pytest.raises(InputError, match="No space left on device; the file there is unchanged"):
        train(Regression(), SETTINGS, keeping=keeping)
    monkeypatch.setattr(os, "replace", replace)
    assert os.listdir(tmp_path) == ["c"]
    task = Regression(seed=9)
    train(task, SETTINGS, keeping=keeping)
    assert_same(weights(task), weights(whole))
