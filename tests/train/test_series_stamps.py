"""A channel with time stamps: series at irregular times in `Classifier` and `Regressor`."""

import itertools

import numpy as np
import pytest
import torch

import longstate
from longstate import Classifier, Regressor
from longstate.errors import InputError
from longstate.train._stamps import irregular
from tests.train.test_classifier import SMALL, close, waves

ALONE = {**SMALL, "convolutions": False}


def at_random_times(n: int, seed: int = 0) -> tuple[list[np.ndarray], np.ndarray]:
    """Stamps and waves of two frequencies, which nothing but the stamps tells apart."""
    random, X, y = np.random.default_rng(seed), [], np.arange(n) % 2
    for wave in np.where(y, 1.6, 1.0):
        times = np.sort(random.uniform(0, 40, random.integers(30, 50)))
        values = np.sin(wave * times + random.uniform(0, 6))
        X.append(np.stack([10 * times, values + 0.1 * random.normal(size=len(times))]))
    return X, y


def stamped(X: np.ndarray, interval: float = 1.0, start: float = 0.0) -> np.ndarray:
    """Series with regular stamps as the first channel."""
    n, _, t = X.shape
    stamps = np.broadcast_to(start + interval * np.arange(t), (n, 1, t))
    return np.concatenate([stamps, X], 1)


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    X, y = at_random_times(40)
    X[3][1, 4:6] = X[5][1, 0] = np.nan
    return Classifier(**SMALL).fit(X, y, time_channel=0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2))])
def test_stamps_tell_what_the_order_does_not(seed):
    X, y = at_random_times(120, seed)
    model = Classifier(d_model=16, n_layers=1, epochs=20, convolutions=False, seed=seed)
    read = model.fit(X[:80], y[:80], time_channel=0).score(X[80:], y[80:])
    values = [x[1:] for x in X]
    ignored = model.fit(values[:80], y[:80]).score(values[80:], y[80:])
    assert read > 0.85 > 0.65 > ignored


@pytest.mark.parametrize("missing", [False, True])
def test_regular_stamps_change_nothing(missing):
    X, y = waves(24)
    if missing:
        X[3, :, :2] = X[5, 0, 4] = X[6, :, 7:9] = X[7, :, 28:] = np.nan
    with_stamps, without = Classifier(**SMALL), Classifier(**SMALL)
    with_stamps.fit(stamped(X, 0.5, 100.0), y, time_channel=0)
    without.fit(X, y)
    assert with_stamps.time_.interval == 0.5
    new = stamped(X, 0.5, -3.0)
    close(with_stamps.predict_proba(new), without.predict_proba(X))
    for seen in (0.1, 0.55, 0.7, 1.0):
        close(with_stamps.predict_proba(new, seen), without.predict_proba(X, seen))
    close(with_stamps.stream(24).push(new), without.stream(24).push(X))


def test_another_unit_changes_nothing():
    X, y = at_random_times(30)
    hours = [np.stack([x[0] / 3600 + 1e3, x[1]]) for x in X]
    one = Classifier(**ALONE).fit(X, y, time_channel=0)
    other = Classifier(**ALONE).fit(hours, y, time_channel=0)
    close(one.predict_proba(X), other.predict_proba(hours))
    close(one.predict_proba(X, 0.5), other.predict_proba(hours, 0.5))


def test_the_network_steps_over_the_time_between_seen_samples(fitted):
    x = at_random_times(40)[0][3][None]
    x[0, 1, 4:6] = np.nan
    net, interval = fitted.network_, fitted.time_.interval
    kept = x[0][:, ~np.isnan(x[0, 1])]
    gap = torch.from_numpy(np.diff(kept[0], prepend=kept[0, 0] - interval) / interval)[None].float()
    values = torch.from_numpy(kept[1:].T.copy())[None]
    u = net.encode(torch.cat([net.scale(values), torch.ones_like(values).float()], -1))
    h, _ = net.backbone(u, dt=gap)
    whole = net.pooled(torch.from_numpy(x).transpose(1, 2))[0].each()[:, -1]
    torch.testing.assert_close(whole, torch.cat([h.mean(1), h.amax(1)], 1))


def test_a_stream_gives_what_a_part_of_the_time_gives(fitted):
    x = at_random_times(40)[0][7]
    stream = fitted.stream()
    p = np.stack([stream.push(x[:, i]) for i in range(x.shape[1])])
    for share in (0.3, 1.0):
        length = (x[0, -1] - x[0, 0]) / fitted.time_.interval + 1
        last = int(((x[0] - x[0, 0]) / fitted.time_.interval < share * length).sum())
        close(p[last - 1], fitted.predict_proba(x[None], seen=share)[0])
    pieces, cut = fitted.stream(), (0, 9, 10, x.shape[1])
    close(p, np.concatenate([pieces.push(x[:, a:b]) for a, b in itertools.pairwise(cut)]))


