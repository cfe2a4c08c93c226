"""The choice among simple methods and the network, and the bands around it."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch.testing import assert_close

from longstate import Forecaster
from longstate.errors import InputError
from longstate.models._choice import NETWORK, PARTS
from longstate.train import Size, Training, _choice, _map_fit, _weights
from longstate.train._weights import best_share, conformal, effective, simplex
from longstate.train._windows import Windows
from tests.saved import FOLDER
from tests.saved import frame as saved_frame
from tests.train.helpers import QUICK, TINY, hourly

BRIEF = Training(epochs=1, windows_per_epoch=64, batch_size=32)


def fit(frame, horizon=4, target="y", **options):
    names = ("refit", "split", "known")
    fitting = {name: options.pop(name) for name in names if name in options}
    made = Forecaster(horizon, **{"size": TINY, "training": BRIEF, **options})
    return made.fit(frame, target, **fitting)


def weights(forecaster):
    return {part.name: part.weight for part in forecaster.choice.parts}


def seasonal(seed, rows=150):
    """A local level and monthly seasons that both move on: smoothing is the best forecast."""
    draw = np.random.default_rng(seed)
    level, season, y = 0.0, 3 * draw.standard_normal(12), []
    for t in range(rows):
        y.append(level + season[t % 12] + (error := draw.standard_normal()))
        level, season[t % 12] = level + 0.4 * error, season[t % 12] + 0.25 * error
    times = pd.date_range("2010-01-01", periods=rows, freq="MS").astype(str)
    return pd.DataFrame({"date": times, "y": y})


def oscillating(seed, rows=600):
    """An autoregression: ridge regression is the best forecast."""
    draw = np.random.default_rng(seed)
    y = [0.0, 0.0]
    for _ in range(rows):
        y.append(1.6 * y[-1] - 0.9 * y[-2] + draw.standard_normal())
    return pd.DataFrame({"y": y[2:]})


def squares(seed, rows=900):
    """The square of a known column: only the network sees it."""
    frame = hourly(rows)
    frame["z"] = np.random.default_rng(seed).standard_normal(rows)
    return frame.assign(y=frame["z"] ** 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_smoothing_is_chosen_where_it_is_best(seed):
    forecaster = fit(seasonal(seed), horizon=6, season=12)
    found = weights(forecaster)
    assert found["network"] == found["last value"] == found["ridge"] == 0
    scores = {s.method: s.mse for s in forecaster.evaluate(seasonal(seed)).scores}
    assert scores["model"] < min(scores["seasonal naive"], scores["last value"])
    assert found["smoothing"] + found["line"] > 0.8  # the line begins at the smoothing


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ridge_is_chosen_where_it_is_best(seed):
    found = weights(fit(oscillating(seed), window=12, season=1))
    assert found["ridge"] + found["line"] > 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_the_network_is_chosen_where_it_pays(seed):
    training = Training(epochs=4, learning_rate=1e-2, windows_per_epoch=1024, batch_size=32)
    size = Size(d_model=16, n_layers=1, d_state=4, dropout=0.0)
    options = {"window": 8, "known": "z", "split": (0.6, 0.2, 0.2), "seed": seed}
    forecaster = fit(squares(seed), horizon=8, size=size, training=training, **options)
    assert weights(forecaster)["network"] > 0.9
    assert "The network lowers" in " ".join(forecaster.choice.sentences())


def test_no_part_is_better_than_the_choice_on_validation():
    for frame in (seasonal(3), oscillating(3), hourly()):
        choice = fit(frame).choice
        simple = [part.rolling for part in choice.parts if part.rolling is not None]
        assert choice.rolling <= min(simple)
        assert sum(part.weight for part in choice.parts) == pytest.approx(1)


def test_weights_are_those_of_the_least_error():
    draw = np.random.default_rng(0)
    error = torch.from_numpy(
        draw.standard_normal((3, 400, 2, 1)) * np.array([1, 2, 5])[:, None, None, None]
    )
    found = simplex(error, [True, True, True], 1000).double()
    flat = error.flatten(1)
    grid = torch.tensor(
        [(a, b, 1 - a - b) for a in np.linspace(0, 1, 101) for b in np.linspace(0, 1 - a, 101)]
    )
    least = float(((grid @ flat) ** 2).mean(1).min())
    assert float(((found @ flat) ** 2).mean()) <= least + 1e-9
    assert found[0] > found[1] > found[2] >= 0
    assert simplex(error, [False, True, True], 1000)[0] == 0


def test_the_network_has_no_share_where_its_gain_is_chance():
    draw = torch.Generator().manual_seed(0)
    simple = torch.randn(200, 4, 1, generator=draw)
    alike = simple + 0.01 * torch.randn(200, 4, 1, generator=draw)
    assert best_share(simple, alike, 20)[0] == 0
    share, gain, noise = best_share(simple, 0.1 * simple, 20)
    assert share == 1
    assert gain > noise > 0


def test_margins_are_order_statistics():
    """With n independent windows the upper margin is the error of rank about (n + 1) q."""
    rest = torch.arange(19.0)[torch.randperm(19, generator=torch.Generator().manual_seed(0))]
    margin = conformal(rest[:, None, None, None].expand(19, 1, 1, 3), (0.1, 0.5, 0.9), 19)
    raised = 0.9 * 20 / 19
    assert_close(margin[0, 0], torch.tensor([18 * (1 - raised), 9.0, 18 * raised]))
    few = conformal(rest[:4, None, None, None].expand(4, 1, 1, 3), (0.1, 0.5, 0.9), 4)
    assert few[0, 0, 2] == rest[:4].max()
    assert few[0, 0, 0] == rest[:4].min()


def test_overlapping_windows_count_as_fewer():
    draw = torch.Generator().manual_seed(0)
    alone = torch.randn(400, 3, 2, generator=draw)
    assert effective(alone, 10) > 200
    repeated = alone.repeat_interleave(10, 0)
    assert 200 < effective(repeated, 10) < 800
    assert effective(torch.ones(50, 3, 2), 7) == 50


def test_windows_count_at_most_as_often_as_they_were_scored(monkeypatch):
    """The validation part has room for more windows than are scored, as in a long series."""
    monkeypatch.setattr(_choice, "MOST_WINDOWS", 20)
    monkeypatch.setattr(_map_fit, "MOST_STEPS", 1)  # 32 windows
    checked = []

    def counted(own):
        def count(before, now, count):
            checked.append((len(before), count))
            return own(before, now, count)

        return count

    monkeypatch.setattr(_map_fit, "gain_of", counted(_weights.gain_of))
    monkeypatch.setattr(_choice, "best_share", counted(best_share))
    choice = fit(seasonal(0, rows=1500)).choice
    assert (choice.windows, choice.independent) == (20, 20)
    assert checked == [(32, 32), (20, 20)]


def test_bands_hold_what_they_say():
    """80 % bands on 8 independent series whose spread grows with their level."""
    draw = np.random.default_rng(0)
    growth = np.exp(np.linspace(0, 1.5, 1600))[:, None]
    noise = draw.standard_normal((1600, 8))
    y = noise.copy()
    for t in range(1, 1600):
        y[t] += 0.7 * y[t - 1]
    frame = pd.DataFrame(growth * (5 + y), columns=[f"y{i}" for i in range(8)])
    forecaster = fit(frame, target=list(frame.columns), window=24, season=1)
    evaluation = forecaster.evaluate(frame)
    assert evaluation.windows >= 200
    (band,) = evaluation.bands
    assert band.level == pytest.approx(0.8)
    assert 0.76 <= band.observed <= 0.84
    assert not [s for s in evaluation.verdict() if "bands" in s]


@pytest.fixture(scope="module")
def forecaster():
    return fit(hourly(), window=48, training=QUICK)


def test_the_forecast_is_the_weighted_mean_of_its_parts(forecaster):
    frame = hourly()
    mean = sum(
        w * forecaster.predict(frame, method=name)["y"] for name, w in weights(forecaster).items()
    )
    assert_close(torch.tensor(forecaster.predict(frame)["y"]).float(), torch.tensor(mean).float())
    naive = forecaster.predict(frame, method="seasonal naive")["y"]
    assert_close(torch.tensor(naive).float(), torch.tensor(frame["y"][-24:-20].to_numpy()).float())
    last = forecaster.predict(frame, method="last value")["y"]
    assert_close(torch.tensor(last).float(), torch.tensor([frame["y"].iloc[-1]] * 4).float())
    for name in weights(forecaster):
        bands = forecaster.predict(frame, method=name)
        assert (bands["y_q0.1"] < bands["y_q0.9"]).all()


def test_everything_is_fitted_again_unless_asked_not_to(forecaster):
    frame = hourly()
    kept = fit(frame, window=48, training=QUICK, refit=False)
    assert kept.model.choice.now is None
    assert forecaster.model.choice.now is not None
    assert kept.choice.refitted is False
    assert kept.predict(frame)["y"].tolist() != forecaster.predict(frame)["y"].tolist()
    assert kept.evaluate(frame).to_json() == forecaster.evaluate(frame).to_json()
    changed = frame.copy()
    changed.loc[320:, "y"] += 100  # the test part changes what is refitted, and nothing else
    other = fit(changed, window=48, training=QUICK)
    for name in ("weight", "smoothing", "margin"):
        one, two = (f.model.choice.state_dict()[name] for f in (forecaster, other))
        assert_close(one, two, rtol=0, atol=0)
    assert not torch.equal(
        forecaster.model.choice.now.line.weight, other.model.choice.now.line.weight
    )


def test_bands_of_forecasts_rest_on_the_errors_of_the_test_part_too(forecaster):
    """Its noise is ten times as large here; the bands of an evaluation know nothing of it."""
    loud = hourly()
    loud.loc[320:, "y"] += 3 * np.random.default_rng(0).standard_normal(80)
    choice, quiet = (f.model.choice for f in (fit(loud, window=48, training=QUICK), forecaster))
    assert_close(choice.margin, quiet.margin, rtol=0, atol=0)
    width, before = (c.now.margin[0, ..., -1] - c.now.margin[0, ..., 0] for c in (choice, quiet))
    assert (width > 2 * before).all()


def test_bands_grow_with_the_mean_step_of_the_window(forecaster):
    """From a third to three times the usual one, which is that of the training part."""
    model, frame = forecaster.model, hourly()
    y = frame["y"].to_numpy()[:280]
    usual = np.abs(np.diff(y)).mean() / float(model.scale.std[0])
    assert_close(model.choice.usual_step[0], torch.tensor(usual).float())
    walk = np.cumsum(np.resize([1.0, -1.0, -1.0, 1.0], 48))
    for step, factor in ((0.1, 1 / 3), (0.5, 0.5), (2.0, 2.0), (9.0, 3.0)):
        x = torch.tensor(step * usual * walk)[None, :, None]
        assert_close(float(model.choice._step(x)), factor)


def test_bands_are_those_of_the_network_moved_by_the_margins(forecaster):
    model, window = (
        forecaster.model,
        Windows.last(forecaster._table(hourly()), forecaster.model.spec),
    )
    choice, (point, quantiles) = model.choice, model(window, scaled=True)
    step = choice._step(model.normalise(window)[1])
    found = choice.forecast(model, window, "network")
    moved = quantiles + choice.now.margin[1 + NETWORK] * step[..., None]
    assert_close(found.point, point, rtol=0, atol=0)
    assert_close(found.quantiles, moved.sort(dim=-1).values)
    simple = choice.forecast(model, window, "ridge")  # which has no bands of its own
    only = simple.point[..., None] + choice.now.margin[1 + PARTS.index("ridge")] * step[..., None]
    assert_close(simple.quantiles, only.sort(dim=-1).values)


def test_the_bounds_hold_for_every_method():
    frame = hourly().assign(y=np.random.default_rng(0).poisson(0.7, 400).astype(float))
    made = Forecaster(4, window=48, size=TINY, training=BRIEF).fit(frame, "y", lower=0)
    for name in (None, *weights(made)):
        assert (made.predict(frame, method=name).iloc[:, 1:] >= 0).all().all()


def test_the_choice_is_saved(forecaster, tmp_path):
    forecaster.save(tmp_path / "a")
    again = Forecaster.load(tmp_path / "a")
    assert again.choice == forecaster.choice
    forecaster.model.save(tmp_path / "b")
    for name in (None, "smoothing"):
        pd.testing.assert_frame_equal(
            again.predict(hourly(), method=name), forecaster.predict(hourly(), method=name)
        )


def test_wrong_methods_are_refused(forecaster):
    with pytest.raises(InputError, match="no method 'smooth'; did you mean 'smoothing'"):
        forecaster.predict(hourly(), method="smooth")
    short = fit(hourly(), window=12)
    with pytest.raises(InputError, match="seasonal naive needs a window of one season"):
        short.predict(hourly(), method="seasonal naive")
    old = Forecaster.load(FOLDER / "forecast_s4d")
    assert old.choice is None
    with pytest.raises(InputError, match="no method 'ridge', because it was trained by an older"):
        old.predict(saved_frame(), method="ridge")
    assert [s.method for s in old.evaluate(saved_frame()).scores] == [
        "model", "last value", "seasonal naive", "ridge",
    ]  # fmt: skip


def test_a_training_that_was_too_short_is_remarked():
    training = Training(epochs=2, learning_rate=1e-2, windows_per_epoch=256, batch_size=32)
    size = Size(d_model=8, n_layers=1, d_state=4, dropout=0.0)
    notes = fit(squares(0), known="z", window=8, size=size, training=training).facts["notes"]
    assert any("while the validation loss still fell" in note for note in notes)
