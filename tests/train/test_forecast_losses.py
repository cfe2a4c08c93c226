"""What a forecast is trained on and scored by, against sums written out by hand."""

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate.models import Forecast
from longstate.train import Training
from longstate.train import _forecast_task as forecast_task
from longstate.train._evaluate import evaluate
from longstate.train._forecast_task import ForecastTask, forecast_loss, pinball
from longstate.train._prepare import solve
from longstate.train._windows import Split, Windows
from tests.train.helpers import hourly
from tests.train.test_baselines import setting

LEVELS = (0.1, 0.5, 0.9)


def holed(rows=300):
    frame = hourly(rows)
    frame.loc[60:61, "y"] = np.nan
    frame.loc[[62, 210, 215, 216], "x"] = np.nan
    return frame


def test_pinball_by_hand():
    """Level 0.9: being 2 too low costs 1.8, being 2 too high 0.2."""
    truth = torch.tensor([[[3.0]], [[-1.0]]])
    forecast = Forecast(truth, torch.tensor([[[[1.0, 1.0]]], [[[1.0, 1.0]]]]))
    expected = torch.tensor([[[[1.8, 0.2]]], [[[0.2, 1.8]]]])
    assert_close(pinball(forecast, truth, (0.9, 0.1)), expected)


@torch.no_grad()
def test_gaps_of_the_future_are_ignored():
    model, train, _ = setting(holed(), LEVELS)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.head.weight)
    batch = train.at(np.arange(50, 70))
    here = batch.present
    assert not here.all()
    found = forecast_loss(model, batch)
    elsewhere = batch._replace(future=torch.where(here, batch.future, batch.future + 100))
    torch.testing.assert_close(forecast_loss(model, elsewhere), found, rtol=0, atol=0)
    forecast, y = model.scaled(batch.window), model.scale(batch.future)
    over = y[..., None] - forecast.quantiles
    level = torch.tensor(LEVELS)
    costs = torch.where(over > 0, level * over, (level - 1) * over)
    assert_close(found, ((forecast.point - y) ** 2)[here].mean() + costs[here].mean())


def task_of(settings, **options):
    model, train, validation = setting(hourly(300), LEVELS)
    return ForecastTask(model, train, validation, settings, seed=options.get("seed", 0))


def test_the_order_of_windows_depends_on_seed_and_epoch():
    settings = Training(batch_size=16, windows_per_epoch=1000)
    one, again, other = (task_of(settings, seed=seed) for seed in (0, 0, 1))
    orders = [np.concatenate(task.epoch(e)) for task in (one, other) for e in (0, 1)]
    for order in orders:
        assert sorted(order) == one.train.origins.tolist()
    assert len({tuple(order) for order in orders}) == 4
    assert np.array_equal(np.concatenate(again.epoch(1)), orders[1])
    few = task_of(Training(batch_size=16, windows_per_epoch=40))
    assert len(np.concatenate(few.epoch(0))) == 40


@torch.no_grad()
def test_a_long_validation_part_is_a_mean_over_some_windows(monkeypatch):
    monkeypatch.setattr(forecast_task, "VALIDATION_WINDOWS", 7)
    task = task_of(Training())
    n = len(task.validation)
    picked = np.linspace(0, n - 1, 7).astype(int)
    losses = [
        float(forecast_loss(task.model, task.validation.batch(picked[[i]]))) for i in range(7)
    ]
    assert n > 7
    assert_close(torch.tensor(task.validate()), torch.tensor(np.mean(losses)).float())


@torch.no_grad()
def test_the_spread_before_training_is_that_of_validation():
    """Ten times the noise after row 200: quantiles of the training part would hold far less."""
    frame = hourly(300)
    draw = np.random.default_rng(0)
    frame.loc[200:, ["y", "x"]] += 3 * draw.standard_normal((100, 2))
    model, train, validation = setting(frame, LEVELS)
    solve(model, train.table, Split(200, 300, 300))
    batch = validation.batch(np.arange(len(validation)))
    below = model.scale(batch.future)[..., None] <= model.scaled(batch.window).quantiles
    share = below.double().mean((0, 1))
    # An empirical quantile of n numbers has its share of them below it, up to one.
    assert ((share - torch.tensor(LEVELS)).abs() <= 1 / len(validation)).all()


def test_the_spread_leaves_gaps_out():
    model, train, validation = setting(holed(), LEVELS)
    solve(model, train.table, Split(200, 300, 300))
    batch = validation.batch(np.arange(len(validation)))
    assert not batch.present.all()
    errors = (model.scale(batch.future) - model.scaled_line(batch.window)).numpy()
    for step in range(4):
        for column in range(2):
            here = batch.present[:, step, column].numpy()
            expected = np.quantile(errors[here, step, column], LEVELS)
            assert_close(model.spread[step, column], torch.from_numpy(expected).float())


@pytest.mark.parametrize(("shift", "share"), [(1e3, 1.0), (-1e3, 0.0)])
@torch.no_grad()
def test_coverage_is_the_share_of_truth_at_or_below(shift, share):
    model, train, _validation = setting(hourly(300), LEVELS)
    solve(model, train.table, Split(200, 300, 300))
    model.spread.fill_(shift)
    test = Windows(train.table, model.spec, 260)
    for coverage in evaluate(model, test).quantiles:
        assert coverage.observed == share
        assert coverage.observed_by_step == (share,) * 4


def test_scores_leave_gaps_out():
    frame = holed()
    model, train, _validation = setting(frame)
    solve(model, train.table, Split(200, 300, 300))
    found = evaluate(model, Windows(train.table, model.spec, 205, 225)).score("last value")
    squares = []
    for name, values in zip(("y", "x"), (frame["y"], frame["x"]), strict=True):
        held = values.ffill()
        spread = held[:200].std(ddof=0)
        for origin in range(205, 222):
            errors = (values[origin : origin + 4] - held[origin - 1]) / spread
            squares += [e**2 for e in errors if not np.isnan(e)]
        assert values[205:225].isna().sum() == {"y": 0, "x": 3}[name]
    assert len(squares) < 2 * 17 * 4
    assert_close(found.mse, float(np.mean(squares)))