def test_series_of_a_stream_need_not_have_samples_together(fitted):
    a, b = (x[:, :6] for x in at_random_times(40)[0][8:10])
    both, nothing = fitted.stream(2), np.full((2, 1), np.nan)
    both.push(np.stack([a[:, :3], np.concatenate([b[:, :1], nothing, b[:, 1:2]], 1)]))
    p = both.push(np.stack([np.concatenate([a[:, 3:], nothing], 1), b[:, 2:]]))
    alone = [fitted.stream().push(x)[-1] for x in (a, b)]
    close(p[:, -1], np.stack(alone))


def test_the_state_of_a_stream_is_saved(fitted, tmp_path):
    x = torch.from_numpy(at_random_times(40)[0][2].T.copy())[None]
    whole = fitted.network_(x)[0]
    stream = longstate.Stream(fitted.network_)
    stream.push(x[:, :7])
    stream.save(tmp_path / "state.safetensors")
    again = longstate.Stream(fitted.network_)
    again.load(tmp_path / "state.safetensors")
    torch.testing.assert_close(again.push(x[:, 7:]), whole[:, 7:])


def test_the_future_does_not_matter(fitted):
    x = at_random_times(40)[0][1]
    later = x.copy()
    later[:, 20:] = np.array([[1e4], [9.0]]) + np.arange(x.shape[1] - 20)
    p, q = (fitted.stream().push(one)[:20] for one in (x, later))
    np.testing.assert_array_equal(p, q)


def test_a_file_gives_the_same_model(fitted, tmp_path):
    X, _ = at_random_times(40)
    longstate.save(fitted, tmp_path / "model.safetensors")
    again = longstate.load(tmp_path / "model.safetensors")
    np.testing.assert_array_equal(fitted.predict_proba(X), again.predict_proba(X))
    assert (again.time_, again.n_channels_) == (fitted.time_, 2)


def test_long_series_are_read_in_frames_of_time():
    """Waves of two frequencies again, in so many samples that a bank of oscillators reads them."""
    random, X, y = np.random.default_rng(0), [], np.arange(24) % 2
    for wave in np.where(y, 0.3, 0.1):
        times = np.cumsum(random.choice([0.5, 1.0, 1.5], 2100))
        X.append(np.stack([np.sin(wave * times + random.uniform(0, 6)), times]))
    model = Classifier(**{**ALONE, "epochs": 8}).fit(X[:16], y[:16], time_channel=-1)
    assert model.network_.stride > 1
    assert model.score(X[16:], y[16:]) == 1
    x = X[17]
    whole = model.stream().push(x)
    pieces, cut = model.stream(), (0, 333, 334, 2100)
    close(whole, np.concatenate([pieces.push(x[:, a:b]) for a, b in itertools.pairwise(cut)]))
    close(whole[-1], model.predict_proba(x[None], seen=1.0)[0])
    x = x.copy()
    x[1, 100:] += 1e9
    with pytest.raises(
        InputError, match=r"lasts .* frames of 64 usual intervals, most of them wit"
    ):
        model.predict(x[None])


def test_regular_stamps_change_nothing_in_frames():
    random, y = np.random.default_rng(0), np.arange(8) % 2
    X = random.normal(size=(8, 1, 2048))
    X[0, 0, 100:300] = np.nan
    small = {**ALONE, "epochs": 1}
    read = Classifier(**small).fit(stamped(X, 0.25), y, time_channel=0)
    close(read.predict_proba(stamped(X, 0.25)), Classifier(**small).fit(X, y).predict_proba(X))


