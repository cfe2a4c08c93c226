"""Classifier and Regressor: outcomes, gaps, streams, files, errors."""

import numpy as np
import pytest
import torch

import longstate
from longstate import Classifier, Regressor
from longstate.errors import InputError

SMALL = {"d_model": 8, "n_layers": 1, "epochs": 3}


def waves(n: int = 40, t: int = 30) -> tuple[np.ndarray, np.ndarray]:
    """Two channels; class "b" has a wave in the first."""
    random = np.random.default_rng(0)
    X, y = random.normal(size=(n, 2, t)), np.array(["a", "b"])[np.arange(n) % 2]
    X[y == "b", 0] += 2 * np.sin(np.arange(t) / 3)
    return X, y


def close(a: np.ndarray, b: np.ndarray) -> None:
    """PyTorch's tolerance for float32, the type of the network."""
    torch.testing.assert_close(torch.from_numpy(a).float(), torch.from_numpy(b).float())


@pytest.fixture(scope="module")
def fitted() -> Classifier:
    X, y = waves()
    X[3, 0, 4] = X[5, 0, 0] = np.nan
    X[5, :, 7:9] = np.nan
    return Classifier(**SMALL).fit(X, y)


def test_learns_unequal_lengths():
    X, y = waves(60)
    cut = np.random.default_rng(1).integers(8, 31, len(X))
    series = [x[:, :n] for x, n in zip(X, cut, strict=True)]
    model = Classifier(**SMALL).fit(series[:40], y[:40])
    assert model.score(series[40:], y[40:]) > 0.8
    assert list(model.classes_) == ["a", "b"]


def test_network_alone_learns():
    X, y = waves(60)
    model = Classifier(d_model=8, n_layers=1, epochs=25, convolutions=False).fit(X[:40], y[:40])
    assert model.score(X[40:], y[40:]) > 0.8
    assert model.fusion_.share == 1
    assert model.fusion_.convolutions is None


def test_stream_gives_what_a_part_of_the_series_gives(fitted):
    X, _ = waves()
    X[5, :, 7:9] = np.nan
    X[5, 0, 20] = np.nan
    stream = fitted.stream()
    p = np.stack([stream.push(X[5, :, i]) for i in range(30)])
    for share in (0.1, 0.5, 1.0):
        last = round(30 * share) - 1
        close(p[last], fitted.predict_proba(X[5:6], seen=share)[0])
    pieces = fitted.stream()
    q = np.concatenate([pieces.push(X[5][:, a:b]) for a, b in ((0, 8), (8, 9), (9, 30))])
    close(p, q)


def test_the_future_does_not_matter(fitted):
    X, _ = waves()
    changed = X.copy()
    changed[:, :, 15:] = 9
    for part in (changed, X[:, :, :15]):
        np.testing.assert_array_equal(
            fitted.predict_proba(X, seen=0.5),
            fitted.predict_proba(part, seen=0.5 if part is changed else 1.0),
        )


def test_a_gap_is_neither_zero_nor_its_neighbour(fitted):
    X, _ = waves(4)
    gap, zero = X.copy(), X.copy()
    gap[:, 0, 10:14], zero[:, 0, 10:14] = np.nan, X[:, 0, 9:10]
    assert np.abs(fitted.predict_proba(gap) - fitted.predict_proba(zero)).max() > 1e-6


def test_skipped_samples_pass_time(fitted):
    """A sample without values moves the clock and nothing else."""
    net = fitted.network_.double()
    x = torch.randn(1, 12, 2).double()
    x[:, 4:7] = torch.nan
    seen = torch.tensor([[True] * 4 + [False] * 3 + [True] * 5])
    u = net.encode(torch.cat([net.scale(x).double().nan_to_num(), (~x.isnan()).double()], -1))
    dt = torch.ones(1, 9).double()
    dt[0, 4] = 4
    h, _ = net.backbone(u[:, seen[0]], dt=dt)
    whole = net.pooled(x)[0].each()[:, -1]
    torch.testing.assert_close(whole[:, :8], h.mean(1))
    torch.testing.assert_close(whole[:, 8:], h.amax(1))
    net.float()


def test_same_seed_same_model():
    X, y = waves(20)
    one, two = (Classifier(**SMALL, seed=3).fit(X, y) for _ in range(2))
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))
    other = Classifier(**SMALL, seed=4).fit(X, y)
    assert np.abs(one.predict_proba(X, seen=1.0) - other.predict_proba(X, seen=1.0)).max() > 0


