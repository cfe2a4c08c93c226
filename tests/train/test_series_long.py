"""Long series: frames of a filter bank, batches by length, files, streams, reports."""

from pathlib import Path

import numpy as np
import pytest
import torch

import longstate
from longstate import Classifier
from longstate.cli import main
from longstate.models._filter_bank import stride_of
from longstate.models._series import SeriesModel
from longstate.reports import classes
from longstate.reports._subject import open_subject
from longstate.train import evaluate_classifier
from longstate.train._cases import Cases
from longstate.train._series_task import SAMPLES, SeriesTask
from tests.train.test_classifier import SMALL, close


def tones(n: int = 24) -> tuple[list[np.ndarray], np.ndarray]:
    """Two pitches in noise, of unequal lengths and loudness, with gaps."""
    random = np.random.default_rng(0)
    X, y = [], np.arange(n) % 2
    for i in range(n):
        t = np.arange(random.integers(1900, 3000))
        x = np.sin(t * (0.2 if y[i] else 0.3)) + 0.5 * random.normal(size=len(t))
        X.append(x[None] * random.uniform(10, 1000))
        X[i][0, 700:705] = np.nan
    return X, y


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Classifier, Path]:
    X, y = tones()
    folder = tmp_path_factory.mktemp("long")
    model = Classifier(**{**SMALL, "epochs": 12}, convolutions=False).fit(X, y, out=folder)
    return model, folder


def test_long_series_are_learned_in_frames(fitted):
    X, y = tones(48)
    model, _ = fitted
    assert model.network_.stride == 64
    assert model.score(X[24:], y[24:]) > 0.9
    assert model.score([x[:, ::2] for x in X[24:]], y[24:], rate=2) > 0.9


@pytest.mark.parametrize(
    ("median", "stride"), [(7, 1), (2047, 1), (2048, 64), (4095, 64), (4096, 128)]
)
def test_samples_of_a_frame(median, stride):
    assert stride_of(torch.tensor([1, median, 99_999])) == stride


def test_a_file_gives_the_same_model(fitted):
    X, _ = tones(6)
    model, folder = fitted
    again = longstate.load(folder)
    assert again.network_.stride == 64
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))


def test_a_stream_gives_what_a_part_of_the_series_gives(fitted):
    model, _ = fitted
    x = tones(1)[0][0]
    stream = model.stream()
    pieces = [stream.push(x[:, a:b]) for a, b in ((0, 10), (10, 703), (703, 1000), (1000, None))]
    p = np.concatenate(pieces)
    assert len(p) == x.shape[1]
    for share in (0.01, 0.3, 1.0):
        last = int(np.ceil(share * x.shape[1])) - 1
        close(p[last], model.predict_proba([x], seen=share)[0])


def test_pages_count_in_frames(fitted, capsys):
    model, folder = fitted
    X, y = tones(8)
    page = classes.render(classes.describe(model, evaluate_classifier(model, X, y), "tones"))
    assert f"at most {model.length_ // 64} frames of 64 samples in training" in page
    assert main(["info", str(folder)]) == 0
    assert "samples per frame" in capsys.readouterr().out
    assert open_subject(folder).unit == "frames of 64 samples"


def task(lengths: torch.Tensor, batch_size: int) -> SeriesTask:
    cases = Cases(torch.zeros(len(lengths), int(lengths.max()), 1), lengths)
    model = SeriesModel(1, 2, [longstate.layers.S5(2, d_state=2)])
    both = torch.zeros(len(lengths)), torch.zeros(len(lengths))
    loss = torch.nn.functional.mse_loss
    return SeriesTask(model, cases, cases, both, both, loss, batch_size=batch_size, seed=0)


def test_long_cases_share_a_batch_with_similar_ones():
    lengths = torch.randint(1000, 18_000, (300,))
    lengths[100:200], lengths[5] = 1500, 70_000  # the last is longer than a batch
    found = task(lengths, 32)
    batches = found.epoch(0)
    assert sorted(np.concatenate(batches)) == list(range(300))
    padded = [int(lengths[b].max()) * len(b) for b in batches]
    assert all(p <= SAMPLES or len(b) == 1 for p, b in zip(padded, batches, strict=True))
    assert max(map(len, batches)) == 32
    assert sum(padded) < 1.3 * int(lengths.sum())
    assert [b.tolist() for b in batches] == [b.tolist() for b in found.epoch(0)]
    assert {tuple(sorted(b)) for b in batches} != {tuple(sorted(b)) for b in found.epoch(1)}
    assert int(lengths[batches[0]].max()) != int(lengths[found.epoch(1)[0]].max())


def test_short_cases_are_mixed():
    batches = task(torch.full((100,), 500), 10).epoch(0)
    assert [len(b) for b in batches] == [10] * 10
    order = np.random.default_rng([0, 0]).permutation(100)
    np.testing.assert_array_equal(np.concatenate(batches), order)
