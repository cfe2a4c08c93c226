"""The map from the newest rows to the next one: chaotic series, and when it is left out."""

import copy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate import _tensorfile as tensorfile
from longstate.errors import InputError
from longstate.models import ForecastModel
from longstate.models._choice import MAP, PARTS, with_all_parts
from longstate.models._iterated_map import IteratedMap, legendre
from longstate.train import Training, _choice, _map_fit
from longstate.train._map_fit import PENALTIES, Rows, choose_map, fit_map
from longstate.train._prepare import solve
from longstate.train._windows import Split, Windows
from tests.train.helpers import TINY, hourly

BRIEF = Training(epochs=1, windows_per_epoch=64, batch_size=32)


def henon(rows=900):
    """x(t+1) = 1 - 1.4 x(t)^2 + 0.3 x(t-1)."""
    x = [0.1, 0.1]
    for _ in range(rows + 98):
        x.append(1 - 1.4 * x[-1] ** 2 + 0.3 * x[-2])
    return pd.DataFrame({"y": x[100:]})


def fit(frame, horizon, target, **options):
    return Forecaster(horizon, size=TINY, training=BRIEF, **options).fit(frame, target)


@pytest.fixture(scope="module")
def forecaster():
    return fit(henon(), 4, "y", window=24, season=1)


def scores(forecaster, frame):
    return {s.method: s.mse for s in forecaster.evaluate(frame).scores}


def test_a_map_of_two_rows_is_found(forecaster):
    assert forecaster.choice.words() == "map"
    found = scores(forecaster, henon())
    assert found["model"] == found["map"] < 1e-4
    assert found["line"] > 0.3


@pytest.mark.parametrize("target", ["x", ["x", "y", "z"]])
def test_the_lorenz_system_is_forecast(target, benchmark_modules):
    from chaos import lorenz

    frame = pd.DataFrame(lorenz(seed=0, rows=3000), columns=["x", "y", "z"])
    made = fit(frame, 25, target, window=64, season=1)
    found = scores(made, frame)
    assert made.choice.words() == "map"
    assert found["model"] < 0.02 < 5 * found["model"] + found["line"]
    assert made.predict(frame).notna().all().all()


def test_it_is_left_out_where_the_line_is_better():
    draw = np.random.default_rng(0)
    walk = pd.DataFrame({"y": draw.standard_normal(900).cumsum()})
    made = fit(walk, 8, "y", season=1)
    assert made.model.choice.map is None
    assert "map" not in {part.name for part in made.choice.parts}
    assert "map" not in scores(made, walk)
    with pytest.raises(InputError, match="has no map of one row to the next"):
        made.predict(walk, method="map")


def test_too_few_rows_make_no_map():
    assert fit(henon(280), 4, "y", window=24, season=1).model.choice.map is None


@pytest.mark.parametrize("field", ["targets", "window"])
def test_what_cannot_have_a_map(forecaster, field):
    spec = forecaster.model.spec
    assert IteratedMap.possible(spec)
    other = {"targets": tuple(f"y{i}" for i in range(9)), "window": 3}[field]
    assert not IteratedMap.possible(replace(spec, **{field: other}))


def test_rows_at_irregular_times_have_no_map(forecaster, monkeypatch):
    spec = forecaster.model.spec
    monkeypatch.setattr(type(spec), "irregular", True)
    assert not IteratedMap.possible(spec)


def test_rows_with_gaps_are_not_fitted_to():
    frame = henon()
    frame.loc[::50, "y"] = np.nan
    made = fit(frame, 4, "y", window=24, season=1)
    assert made.model.choice.weight[MAP] > 0.9
    assert made.predict(frame).notna().all().all()


def loud():
    """With noise, for which a small penalty is wrong."""
    noise = 0.02 * np.random.default_rng(0).standard_normal(900)
    return henon().assign(y=lambda frame: frame["y"] + noise)


def parts_of(forecaster, frame):
    """The model, all windows of the training part, and its fold."""
    table, model = forecaster._table(frame), copy.deepcopy(forecaster.model)
    rows = Split(round(0.7 * len(frame)), round(0.8 * len(frame)), len(frame))
    _, linear = solve(model, table, rows)
    return model, Windows(table, model.spec, 0, rows.train), linear


def test_rows_are_exact_and_have_no_gap(forecaster):
    frame = henon()
    frame.loc[300, "y"] = np.nan
    model, windows, _ = parts_of(forecaster, frame)
    rows = Rows.of(model, windows, 24)
    z = (frame["y"].to_numpy() - model.scale.mean.numpy()) / model.scale.std.numpy()
    starts = [i for i in range(630 - 24 - 3) if not i <= 300 <= i + 24]
    expected = np.array([z[i : i + 25] for i in starts])
    np.testing.assert_allclose(rows.past[..., 0].numpy(), expected[:, :24], rtol=1e-14)
    np.testing.assert_allclose(rows.next[..., 0].numpy(), expected[:, 24], rtol=1e-14)


def test_the_penalty_that_is_kept_is_that_of_the_weights():
    made = fit(loud(), 4, "y", window=24, season=1)
    model, windows, _ = parts_of(made, loud())
    found = made.model.choice.map
    assert float(found.penalty) > PENALTIES[0]
    again = copy.deepcopy(found)
    again.weight.zero_()
    fit_map(again, Rows.of(model, windows, 24))
    assert_close(again.weight, found.weight)


