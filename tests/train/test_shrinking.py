"""`shrink_to`: states become smaller during training, and everything that a run promises holds."""

import numpy as np
import pytest
import torch
from torch import nn

import longstate
from longstate import Forecaster, TextModel
from longstate.compress import Shrinking
from longstate.errors import InputError
from longstate.layers import GRU, S4D, Mamba, Mamba2
from longstate.train import Keeping, Size, TextTraining, Training, train
from longstate.train._optim import make_optimiser
from longstate.train._shrinking import put_layers
from tests.train.helpers import hourly
from tests.train.test_loop import Stop, assert_same, weights
from tests.train.text_helpers import words

SETTINGS = Training(epochs=6, batch_size=8, patience=9, shrink_to=0.25)


class Mixed(nn.Module):
    """A linear and a selective layer, with dropout, so that random state matters."""

    def __init__(self):
        super().__init__()
        self.first, self.second = S4D(4, d_state=16), Mamba(4, d_state=8)
        self.drop = nn.Dropout(0.3)

    def forward(self, u):
        return self.second(self.drop(self.first(u)[0]))[0]


class Delay:
    """A small `Task`: give the input of two samples ago."""

    def __init__(self, make=Mixed):
        torch.manual_seed(0)
        self.model = make()
        draw = torch.Generator().manual_seed(5)
        self.x = torch.randn(16, 12, 4, generator=draw)
        self.y = self.x.roll(2, 1)

    def epoch(self, epoch):
        return np.array_split(np.random.default_rng([0, epoch]).permutation(16), 2)

    def loss(self, indices):
        return ((self.model(self.x[indices]) - self.y[indices]) ** 2).mean()

    def read(self, indices):
        return self.model(self.x[indices])

    def validate(self):
        return float(self.loss(np.arange(16)).detach())


def state_bytes(model):
    """Of the recurrences alone, for one sequence."""
    modes = model.first.d_state // 2
    return 4 * modes * 8 + model.second.d_inner * model.second.d_state * 4


def test_the_states_reach_their_share_in_the_first_half():
    task, sizes = Delay(), []
    whole = state_bytes(task.model)
    history = train(task, SETTINGS, show=lambda p: sizes.append(state_bytes(task.model) / whole))
    ends = sizes[1::2]  # two steps in each epoch
    assert ends == sorted(ends, reverse=True)
    assert ends[0] == 1  # the first truncation follows the first epoch
    assert 0.25 < ends[1] <= 0.25 ** (1 / 3)
    assert 0.2 < ends[3] == ends[-1] <= 0.25
    assert history.ended == "finished"
    assert state_bytes(task.model) == ends[-1] * whole


def test_the_best_weights_are_of_the_smallest_model():
    task = Delay()
    history = train(task, SETTINGS)
    steps = [look.step for look in history.looks]
    assert steps == [0, 2, 2, 4, 4, 6, 6, 8, 10, 12]  # before and after each truncation
    assert history.best_step >= 6
    later = [look.validation_loss for look in history.looks[6:]]
    task.model.eval()
    assert task.validate() == min(later)


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 7, 9])
def test_a_stopped_run_ends_like_an_undisturbed_one(stop, tmp_path):
    whole = Delay()
    expected = train(whole, SETTINGS)
    keeping = Keeping(tmp_path / "checkpoint.safetensors", seconds=0.0)

    def show(progress):
        if progress.step == stop:
            raise Stop

    with pytest.raises(Stop):
        train(Delay(), SETTINGS, keeping=keeping, show=show)
    again = Delay()
    found = train(again, SETTINGS, keeping=keeping)
    assert_same(weights(again), weights(whole))
    assert str(found.looks) == str(expected.looks)  # the first training loss is NaN


def test_without_progress_the_rest_is_truncated_and_training_goes_on():
    settings = Training(epochs=40, batch_size=8, patience=1, shrink_to=0.25, learning_rate=1e-12,
                        dynamics_rate=1e-12)  # fmt: skip
    task = Delay()
    whole = state_bytes(task.model)
    history = train(task, settings)
    assert history.ended == "no progress"
    assert state_bytes(task.model) <= 0.25 * whole
    assert history.looks[-1].step > next(look.step for look in history.looks if look.step)


def test_a_run_that_ends_early_has_the_size_too():
    task = Delay()
    whole = state_bytes(task.model)
    history = train(task, Training(epochs=1, batch_size=8, shrink_to=0.25))
    assert [look.step for look in history.looks] == [0, 2, 2]
    assert state_bytes(task.model) <= 0.25 * whole


