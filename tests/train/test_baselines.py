import numpy as np
import torch
from torch.testing import assert_close

from longstate.layers import S4D
from longstate.models import Calendar, ForecastModel, ForecastSpec
from longstate.train import _moments
from longstate.train._baselines import (
    STRENGTHS,
    Kind,
    _best,
    _solutions,
    fit_linear,
    fit_ridge,
    last_value,
    seasonal_naive,
)
from longstate.train._forecast_task import fit_spread
from longstate.train._moments import Moments, sums_of
from longstate.train._scaling import fit_scale
from longstate.train._table import Columns, make_table
from longstate.train._windows import Windows
from tests.train.helpers import hourly


def setting(frame, quantiles=(), cycles=("day",), season=24):
    columns = Columns(("y", "x"), (), ("z",), "date")
    table = make_table(frame, columns)
    spec = ForecastSpec(
        ("y", "x"), (), ("z",), "date", Calendar("h"), cycles, 10, 4, season, quantiles
    )
    model = ForecastModel(spec, lambda d: S4D(d, d_state=4), d_model=4, n_layers=1).eval()
    train, validation = Windows(table, spec, 0, 200), Windows(table, spec, 200, 300)
    fit_scale(model, train, 200)
    return model, train, validation


def test_naive_forecasts():
    frame = hourly(300)
    _, train, _ = setting(frame, season=3)
    batch = train.at(np.array([50]))
    assert (last_value(train, batch)[0, :, 0] == frame["y"][49]).all()
    expected = frame["y"][[47, 48, 49, 47]].tolist()
    assert seasonal_naive(train, batch)[0, :, 0].tolist() == expected


def test_moments_give_the_error_without_the_data():
    torch.manual_seed(0)
    x, y = torch.randn(50, 6).double(), torch.randn(50, 3).double()
    weight, bias = torch.randn(6, 3).double(), torch.randn(3).double()
    moments = Moments.of(6, 3)
    moments.add(x[:20], y[:20])
    moments.add(x[20:], y[20:])
    expected = float(((x @ weight + bias - y) ** 2).mean())
    assert_close(moments.error(weight, bias), expected)


def test_a_fold_adds_to_the_moments_of_the_fold_before():
    model, train, validation = setting(hourly(300))
    table, spec = train.table, model.spec
    early = Windows(table, spec, 0, 120), Windows(table, spec, 120, 180)
    linear = fit_linear(model, [early, (train, validation)])
    for fold in linear.folds:
        for found, expected in zip(fold.fitted, sums_of(model, fold.fit), strict=True):
            assert found.n == expected.n == len(fold.fit)
            for name in ("x", "y", "xx", "xy", "yy"):
                a, b = getattr(found, name), getattr(expected, name)
                assert_close(a, b, rtol=1e-12, atol=1e-12 * float(b.abs().max()))


def test_of_many_windows_some_count_for_all(monkeypatch):
    model, train, _ = setting(hourly(300))
    every = sums_of(model, train)
    monkeypatch.setattr(_moments, "WINDOWS", 90)
    for found, expected in zip(sums_of(model, train), every, strict=True):
        assert_close(found.n, float(expected.n))
        assert_close(found.yy, expected.yy, rtol=0.3, atol=0.0)
        assert not torch.equal(found.yy, expected.yy)
        size = float(expected.xx.abs().max())
        assert_close(found.xx, expected.xx, rtol=0.0, atol=0.3 * size)