def test_every_width_of_the_kernel_is_tried(forecaster, monkeypatch):
    model, _, linear = parts_of(forecaster, henon())
    wide = {}
    for widths in ((0.5, 50.0), (50.0, 0.5)):
        monkeypatch.setattr(_map_fit, "WIDTHS", widths)
        wide[widths] = choose_map(model, linear.folds[-1]).frequency
    assert_close(*wide.values(), rtol=0, atol=0)


def test_each_fold_has_a_map_of_its_own_rows(forecaster, monkeypatch):
    frame, fitted = henon(), []
    model, _, linear = parts_of(forecaster, frame)
    folds = [fold._replace(fit=fold.check) for fold in linear.folds] + linear.folds
    linear = replace(linear, folds=folds)
    monkeypatch.setattr(_choice, "fit_map", lambda _, rows: fitted.append(len(rows.past)))
    _choice.rolling(model, linear)
    assert fitted == [len(fold.fit) for fold in folds]


def test_a_map_without_a_weight_is_not_run(forecaster, monkeypatch):
    made = copy.deepcopy(forecaster)
    choice = made.model.choice
    choice.weight.zero_()
    choice.weight[PARTS.index("line")] = 1.0
    for each in (choice.map, choice.now.map):
        monkeypatch.setattr(each, "forward", lambda _: pytest.fail("the map ran"))
    made.backtest(henon(), origins=2)
    made.predict(henon())
    made.predict(henon(), method="ridge")
    with pytest.raises(pytest.fail.Exception):
        made.predict(henon(), method="map")


def test_the_forecast_repeats_one_step(forecaster):
    """By hand, in NumPy."""
    module = forecaster.model.choice.map
    p = {name: x.double().numpy() for name, x in module.state_dict().items()}
    rows = np.random.default_rng(0).standard_normal((3, 24, 1))
    found = module(torch.from_numpy(rows)).numpy()
    for i in range(3):
        newest = list(rows[i, :, 0])
        for step in range(4):
            m = (p["projection"] @ newest[-24:] - p["mean"]) / p["deviation"]
            waves = np.sqrt(2 / 500) * np.cos(m @ p["frequency"] + p["phase"])
            new = newest[-1] + np.concatenate([[1], m, waves]) @ p["weight"][:, 0]
            newest.append(float(np.clip(new, p["low"][0], p["high"][0])))
            np.testing.assert_allclose(found[i, step, 0], newest[-1], rtol=1e-9)


def test_the_forecast_stays_near_the_range_of_the_training(forecaster):
    module, range_ = forecaster.model.choice.map, henon()["y"]
    far = torch.full((1, 24, 1), 1e6, dtype=torch.float64)
    scale = forecaster.model.scale
    found = scale.inverse(module(far))
    width = range_.max() - range_.min()
    assert found.isfinite().all()
    assert found.max() <= range_.max() + 0.51 * width
    assert found.min() >= range_.min() - 0.51 * width


def test_it_is_fitted_again_to_all_rows(forecaster):
    choice = forecaster.model.choice
    assert not torch.equal(choice.map.weight, choice.now.map.weight)
    for name in ("projection", "frequency", "phase", "penalty"):
        assert torch.equal(getattr(choice.map, name), getattr(choice.now.map, name))
    changed = henon()
    changed.loc[725:, "y"] = 0.0  # the test part: known to `now` alone
    other = fit(changed, 4, "y", window=24, season=1).model.choice
    assert_close(other.map.weight, choice.map.weight, rtol=0, atol=0)
    assert not torch.allclose(other.now.map.weight, choice.now.map.weight)


def test_it_is_saved_and_stays_in_float64(forecaster, tmp_path):
    forecaster.save(tmp_path / "a")
    again = Forecaster.load(tmp_path / "a")
    pd.testing.assert_frame_equal(again.predict(henon()), forecaster.predict(henon()))
    assert again.model.half().choice.map.weight.dtype == torch.float64


def test_a_file_from_before_there_was_a_map_has_a_place_for_it(tmp_path):
    made = fit(hourly(), 4, "y", window=24)
    made.model.save(tmp_path / "new")
    tensors, facts = tensorfile.load(tmp_path / "new", "forecast model")
    kept = [i for i in range(len(PARTS)) if i != MAP]
    older = dict(tensors)
    older["choice.weight"] = tensors["choice.weight"][kept]
    for name in ("choice.margin", "choice.now.margin"):
        older[name] = tensors[name][[0, *(1 + i for i in kept)]]
    tensorfile.save(tmp_path / "old", "forecast model", older, facts)
    same = ForecastModel.load(tmp_path / "old").state_dict()
    for name, x in tensors.items():
        assert_close(same[name], x, rtol=0, atol=0)
    assert with_all_parts(tensors) is tensors


def test_legendre_polynomials_are_orthonormal():
    p = legendre(16, 6)
    assert_close(p @ p.T, torch.eye(6, dtype=torch.float64))
    t = torch.linspace(-1, 1, 16, dtype=torch.float64)
    assert_close(p.T @ (p @ t**5), t**5)
    assert (p[:, -1] > 0).all()
