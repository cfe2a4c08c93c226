"""`rate=`: a fitted estimator at another sampling interval than that of its training."""

import numpy as np
import pytest
import torch

from longstate import Classifier, Regressor
from longstate.errors import InputError
from tests.train.test_classifier import SMALL, close, waves


@pytest.fixture(scope="module")
def network() -> Classifier:
    X, y = waves()
    return Classifier(**SMALL, convolutions=False).fit(X, y)


@pytest.fixture(scope="module")
def mixed() -> Classifier:
    """Decides by convolutions alone, as far as it may."""
    X, y = waves()
    model = Classifier(**SMALL).fit(X, y)
    assert model.fusion_.share < 1
    return model


def test_a_rate_is_the_same_as_gaps_between_the_samples(network):
    """A sample that is missing in all channels is skipped and passes time: exact, with S5."""
    X, _ = waves(12)
    X[3, 0, 4] = X[4, :, 6] = np.nan
    gaps = np.full((12, 2, 60), np.nan)
    gaps[:, :, 1::2] = X
    close(network.predict_proba(X, rate=2), network.predict_proba(gaps))
    whole = X[6:]  # nothing is missing
    close(network.predict_proba(whole, 1.0, rate=2.0), network.predict_proba(gaps[6:], 1.0))
    assert np.abs(network.predict_proba(X, rate=2) - network.predict_proba(X)).max() > 1e-4


def test_an_array_and_a_list_of_unequal_lengths(network):
    X, _ = waves(6)
    series = [x[:, : 10 + 3 * i] for i, x in enumerate(X)]
    padded = np.full((6, 2, 25), np.nan)
    for i, x in enumerate(series):
        padded[i, :, : x.shape[1]] = x
    close(network.predict_proba(series, rate=2), network.predict_proba(padded, rate=2))


def test_a_stream_at_that_rate(network):
    X, _ = waves(3)
    X[0, :, 3] = np.nan
    p = network.stream(3, rate=0.5).push(X)
    close(p[:, 14], network.predict_proba(X, seen=0.5, rate=0.5))
    close(p[:, -1], network.predict_proba(X, seen=1.0, rate=0.5))


def test_half_of_the_samples_are_classified_as_all_of_them():
    """Slow waves of two frequencies: only the time between samples tells the classes apart."""
    random = np.random.default_rng(0)
    y = np.arange(80) % 2
    phase = random.uniform(0, 6, (80, 1))
    X = np.sin(np.arange(120) / np.where(y, 8, 16)[:, None] + phase)
    X += 0.1 * random.normal(size=X.shape)
    model = Classifier(d_model=8, n_layers=1, epochs=30, convolutions=False).fit(X[:60], y[:60])
    half = list(X[60:, None, ::2])
    assert model.score(half, y[60:], rate=2) > 0.9
    assert model.score(half, y[60:]) < 0.7
    assert model.score(X[60:], y[60:], rate=1) > 0.9


def test_convolutions_are_left_out_with_a_warning(mixed):
    X, y = waves()
    with pytest.warns(UserWarning, match="at rate=2 the network decides alone: random conv") as w:
        p = mixed.predict_proba(X, rate=2)
    assert w[0].filename == __file__
    assert "the score on validation cases was" in str(w[0].message)
    outputs, _ = mixed.network_(torch.from_numpy(X).transpose(1, 2), rate=2.0)
    close(p, (outputs[:, -1] / mixed.fusion_.temperature).softmax(-1).detach().numpy())
    assert mixed.remark(1) is None
    with pytest.warns(UserWarning, match="decides alone"):
        assert mixed.score(X, y, rate=2) == (mixed.classes_[p.argmax(1)] == y).mean()


def test_a_table_at_another_rate_may_have_another_width():
    X, y = waves()
    model = Classifier(**SMALL, convolutions=False).fit(X[:, 0], y)
    assert model.predict(X[:, 0, ::2], rate=2).shape == (40,)
    with pytest.raises(InputError, match="X has 15 features"):
        model.predict(X[:, 0, ::2])


def test_a_regressor():
    random = np.random.default_rng(0)
    y = random.uniform(1, 3, 120)
    X = np.sin(np.arange(100) / 10 * y[:, None] + random.uniform(0, 6, (120, 1)))
    model = Regressor(d_model=8, n_layers=1, epochs=40, convolutions=False).fit(X[:90], y[:90])
    half = list(X[90:, None, ::2])
    assert model.score(half, y[90:], rate=2) > 0.7 > model.score(half, y[90:])


def test_wrong_rates_are_refused(network):
    X, y = waves(4)
    for rate in (0, -1, np.nan, np.inf, "2"):
        with pytest.raises(InputError, match=r"rate=.* cannot be used: S5 expects rate to be"):
            network.predict(X, rate=rate)
    with pytest.raises(InputError, match="rate=0 cannot be used"):
        network.stream(rate=0)
    timeless = Classifier("s5,longhorn", d_model=8, epochs=1, convolutions=False).fit(X, y)
    timeless.predict(X, rate=1)
    with pytest.raises(InputError, match="rate=2 cannot be used: Longhorn takes neither dt nor"):
        timeless.predict_proba(X, seen=0.5, rate=2)
