"""Healing: closer to the whole model, never worse on what is held out, and still the same model."""

import signal

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from longstate import Forecaster, load, reduce
from longstate.cli import main
from longstate.compress import _heal as healing
from longstate.compress import heal
from longstate.compress._calls import Call, Rows
from longstate.errors import InputError
from longstate.layers import S4D, S5
from longstate.models import Stack
from longstate.train import Size, Training
from tests.compress.helpers import language, tokens
from tests.reports.memory_samples import forecast_run, text_run


def stack(seed=0):
    torch.manual_seed(seed)
    return Stack([S5(8, d_state=16), S4D(8, d_state=16)]).eval()


def inputs(rows=24, seed=1):
    return torch.randn(rows, 30, 8, generator=torch.Generator().manual_seed(seed))


def apart(one, other, u):
    """Energy of the difference of the outputs, as a share."""
    with torch.no_grad():
        y, z = one(u)[0], other(u)[0]
    return float((y - z).square().sum() / y.square().sum())


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Steps end a healing, not time, which is another on every machine."""
    monkeypatch.setattr(healing, "EPOCHS", 4)


@pytest.fixture(scope="module")
def healed():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(healing, "EPOCHS", 20)
        model = stack()
        small, report = reduce(model, inputs(), keep=0.25)
        return model, small, report, *heal(small, model, inputs(), minutes=5)


def test_it_comes_closer_to_the_whole_model(healed):
    model, small, _, better, found = healed
    fresh = inputs(seed=5)
    assert apart(model, better, fresh) < apart(model, small, fresh)
    assert found.healed < found.reduced
    assert found.before == 0
    assert found.held_out == 3


def test_the_figures_are_those_of_the_part_held_out(healed):
    model, small, _, better, found = healed
    last = inputs()[21:]
    one_by_one = [sum(apart(model, m, row[None]) for row in last) / 3 for m in (small, better)]
    torch.testing.assert_close(
        torch.tensor([found.reduced, found.healed]), torch.tensor(one_by_one)
    )


def test_nothing_that_was_given_changes(healed):
    model, small, report, _, _ = healed
    torch.testing.assert_close(model(inputs())[0], stack()(inputs())[0], rtol=0, atol=0)
    again = reduce(stack(), inputs(), keep=0.25)
    torch.testing.assert_close(small(inputs())[0], again.model(inputs())[0], rtol=0, atol=0)
    assert report.healing is None


def test_layers_keep_their_kind_and_size(healed):
    _, small, _, better, _ = healed
    kinds = [[(type(b.mixer), b.mixer.d_state) for b in m.each_block()] for m in (small, better)]
    assert kinds[0] == kinds[1]
    assert [kind for kind, _ in kinds[1]] == [S5, S4D]


def test_a_rate_that_is_too_high_harms_nothing(monkeypatch):
    model = stack()
    small = reduce(model, inputs(), keep=0.25).model
    monkeypatch.setattr(healing, "RATE", 0.3)
    monkeypatch.setattr(healing, "DYNAMICS_RATE", 0.3)
    better, found = heal(small, model, inputs(), minutes=5)
    assert found.healed <= found.reduced
    assert apart(model, better, inputs()[21:]) <= apart(model, small, inputs()[21:])


def test_it_ends_where_the_part_held_out_stops_improving(monkeypatch):
    monkeypatch.setattr(healing, "EPOCHS", 1000)
    model = stack()
    small = reduce(model, inputs(), keep=0.25).model
    monkeypatch.setattr(healing, "RATE", 1e-12)
    monkeypatch.setattr(healing, "DYNAMICS_RATE", 1e-12)
    found = heal(small, model, inputs(), minutes=5).healing
    assert found.ended == "no progress"
    assert found.steps < 1000


def test_an_interrupt_keeps_the_best_so_far(monkeypatch):
    monkeypatch.setattr(healing, "EPOCHS", 1000)
    model = stack()
    small = reduce(model, inputs(), keep=0.25).model
    seen = []

    def show(progress):
        seen.append(progress)
        if progress.step == 45:
            signal.raise_signal(signal.SIGINT)

    better, found = heal(small, model, inputs(), minutes=5, show=show)
    assert found.ended == "interrupted"
    assert found.steps == len(seen) == 45
    assert found.healed < found.reduced
    assert apart(model, better, inputs()[21:]) < apart(model, small, inputs()[21:])
    assert seen[-1].total < 1_000_000
    assert seen[-1].total >= seen[-1].step


def broken_after(monkeypatch, steps):
    """The loss of a healing is no number from this step on."""
    loss = healing._Distillation.loss

    def broken(self, indices):
        return loss(self, indices) * (1 if self.steps < steps else torch.nan)

    monkeypatch.setattr(healing._Distillation, "loss", broken)


def test_a_loss_that_is_not_finite_keeps_the_reduced_model(monkeypatch):
    model = stack()
    whole, report = reduce(model, inputs(), keep=0.25)
    broken_after(monkeypatch, 0)
    small, healed = reduce(model, inputs(), keep=0.25, heal_minutes=5)
    for one, other in zip(small.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert healed.healing.ended == "not finite"
    assert healed.healing.healed == healed.healing.reduced
    assert healed.sentence == (
        f"{report.sentence} Healing stopped at step 0, because the loss is not finite, although "
        "the output of every module is finite; the model is the reduced one, not healed."
    )


def test_a_loss_that_is_later_not_finite_keeps_the_best_so_far(monkeypatch):
    model = stack()
    small = reduce(model, inputs(), keep=0.25).model
    monkeypatch.setattr(healing, "EPOCHS", 1000)
    broken_after(monkeypatch, 101)
    better, found = heal(small, model, inputs(), minutes=5)
    assert found.steps == 100
    assert found.healed < found.reduced
    assert "Healing stopped at step 100" in found.sentence
    assert "best weights up to then" in found.sentence
    last = inputs()[21:]
    score = sum(apart(model, better, row[None]) for row in last) / 3
    torch.testing.assert_close(found.healed, score)


def test_a_reduced_model_without_a_finite_loss_is_kept_and_reported(monkeypatch):
    model = stack()
    small, report = reduce(model, inputs(), keep=0.25)
    monkeypatch.setattr(healing._Distillation, "validate", lambda self: torch.nan)
    found = heal(small, model, inputs(), minutes=5).healing
    assert found.sentence == (
        "Healing stopped at step 0, because the validation loss is nan; the model is the reduced "
        "one, not healed."
    )
    assert '"healed": "NaN"' in report.healed(found).to_json()


def test_of_a_language_model_the_next_token_is_asked():
    model, data = language("mamba", "s4d"), tokens(24)
    small, report = reduce(model, data, keep=0.3, heal_minutes=5)
    assert report.healing.metric == "nats per token"
    assert "healed" in report.sentence
    assert report.to_dict()["healing"]["healed"] == report.healing.healed
    assert report.healing.healed <= report.healing.reduced
    with torch.no_grad():
        logits = model(data[21:])[0][:, :-1].log_softmax(-1)
    cost = -logits.gather(-1, data[21:, 1:, None]).mean()
    torch.testing.assert_close(torch.tensor(report.healing.before), cost)
    assert small.spec.options["mamba"]["d_state"] < 6


def test_sequences_of_several_lengths_and_a_function(tmp_path):
    model = stack()
    small = reduce(model, inputs(), keep=0.25).model
    short = inputs(5)[:, :7]
    other = short + 1
    found = heal(small, model, [inputs(6), short, lambda: model(other)], minutes=5).healing
    assert found.held_out == 2


def test_of_a_forecaster_its_windows_are_recorded(tmp_path):
    t = np.arange(300)
    frame = pd.DataFrame({"y": np.sin(t / 5) + 0.1 * np.cos(t)})
    size, training = Size(d_model=4, n_layers=1, d_state=8), Training(epochs=1)
    model = Forecaster(4, window=24, size=size, training=training, quantiles=(0.1, 0.9))
    model.fit(frame, "y")
    small, report = reduce(model, lambda: model.evaluate(frame), keep=0.25, heal_minutes=5)
    assert report.healing.held_out == 7  # an eighth of 57 windows; what is drawn again is not new
    assert report.healing.healed <= report.healing.reduced
    small.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert again.predict(frame).equals(small.predict(frame))


def test_frozen_parameters_stay():
    model = stack()
    model.blocks[0].gate.weight.requires_grad_(False)
    small = reduce(model, inputs(), keep=0.25).model
    better = heal(small, model, inputs(), minutes=5).model
    same = [torch.equal(a, b) for a, b in zip(small.parameters(), better.parameters(), strict=True)]
    frozen = [not p.requires_grad for p in small.parameters()]
    assert same == frozen


@pytest.mark.parametrize(
    ("minutes", "data", "match"),
    [(0, inputs(), "minutes of healing must be above 0"), (1, inputs(1), "at least 2 sequences")],
)
def test_refuses(minutes, data, match):
    model = stack()
    small = reduce(model, data, keep=0.5).model
    with pytest.raises(InputError, match=match):
        heal(small, model, data, minutes=minutes)
    with pytest.raises(InputError, match="healing needs data"):
        reduce(nn.Sequential(S4D(4)), keep=0.5, heal_minutes=1)


def test_the_command_heals_and_measures_on_other_text(tmp_path, capsys):
    run = text_run(tmp_path / "run")
    (tmp_path / "text.txt").write_text("to be or not to be, that is the question. " * 20)
    call = ["reduce", str(run), "--rows", "2", "--length", "32", "--heal-minutes", "1"]
    call += ["--data", str(tmp_path / "text.txt"), "--out", str(tmp_path / "small")]
    assert main(call) == 0
    printed = capsys.readouterr().out
    assert "healed" in printed
    assert printed.splitlines()[-1].startswith("nats per token")
    page = (tmp_path / "small" / "report.html").read_text("utf-8")
    assert "Healing took" in page
    assert printed.splitlines()[-1] in page
    load(tmp_path / "small")


def test_the_command_refuses_before_it_reduces(tmp_path, capsys):
    run, _ = forecast_run(tmp_path)
    call = ["reduce", str(run), "--out", str(tmp_path / "small"), "--heal-minutes"]
    assert main([*call, "1"]) == 2
    assert "--heal-minutes needs --data" in capsys.readouterr().err
    assert main([*call, "-1"]) == 2
    assert "must be above 0" in capsys.readouterr().err
    assert not (tmp_path / "small").exists()


def test_what_is_read_twice_is_one_sequence():
    u = torch.randn(6, 5, 2, generator=torch.Generator().manual_seed(0))
    rows = Rows([Call((x,), {}) for x in (u[:4], u[2:], u[:, :4])])  # the last has another length
    assert list(zip(rows.call.tolist(), rows.row.tolist(), strict=True)) == [
        *((0, i) for i in range(4)),
        *((1, i) for i in (2, 3)),
        *((2, i) for i in range(6)),
    ]
    assert torch.equal(rows.batch(np.array([4])).args[0], u[4:5])