@pytest.mark.parametrize("kind", ["text", "whole", "truth"])
def test_a_file_gives_the_same_model(tmp_path, kind):
    X, y = waves(20)
    y = {"text": y, "whole": (y == "b") * 7 - 3, "truth": y == "b"}[kind]
    X[0, 1, 3] = np.nan
    model = Classifier(**SMALL, class_weight="balanced").fit(X, y)
    longstate.save(model, tmp_path / "model.safetensors")
    again = longstate.load(tmp_path / "model.safetensors")
    assert isinstance(again, Classifier)
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    np.testing.assert_array_equal(model.predict(X), again.predict(X))
    assert again.get_params() == model.get_params()
    assert again.classes_.dtype == model.classes_.dtype


def test_a_folder_is_continued_and_loaded(tmp_path):
    X, y = waves(20)
    model = Classifier(**SMALL).fit(X, y, out=tmp_path)
    again = longstate.load(tmp_path)
    np.testing.assert_array_equal(model.predict_proba(X), again.predict_proba(X))
    with pytest.raises(InputError, match="belongs to another run: its data is"):
        Classifier(**SMALL).fit(X[:, :, :20], y, out=tmp_path)


def test_class_weight_moves_decisions():
    random = np.random.default_rng(0)
    X, y = random.normal(size=(60, 1, 12)), np.arange(60) % 2
    X[:, 0] += 0.3 * y[:, None]
    count = [
        (Classifier(**SMALL, class_weight={1: w}).fit(X, y).predict(X) == 1).sum()
        for w in (0.1, 10.0)
    ]
    assert count[0] < count[1]


def test_regressor_learns_and_is_saved(tmp_path):
    random = np.random.default_rng(0)
    y = random.uniform(1, 3, 80)
    X = 1000 * np.sin(np.arange(50) / 3 * y[:, None]) + 100 * random.normal(size=(80, 50))
    model = Regressor(**SMALL).fit(X[:60], y[:60])
    assert model.score(X[60:], y[60:]) > 0.8
    longstate.save(model, tmp_path / "m.safetensors")
    np.testing.assert_array_equal(
        longstate.load(tmp_path / "m.safetensors").predict(X), model.predict(X)
    )
    assert model.predict(X, seen=0.5).shape == (80,)


def test_verdict_says_when_the_network_does_not_win():
    from longstate.train._fusion import Fusion

    lost = Fusion(share=0, cases=9, network=0.5, convolutions=0.9, both=0.9).verdict("accuracy")
    assert lost[0].startswith("The network does NOT beat random convolutions with ridge (accuracy")
    assert "random convolutions alone" in lost[1]
    won = Fusion(share=0.5, cases=9, network=0.9, convolutions=0.5, both=1.0).verdict("accuracy")
    assert won[0].startswith("The network beats")
    assert "share of 0.5" in won[1]


X, Y = waves(8)
WRONG = [
    (X[:0], Y[:0], "X has no cases"),
    ([np.zeros((2, 5)), np.zeros((3, 5))], ["a", "b"], "all cases need the same channels"),
    ([np.zeros((2, 0)), np.zeros((2, 5))], ["a", "b"], "case 0 of X is empty"),
    (np.full((2, 1, 5), np.inf), ["a", "b"], "case 0 of X contains infinity"),
    ([np.zeros(5), np.full(5, np.nan)], ["a", "b"], "case 1 of X has only missing values"),
    (np.where(np.arange(2)[:, None] == 1, np.nan, X), Y, "channel 1 of X has only missing"),
    (X, ["a"] * 8, "y has only one class, 'a'"),
    (X, Y[:7], "X has 8 cases, but y has 7"),
    (X, None, "requires y to be passed"),
    (X, np.linspace(0, 1, 8), "Unknown label type: continuous"),
    (X, [None] * 8, "missing labels"),
    (X[0, 0], Y, "Reshape your data"),
]


@pytest.mark.parametrize(("series", "classes", "message"), WRONG)
def test_wrong_data_is_refused(series, classes, message):
    with pytest.raises(InputError, match=message):
        Classifier(**SMALL).fit(series, classes)


def test_wrong_calls_are_refused(fitted):
    with pytest.raises(InputError, match="X has 1 channels, but the model was fitted to 2"):
        fitted.predict(np.zeros((3, 1, 9)))
    with pytest.raises(InputError, match="seen must be above 0"):
        fitted.predict_proba(waves(4)[0], seen=0)
    with pytest.raises(InputError, match=r"samples must be \(2\) for one sample"):
        fitted.stream().push(np.zeros(3))
    with pytest.raises(ValueError, match="not fitted yet"):
        Classifier().predict(X)
    with pytest.raises(InputError, match="no parameter 'd_modl'; did you mean 'd_model'"):
        Classifier().set_params(d_modl=3)
    with pytest.raises(InputError, match="n_layers"):
        Classifier(n_layers=0).fit(X, Y)