@pytest.mark.parametrize("t", [60, 2048])
def test_a_gap_is_the_same_as_missing_samples(t):
    """Samples that are missing in all channels, and samples that are not there."""
    X = np.random.default_rng(0).normal(size=(4, 1, t))
    X[:, 0, t // 2 : t // 2 + 9] = X[:, 0, 3] = X[:, 0, 20:22] = np.nan
    model = Classifier(**{**ALONE, "epochs": 1}).fit(stamped(X, 0.25), [0, 1, 0, 1], time_channel=0)
    assert (model.network_.stride > 1) == (t > 1000)
    x = torch.from_numpy(stamped(X, 0.25)).transpose(1, 2)
    there = ~x[0, :, 1].isnan()
    network = model.network_.double()
    torch.nn.init.normal_(network.head.weight)
    torch.testing.assert_close(network(x)[0][:, there], network(x[:, there])[0])


def test_samples_in_bursts_are_not_read_in_frames():
    times = np.cumsum(np.where(np.arange(2100) % 50, 1.0, 3600.0))
    X = [np.stack([times, np.sin(times + i)]) for i in range(4)]
    model = Classifier(**{**ALONE, "epochs": 1}).fit(X, [0, 1, 0, 1], time_channel=0)
    assert model.network_.stride == 1


def test_a_regressor(tmp_path):
    random, X = np.random.default_rng(0), []
    y = random.uniform(0.5, 2, 120)
    for wave in y:
        times = np.sort(random.uniform(0, 30, 40))
        X.append(np.stack([times, np.sin(wave * times + random.uniform(0, 6))]))
    model = Regressor(d_model=8, n_layers=1, epochs=30, convolutions=False)
    model.fit(X[:90], y[:90], time_channel=0)
    assert model.score(X[90:], y[90:]) > 0.4
    longstate.save(model, tmp_path / "m.safetensors")
    again = longstate.load(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(again.predict(X), model.predict(X))


def test_grid_search_passes_the_channel_on():
    selection = pytest.importorskip("sklearn.model_selection")
    X, y = at_random_times(20)
    padded = np.full((20, 2, 50), np.nan)  # a sample without stamp and values is none
    for i, x in enumerate(X):
        padded[i, :, : x.shape[1]] = x
    search = selection.GridSearchCV(Classifier(**{**ALONE, "epochs": 1}), {"d_model": [4, 8]}, cv=2)
    best = search.fit(padded, y, time_channel=0).best_estimator_
    assert best.time_.channel == 0
    close(best.predict_proba(padded), best.predict_proba(X))


GOOD = np.array([[0.0, 1.0, 2.5], [1.0, np.nan, 3.0]])


def changed(row: list[float]) -> list[np.ndarray]:
    return [GOOD, np.array([row, [1.0, 2.0, 3.0]])]


WRONG = [
    (changed([0, 2, 1]), 0, "case 1 of X has the stamp 1.0 behind 2.0; stamps must increase"),
    (changed([0, 2, 2]), 0, "case 1 of X has two samples with the stamp 2.0; keep one of them"),
    (changed([0, np.nan, 2]), 0, "case 1 of X has the stamp nan at sample 1; every sample needs"),
    (changed([0, 1, np.inf]), 0, "case 1 of X has the stamp inf at sample 2"),
    ([GOOD[:, :1], GOOD[:, :1]], 0, "every case of X has one sample, so that the stamps"),
    ([GOOD, GOOD], 2, "time_channel must be from -2 to 1, as X has 2 channels; got 2"),
    ([GOOD, GOOD], "time", "time_channel must be the number of a channel; got 'time'"),
    ([GOOD[:1], GOOD[:1]], 0, "X has one channel, the stamps"),
    ([GOOD, GOOD[:, 1:2]], 0, "case 1 of X has the stamp 1.0 at|case 1 of X has only missing"),
]


@pytest.mark.parametrize(("series", "channel", "message"), WRONG)
def test_wrong_stamps_are_refused(series, channel, message):
    with pytest.raises(InputError, match=message):
        Classifier(**ALONE).fit(series, [0, 1], time_channel=channel)


def test_wrong_calls_are_refused(fitted):
    X, y = at_random_times(6)
    with pytest.raises(InputError, match="rate=2 cannot be used for series with stamps"):
        fitted.predict(X, rate=2)
    with pytest.raises(InputError, match="X has 1 channels, but the model was fitted to 2"):
        fitted.predict([x[1:] for x in X])
    with pytest.raises(InputError, match=r"'longhorn' cannot read stamps.*use one of:.*s4d.*s5"):
        Classifier("longhorn", **ALONE).fit(X, y, time_channel=0)
    stream = fitted.stream()
    stream.push([1.0, 2.0])
    with pytest.raises(InputError, match="series 0 of the stream has the stamp"):
        stream.push([0.5, 2.0])
    stream.push([1.5, 2.0])
    assert fitted.predict([x[:, :1] for x in X]).shape == (6,)


def test_times_are_irregular_where_more_than_one_interval_in_20_is_another():
    for others, expected in ((1, False), (2, True)):  # of 20
        for interval, odd in ((1.19, False), (0.81, False), (1.21, True), (0.79, True)):
            between = [interval] * others + [1.0] * (20 - others)
            assert irregular([np.cumsum([5.0, *between])]) == (expected and odd)
    halves = [np.cumsum([0.0, 1.0] + [1.0] * 9), np.cumsum([9.0, 2.0] + [1.0] * 9)]
    assert not irregular(halves)  # one of 20, and none between two series
    assert not irregular([np.array([1.0]), np.array([7.0])])