def test_ridge_is_the_textbook_solution_at_the_best_strength():
    model, train, validation = setting(hourly(300), cycles=())
    fit_ridge(model, train, validation)

    def matrices(windows, j):
        batch = windows.batch(np.arange(len(windows)))
        last, x, scaled = model.normalise(batch.window)
        features = model.line.features(x, scaled)[j].double()
        return features, (model.scale(batch.future) - last)[..., j].double()

    for j in range(2):
        x, y = matrices(train, j)
        check, truth = matrices(validation, j)
        centred = x - x.mean(0)
        gram = centred.T @ centred
        unit = gram.diagonal().mean()

        def solve(strength, gram=gram, unit=unit, x=x, y=y, centred=centred):
            weight = torch.linalg.solve(
                gram + strength * unit * torch.eye(len(gram)).double(), centred.T @ (y - y.mean(0))
            )
            return weight, y.mean(0) - x.mean(0) @ weight

        errors = {}
        for strength in STRENGTHS[8:]:
            weight, bias = solve(strength)
            errors[strength] = float(((check @ weight + bias - truth) ** 2).mean())
        weight, bias = solve(min(errors, key=errors.get))
        assert_close(model.ridge.weight[j], weight.float())
        assert_close(model.ridge.bias[j], bias.float())


def test_a_fading_line_penalises_each_weight_by_its_lag():
    model, train, _validation = setting(hourly(300), cycles=())
    batch = train.batch(np.arange(len(train)))
    last, x, scaled = model.normalise(batch.window)
    features = model.line.features(x, scaled)[0].double()
    y = (model.scale(batch.future) - last)[..., 0].double()
    fit = Moments.of(features.shape[1], 4)
    fit.add(features, y)
    lags = model.line.lags()
    assert len(lags) == features.shape[1]
    assert lags[:10].tolist() == list(range(10, 0, -1))
    assert lags[10:].tolist() == [*range(10, 0, -1), 1, 1, 1, 1]
    kind = Kind(1.5, torch.arange(len(lags)))
    found = _best([(fit, fit)], lags, [kind])
    weight, _ = next(_solutions(fit, lags, kind, [found.strength]))
    centred = features - features.mean(0)
    gram = centred.T @ centred
    unit = (gram.diagonal() / lags**1.5).mean()
    penalty = torch.diag(found.strength * unit * lags**1.5)
    assert_close((gram + penalty) @ weight, centred.T @ (y - y.mean(0)))


def test_calendar_is_dropped_where_it_does_not_help():
    frame = hourly(300)
    frame["y"] = np.random.default_rng(0).standard_normal(300).cumsum()
    model, train, validation = setting(frame)
    fit_ridge(model, train, validation)
    assert not model.line.weight[0, -6:].any()
    assert not model.ridge.weight[0, -6:].any()


def test_the_line_is_at_least_as_good_on_validation():
    model, train, validation = setting(hourly(300))
    lines = fit_ridge(model, train, validation).line
    batch = validation.batch(np.arange(len(validation)))
    y = model.scale(batch.future)
    for j, line in enumerate(lines):
        ours, plain = (
            float(((f(batch.window) - y)[..., j].double() ** 2).mean())
            for f in (model.scaled_line, model.scaled_ridge)
        )
        assert_close(torch.tensor(ours), torch.tensor(line.error))
        assert ours <= plain


def test_gaps_and_constant_columns_stay_finite():
    frame = hourly(300)
    frame.loc[30:60, "y"] = np.nan
    frame["z"] = 7.0
    model, train, validation = setting(frame, quantiles=(0.1, 0.9))
    assert fit_scale(model, train, 200) == ("z",)
    fit_ridge(model, train, validation)
    fit_spread(model, validation)
    for tensor in model.state_dict().values():
        assert torch.isfinite(torch.view_as_real(tensor) if tensor.is_complex() else tensor).all()


def test_the_spread_is_that_of_the_line_on_validation():
    model, train, validation = setting(hourly(300), quantiles=(0.25, 0.75))
    fit_ridge(model, train, validation)
    fit_spread(model, validation)
    batch = validation.batch(np.arange(len(validation)))
    below = model.scale(batch.future)[..., None] <= model.scaled(batch.window).quantiles
    share = below.double().mean((0, 1))
    # An empirical quantile of n numbers has its share of them below it, up to one.
    assert ((share - torch.tensor([0.25, 0.75])).abs() <= 1 / len(validation)).all()