def test_only_new_parameters_lose_their_moments():
    task = Delay()
    optimiser = make_optimiser(task.model, SETTINGS)
    task.loss(np.arange(16)).backward()
    optimiser.step()
    before = dict(task.model.named_parameters())
    small = Shrinking(0.25)
    small.begin(task.model, lambda: task.read(np.arange(16)))
    layers = small.layers(task.model, 1.0, lambda: task.read(np.arange(16)))
    assert layers.keys() == {"first", "second"}
    new = put_layers(task.model, layers, optimiser, SETTINGS)
    kept = {name for name, p in task.model.named_parameters() if p in new.state}
    assert {"first.D", "first.log_dt", "second.in_proj.weight"} <= kept
    assert not {"first.frequency", "first.C", "second.A_log"} & kept
    for name in kept:
        moments = new.state[task.model.get_parameter(name)]
        assert moments is optimiser.state[before[name]]


def test_the_best_evaluation_of_a_text_model_is_of_its_final_size(tmp_path):
    training = TextTraining(steps=6, batch_size=2, shrink_to=0.1, learning_rate=1e-9)
    made = TextModel("s4d", d_model=8, n_layers=1, context=16, training=training)
    made.fit(words(tmp_path / "text"), out=tmp_path / "run")
    steps = [look.step for look in made.history.looks]
    last = max(i for i in range(1, len(steps)) if steps[i] == steps[i - 1])
    assert made.history.best in made.history.looks[last:]
    bits = [look.bits_per_byte for look in made.history.looks]
    assert made.history.best.bits_per_byte == min(bits[last:])


def test_another_size_is_another_run(tmp_path):
    frame = hourly(200)

    def fit(shrink_to):
        training = Training(epochs=2, windows_per_epoch=16, shrink_to=shrink_to)
        size = Size(d_model=4, n_layers=1, d_state=8)
        made = Forecaster(4, window=20, size=size, training=training)
        return made.fit(frame, "y", out=tmp_path / "run")

    fit(0.5)
    with pytest.raises(InputError, match=r"another run: its shrink to is 0.5, here it is 0.25"):
        fit(0.25)


@pytest.mark.parametrize("layers", ["s4d", "mamba", "s4d,mamba"])
def test_a_forecaster_that_became_smaller_is_like_any_other(layers, tmp_path):
    frame = hourly(200)
    training = Training(epochs=3, windows_per_epoch=32, shrink_to=0.5)
    size = Size(d_model=4, n_layers=2, d_state=16)
    made = Forecaster(4, window=20, layers=layers, size=size, training=training)
    made.fit(frame, "y", out=tmp_path / "run")
    states = [block.mixer.d_state for block in made.model.backbone.each_block()]
    assert sum(states) < 2 * 16
    read = longstate.load(tmp_path / "run")
    assert [block.mixer.d_state for block in read.model.backbone.each_block()] == states
    for forecast in (read.predict(frame), made.predict(frame)):
        assert len(forecast) == 4
        assert forecast["y"].notna().all()
    assert read.predict(frame).equals(made.predict(frame))
    again = made.fit(frame, "y")  # from the whole size
    assert [b.mixer.d_state for b in again.model.backbone.each_block()] == states


@pytest.mark.parametrize("layers", ["s4d", "mamba", "mamba2"])
def test_a_text_model_that_became_smaller_is_like_any_other(layers, tmp_path):
    training = TextTraining(steps=6, batch_size=2, shrink_to=0.5)
    made = TextModel(layers, d_model=32, n_layers=2, context=16, training=training)
    made.fit(words(tmp_path / "text"), out=tmp_path / "run")
    read = longstate.load(tmp_path / "run")
    assert read.model.spec == made.model.spec
    assert read.generate("a", max_tokens=5) == made.generate("a", max_tokens=5)
    assert read.training.shrink_to == 0.5
    layer = made.model.blocks[0].mixer
    assert layer.d_state < type(layer)(32).d_state


@pytest.mark.parametrize("to", [0.0, 1.0, -0.5, float("nan"), 2.0])
def test_a_share_is_between_0_and_1(to):
    for make in (lambda: Training(shrink_to=to), lambda: TextTraining(shrink_to=to)):
        with pytest.raises(InputError, match="shrink_to must be a number above 0 and below 1"):
            make()
    with pytest.raises(InputError, match="to must be above 0 and below 1"):
        Shrinking(to)


def test_a_model_that_cannot_become_smaller_is_refused_before_training():
    class Gates(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = GRU(4)

        def forward(self, u):
            return self.layer(u)[0]

    task = Delay(Gates)
    with pytest.raises(InputError, match="can become smaller in training: it has none that"):
        train(task, SETTINGS)


def test_groups_of_mamba2_become_smaller_together():
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = Mamba2(4, d_state=8, d_head=4)

        def forward(self, u):
            return self.layer(u)[0]

    task = Delay(Heads)
    train(task, SETTINGS)
    assert task.model.layer.init_state(1)["ssm"].shape[-1] == 2
