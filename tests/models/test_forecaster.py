from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from longstate.layers import S4D, Attention
from longstate.models import ForecastModel, ForecastSpec, Window
from longstate.models._spec import calendar_features

SPEC = ForecastSpec(("a", "b"), ("x",), ("k",), None, None, (), 12, 5, 4, (0.1, 0.5, 0.9))


def make(spec=SPEC, seed=0):
    torch.manual_seed(seed)
    model = ForecastModel(spec, lambda d: S4D(d, d_state=4), d_model=6, n_layers=1).eval()
    model.line.weight.normal_(std=0.1)
    model.scale.set(torch.tensor([10.0, -3.0]), torch.tensor([2.0, 5.0]))
    return model


def window(b=3, spec=SPEC):
    draw = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    w, h = spec.window, spec.horizon
    observed = torch.ones(b, w, 2, dtype=torch.bool)
    k, x, m = len(spec.known), len(spec.covariates), spec.n_calendar
    return Window(
        normal(b, w, 2) * 4 + 7, observed, normal(b, w, x), normal(b, w + h, k), normal(b, w + h, m)
    )


def trained(model):
    torch.manual_seed(2)
    torch.nn.init.normal_(model.head.weight)
    return model


def test_layers_may_follow_a_pattern():
    pattern = (lambda d: S4D(d, d_state=4), lambda d: Attention(d, n_heads=2, window=6))
    spec = replace(SPEC, gate="auto")
    model = ForecastModel(spec, pattern, d_model=8, n_layers=3).eval()
    blocks = model.backbone.blocks
    assert [type(b.mixer).__name__ for b in blocks] == ["S4D", "Attention", "S4D"]
    assert [b.gate is None for b in blocks] == [False, True, False]
    assert torch.equal(model.scaled(window()).point, model.scaled_line(window()))


def test_an_untrained_model_equals_its_line():
    model, seen = make(), window()
    forecast = model.scaled(seen)
    assert torch.equal(forecast.point, model.scaled_line(seen))
    assert torch.equal(forecast.quantiles, model.scaled_line(seen)[..., None].expand(-1, -1, -1, 3))


def test_raw_units_are_scaled_units_scaled():
    model, seen = trained(make()), window()
    scaled, raw = model.scaled(seen), model(seen)
    assert raw.point.dtype == torch.float64
    assert_close(raw.point, scaled.point * torch.tensor([2.0, 5.0]).double() + model.scale.mean)
    assert_close(raw.quantiles[..., 0, 1], scaled.quantiles[..., 0, 1].double() * 2 + 10)


def test_shift_of_the_level_shifts_the_forecast():
    model, seen = trained(make()), window()
    moved = seen._replace(target=seen.target + 8.0)
    assert_close(model(moved).point.float(), (model(seen).point + 8.0).float())


def test_quantiles_never_cross():
    model, seen = trained(make()), window(20)
    assert (model(seen).quantiles.diff(dim=-1) >= 0).all()


def test_no_quantiles():
    model = make(replace(SPEC, quantiles=()))
    assert model(window()).quantiles.shape == (3, 5, 2, 0)


def test_rows_without_a_target_do_not_matter():
    model, seen = trained(make()), window()
    observed = seen.observed.clone()
    observed[:, 4:7] = False
    holed = seen._replace(observed=observed)
    other = holed._replace(covariates=holed.covariates.clone())
    other.covariates[:, 4:7] += 3.0
    # The line sees what stands in the gap; the state space part must not.
    model.line.weight.zero_()
    assert torch.equal(model(holed).point, model(other).point)
    assert not torch.equal(model(holed).point, model(seen).point)


def test_a_forecast_is_complete_if_rows_are_missing():
    model, seen = trained(make()), window()
    seen.observed[:, 4:7] = False
    later = seen._replace(known=seen.known.clone())
    later.known[:, -1] += 1.0
    model.line.weight.zero_()
    assert not torch.equal(model(seen).point[:, -1], model(later).point[:, -1])


def test_the_line_sees_the_calendar_at_the_last_row_alone():
    spec = replace(SPEC, cycles=("day",))
    model, seen = make(spec), window(spec=spec)
    other = seen._replace(calendar=seen.calendar + 1.0)
    other.calendar[:, spec.window - 1] = seen.calendar[:, spec.window - 1]
    assert torch.equal(model.scaled_line(other), model.scaled_line(seen))
    last = seen._replace(calendar=seen.calendar.clone())
    last.calendar[:, spec.window - 1] += 1.0
    assert not torch.equal(model.scaled_line(last), model.scaled_line(seen))


def test_future_targets_and_later_rows_are_not_seen():
    model, seen = trained(make()), window()
    later = seen._replace(known=seen.known.clone())
    later.known[:, -1] += 1.0
    model.line.weight.zero_()
    a, b = model(seen).point, model(later).point
    assert torch.equal(a[:, :-1], b[:, :-1])
    assert not torch.equal(a[:, -1], b[:, -1])


def test_constant_column_scales_by_one():
    model = make()
    model.scale.set(torch.tensor([1e9, 3.0]), torch.tensor([1e-8, 0.0]))
    assert torch.equal(model.scale.std, torch.ones(2, dtype=torch.float64))


def test_large_levels_stay_precise():
    model = make()
    model.scale.set(torch.tensor([1e9, 1e9]), torch.tensor([0.5, 0.5]))
    seen = window()
    assert_close(model.scale(seen.target * 0 + 1e9 + 0.25), torch.full((3, 12, 2), 0.5))


def test_gradients_reach_every_parameter_and_not_the_line():
    model, seen = trained(make()), window()
    model.scaled(seen).quantiles.sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert not any(name.startswith("line") for name, _ in model.named_parameters())


def test_calendar_repeats():
    hours = np.datetime64("2024-01-01T00", "ms") + np.arange(24 * 15) * np.timedelta64(1, "h")
    f = calendar_features(hours, ("day", "week"), len(hours))
    assert f.shape == (360, 12)
    assert_close(torch.from_numpy(f[:168]), torch.from_numpy(f[168:336]))
    assert_close(torch.from_numpy(f[:24, :6]), torch.from_numpy(f[24:48, :6]))
    assert calendar_features(None, ("day",), 4).shape == (4, 0)


@pytest.mark.parametrize("cycle", ["day", "week", "year"])
def test_calendar_features_are_between_minus_one_and_one(cycle):
    days = np.datetime64("2024-01-01", "ms") + np.arange(364) * np.timedelta64(36, "m")
    f = calendar_features(days, (cycle,), 364)
    assert f.shape[0] == 364
    assert np.abs(f).max() <= 1
