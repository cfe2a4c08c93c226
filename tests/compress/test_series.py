"""Smaller states of `Classifier` and `Regressor`."""

import copy

import numpy as np
import pytest
import torch

import longstate
from longstate import Classifier, Regressor, reduce
from longstate.compress import heal, size_curve
from longstate.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def series() -> tuple[list[np.ndarray], np.ndarray]:
    """Waves of two frequencies, of unequal lengths, some samples missing."""
    random, X, y = np.random.default_rng(0), [], []
    for i in range(48):
        t = np.arange(random.integers(20, 24))
        x = np.sin((0.3 + 0.5 * (i % 2)) * t + random.uniform(0, 6)) + random.normal(0, 0.2, len(t))
        x[random.integers(0, len(t))] = np.nan
        X.append(x[None])
        y.append(i % 2)
    return X, np.array(y)


@pytest.fixture(scope="module", params=["s5", "mamba"])
def fitted(request, series) -> Classifier:
    made = Classifier(request.param, d_model=8, n_layers=2, epochs=12, convolutions=False)
    return made.fit(*series)


def state_bytes(estimator) -> int:
    return reduce(estimator.network_, estimator.inputs(_X(estimator)), keep=1.0)[1].bytes_before


def _X(estimator) -> list[np.ndarray]:
    return [np.zeros((estimator.n_channels_, 8))]


def test_a_smaller_classifier_saves_loads_streams_and_gets_smaller_again(fitted, series, tmp_path):
    X, _ = series
    small, report = reduce(fitted, X, keep=0.5)
    assert isinstance(small, Classifier)
    assert report.bytes_after < report.bytes_before == state_bytes(fitted)
    assert state_bytes(small) == report.bytes_after
    small.save(tmp_path / "small.safetensors")
    loaded = longstate.load(tmp_path / "small.safetensors")
    np.testing.assert_array_equal(loaded.predict_proba(X), small.predict_proba(X))
    stream, whole = loaded.stream(), X[0][0]
    for value in whole:
        p = stream.push(np.array([[value]]))
    torch.testing.assert_close(
        torch.as_tensor(p[0]).double(), torch.from_numpy(small.predict_proba([X[0]], seen=1.0))[0]
    )
    _, second = reduce(small, X, keep=0.5)
    assert second.bytes_before == report.bytes_after > second.bytes_after


def test_the_network_is_not_changed_and_all_of_the_state_gives_its_outcome(fitted, series):
    X, _ = series
    before = fitted.predict_proba(X)
    whole, _ = reduce(fitted, X, keep=1.0)
    np.testing.assert_array_equal(whole.predict_proba(X), before)
    np.testing.assert_array_equal(fitted.predict_proba(X), before)


def test_healing_brings_the_outputs_back(fitted, series):
    X, _ = series
    small, _ = reduce(fitted, X, keep=0.1)
    better, healing = heal(small, fitted, X, minutes=0.05)
    assert isinstance(better, Classifier)
    assert healing.healed <= healing.reduced


def test_sizes_against_a_metric(fitted, series):
    X, y = series
    found = size_curve(fitted, lambda m: m.score(X, y), X, shares=(1.0, 0.25))
    assert [p.keep for p in found.points] == [1.0, 0.25]
    assert found.points[0].metric == fitted.score(X, y)
    assert found.points[1].bytes < found.points[0].bytes


def test_series_far_from_zero_keep_their_digits(fitted, series):
    """Their input for the network is not rounded to float32, which would lose the waves."""
    X, _ = series
    moved = [x + 1e6 for x in X]
    far = fitted.with_network(copy.deepcopy(fitted.network_))
    far.network_.scale.set(fitted.network_.scale.mean + 1e6, fitted.network_.scale.std)
    near, away = (e.network_(e.inputs(v)[0])[0] for e, v in ((fitted, X), (far, moved)))
    torch.testing.assert_close(away, near)


def test_a_function_is_refused(fitted):
    with pytest.raises(InputError, match="must be series, as for predict; got a function"):
        reduce(fitted, lambda: None, keep=0.5)


def test_a_regressor(series):
    X, y = series
    made = Regressor("s4d", d_model=8, n_layers=1, epochs=2).fit(X, y + 0.5)
    small, report = reduce(made, keep=0.5)
    assert isinstance(small, Regressor)
    assert report.bytes_after < report.bytes_before
    assert np.isfinite(small.predict(X)).all()
