"""Random convolutions with ridge: what is drawn, the two kinds of features and their weight."""

import numpy as np
import pytest
import torch

from longstate.errors import InputError
from longstate.models._convolutions import ConvolutionRidge
from longstate.ops.convolution_competition import convolution_competition
from longstate.train import Classifier, _convolution_fit
from longstate.train import _checkpoint as checkpoint
from longstate.train._cases import between
from longstate.train._convolution_fit import choose_filters, fit_convolutions, make_convolutions
from longstate.train._series_record import SeriesRecord, load_series
from tests.saved import FOLDER


def series() -> tuple[torch.Tensor, torch.Tensor]:
    """12 series of 4 channels and up to 60 samples."""
    torch.manual_seed(0)
    return torch.randn(12, 4, 60), torch.tensor([60, 33, 50] * 4)


def chosen(seed: int = 0) -> tuple[ConvolutionRidge, list[int]]:
    x, lengths = series()
    model, dilations = make_convolutions(4, 2, lengths)
    choose_filters(model, dilations, x, lengths, seed)
    return model, dilations


def test_each_split_has_every_filter_once_and_another_order():
    model, dilations = chosen()
    assert model.splits == 2
    assert model.rivals.shape == (2, 2 * 12 * len(dilations), 7)
    splits = model.rivals.view(-1, 84)
    assert len(torch.unique(splits, dim=0)) == 2 * 2 * len(dilations)
    assert (splits.sort(1).values == torch.arange(84)).all()
    wanted = torch.tensor(dilations).repeat_interleave(24).expand(2, -1)
    torch.testing.assert_close(model.rivals_dilation, wanted, rtol=0, atol=0)
    used = model.rivals_channels.sum(2)
    assert used.min() == 1
    assert len(used.unique()) > 1
    assert len(torch.unique(model.rivals_channels.flatten(0, 1), dim=0)) > 4


def test_draws_are_those_of_the_seed():
    one, two, other = (chosen(seed)[0].state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(one[name], two[name]) for name in one)
    for name in ("bias", "channels", "rivals", "rivals_channels"):
        assert not torch.equal(one[name], other[name])


def test_wins_are_roots_behind_the_shares_and_have_as_much_variance():
    (x, lengths), (model, _) = series(), chosen()
    features = model.features(x, lengths)
    assert model.shares + 2 * 7 * 2 * model.rivals.shape[1] == features.shape[1]
    shares, wins = features[:, : model.shares], features[:, model.shares :]
    assert shares.min() >= 0
    assert shares.max() <= 1
    for own, u, v in zip(wins.chunk(2, dim=1), model.views(x), (0, 1), strict=True):
        found = convolution_competition(u, lengths, model.groups(v)).flatten(1)
        torch.testing.assert_close(own, found.clamp(min=0).sqrt(), rtol=0, atol=0)
    fit_convolutions(model, x, lengths, torch.randn(12, 2))
    scaled = ((features - model.mean) / model.std).double()
    varies = features.std(0) > 1e-6
    assert varies.float().mean() > 0.99
    variance = scaled.var(0, correction=0)
    torch.testing.assert_close(
        variance[: model.shares].sum() / varies[: model.shares].double().mean(),
        variance[model.shares :].sum() / varies[model.shares :].double().mean(),
        rtol=1e-5,
        atol=0,
    )
    scores = scaled @ model.weight.double() + model.intercept
    torch.testing.assert_close(model(x, lengths), scores, rtol=1e-4, atol=1e-4)


def test_a_repeated_series_has_the_same_wins_but_for_the_seams():
    """Means and not sums: the length by itself is no feature."""
    _, (model, _) = series(), chosen()
    wave = torch.sin(torch.arange(600) / 3).expand(1, 4, 600)
    both = [model.features(wave, torch.tensor([n]))[:, model.shares :] for n in (300, 600)]
    assert (both[0] - both[1]).abs().mean() < 0.02 * both[0].abs().mean() + 0.02


def test_many_cases_have_shares_alone(monkeypatch):
    monkeypatch.setattr(_convolution_fit, "MANY", 11)
    model, _ = chosen()
    x, lengths = series()
    assert model.splits == 0
    assert model.features(x, lengths).shape == (12, model.shares)
    fit_convolutions(model, x, lengths, torch.randn(12, 2))
    assert torch.isfinite(model(x, lengths)).all()


def test_wrong_splits_in_a_file_are_refused():
    _, record = load_series(Classifier, FOLDER / "series" / "classifier.safetensors", "classifier")
    assert record.splits == 0  # of before
    with pytest.raises(InputError, match="splits must be up to"):
        SeriesRecord(**{**vars(record), "splits": -1})


def test_gaps_are_on_lines_between_their_neighbours():
    nan = torch.nan
    x = torch.tensor(
        [[nan, nan, 1, 2, nan, nan, nan, 10, nan], [5] + 8 * [nan], 9 * [nan], [*range(9)]]
    )
    found = between(x.T[None])[0].T
    wanted = torch.tensor([[1, 1, 1, 2, 4, 6, 8, 10, 10], 9 * [5], 9 * [0], [*range(9)]])
    torch.testing.assert_close(found, wanted.to(x.dtype), rtol=0, atol=0)


def test_convolutions_read_a_gap_on_a_line_as_what_is_missing():
    fitted, whole = np.random.default_rng(0).standard_normal((2, 20, 2, 50))
    whole[:, :, 3::10] = (whole[:, :, 2::10] + whole[:, :, 4::10]) / 2
    thin, zero = whole.copy(), whole.copy()
    thin[:, :, 3::10], zero[:, :, 3::10] = np.nan, 0
    model = Classifier(epochs=1, d_model=4).fit(fitted, np.arange(20) % 2)
    scores = [model._ridge_scores(model._read(x)) for x in (whole, thin, zero)]
    away = [float((x - scores[0]).abs().max()) for x in scores[1:]]
    assert away[0] < 0.02  # rounding can move a response across a bias
    assert away[1] > 0.1


def test_files_with_flags_of_gaps_are_refused(tmp_path):
    x, _ = series()
    Classifier(epochs=1, d_model=4).fit(x.numpy(), np.arange(12) % 2).save(tmp_path / "m")
    tensors, facts = checkpoint.load(tmp_path / "m", "classifier")
    checkpoint.save(tmp_path / "m", "classifier", tensors, {**facts, "flags": True})
    with pytest.raises(InputError, match=r"with gaps by an older version.*train it again"):
        Classifier.load(tmp_path / "m")
