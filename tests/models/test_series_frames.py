"""The model of whole series with a filter bank in front: frames, gaps, pieces, rates."""

import math

import pytest
import torch

from longstate.layers import S5
from longstate.models._filter_bank import FilterBank
from longstate.models._series import SeriesModel

STRIDE = 8


@pytest.fixture
def model() -> SeriesModel:
    torch.manual_seed(0)
    model = SeriesModel(2, 3, [S5(6, d_state=8) for _ in range(2)], stride=STRIDE).double().eval()
    torch.nn.init.normal_(model.head.weight)
    return model


def series(t: int, b: int = 3) -> torch.Tensor:
    """Values of one channel are missing in places, and a row has gaps."""
    x = torch.randn(b, t, 2, dtype=torch.float64)
    x[0, 3, 0] = torch.nan
    x[1, 5:9] = x[1, 24:48] = torch.nan  # three frames have no sample at all
    return x


def test_energies_are_those_of_the_equation():
    torch.manual_seed(0)
    bank = FilterBank(2, 1, STRIDE).double().eval()
    u = torch.randn(1, 50, 3, dtype=torch.float64)
    frames, _ = bank(u, bank.init_state(1), torch.ones(1, 50, dtype=torch.bool))
    A = torch.complex(-bank.log_decay.exp(), bank.frequency)
    B = torch.view_as_complex(bank.B) * ((A.exp() - 1) / A)[:, None]
    h, energies = torch.zeros_like(A), []
    for k in range(6):
        total = 0
        for s in range(8 * k, 8 * k + 8):
            h = A.exp() * h + B @ u[0, s].to(B.dtype)
            total = total + h.abs() ** 2
        energies.append((total / 8 + 1e-7).log())
    torch.testing.assert_close(frames.y[0], torch.stack(energies))
    assert frames.ready[0].tolist() == [(s + 1) // 8 for s in range(50)]
    assert bool(frames.kept.all())


@pytest.mark.parametrize("rate", [0.5, 1.0, 1.3, 1.6, 2.0, 11.0])
def test_pieces_are_the_whole(model, rate):
    x = series(120)
    whole, last = model(x, rate=rate)
    state, pieces = None, []
    for part in x.split([1, 2, 5, 40, 31, 1, 40], 1):
        y, state = model(part, state, rate=rate)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    for a, b in zip(last[1:], state[1:], strict=True):
        torch.testing.assert_close(a, b)


def test_outputs_change_with_frames_and_not_before(model):
    y, _ = model(series(40))
    changes = (y.diff(dim=1) != 0).any(-1)
    for row, ends in ((0, (7, 15, 23, 31, 39)), (1, (7, 15, 23))):
        assert changes[row].nonzero()[:, 0].add(1).tolist() == list(ends)


def test_rows_may_be_at_different_places_of_a_frame(model):
    """As after `longstate.stream.join`."""
    x = series(120, 2)
    _, first = model(x[:1, :13])
    _, second = model(x[1:, :32])
    joined = torch.utils._pytree.tree_map(lambda a, b: torch.cat([a, b]), first, second)
    pieces, after = [], joined
    for begin, end in ((0, 70), (70, 85)):
        part = torch.cat([x[:1, 13 + begin : 13 + end], x[1:, 32 + begin : 32 + end]])
        y, after = model(part, after)
        pieces.append(y)
    together = torch.cat(pieces, 1)
    torch.testing.assert_close(together[:1], model(x[:1, :98])[0][:, 13:])
    torch.testing.assert_close(together[1:], model(x[1:, :117])[0][:, 32:])


def test_a_rate_is_the_same_as_gaps_between_the_samples(model):
    x = series(60)
    gaps = torch.full((3, 120, 2), torch.nan, dtype=torch.float64)
    gaps[:, 1::2] = x
    heard = model.bank.frequency.data
    heard[heard * 2 > math.pi] = 1.0  # which are muted at a rate of 2
    torch.testing.assert_close(model(x, rate=2)[0], model(gaps)[0][:, 1::2])


def test_lengths_change_nothing_but_the_time_that_it_takes(model):
    x, lengths = series(60), torch.tensor([60, 50, 11])
    x[torch.arange(60) >= lengths[:, None]] = torch.nan
    times = torch.tensor([[59, 5], [49, 20], [10, 0]])
    known = model.pooled(x, lengths=lengths)[0].at(times)
    torch.testing.assert_close(known, model.pooled(x)[0].at(times))
    flat = SeriesModel(2, 3, [S5(6, d_state=8)]).double().eval()
    known = flat.pooled(x, lengths=lengths)[0].at(times)
    torch.testing.assert_close(known, flat.pooled(x)[0].at(times))


@pytest.mark.parametrize("frames", [True, False])
def test_some_times_are_read_as_all_times_are(model, frames):
    """Values and gradients, also after an earlier part of the series."""
    read = model if frames else SeriesModel(2, 3, [S5(6, d_state=8)]).double().eval()
    x = series(60)
    x[0, :9], x[1, 30:42] = torch.nan, torch.nan
    times = torch.tensor([[0, 8, 39], [39, 0, 0], [13, 14, 13]])
    with torch.no_grad():
        state = read(x[:, :20])[1]
    for before in (None, state):
        found = []
        for values in (lambda pooled: pooled.at(times), lambda pooled: _at(pooled.each(), times)):
            y = values(read.pooled(x[:, 20:], before)[0])
            found.append((y, *torch.autograd.grad(y.square().sum(), read.encode.parameters())))
        for some, every in zip(*found, strict=True):
            torch.testing.assert_close(some, every)


def _at(values, times):
    return values.gather(1, times[..., None].expand(-1, -1, values.shape[2]))


def test_oscillators_above_half_the_sampling_frequency_are_muted(model):
    bank = model.bank
    u = torch.randn(2, 64, 4, dtype=torch.float64)
    seen = torch.ones(2, 64, dtype=torch.bool)
    y = bank(u, bank.init_state(2), seen, 2.0)[0].y
    muted = bank.frequency * 2 > math.pi
    assert 0 < int(muted.sum()) < len(muted)
    torch.testing.assert_close((y == 0).all((0, 1)), muted)
    bank.train()
    rows = bank(u.repeat(50, 1, 1), bank.init_state(100), seen.repeat(50, 1))[0].y
    count = (rows == 0).all(1).sum(1)
    assert 20 < int((count == 0).sum()) < 80
    assert int(count.max()) > 10


def test_scale_of_the_energies():
    torch.manual_seed(0)
    bank = FilterBank(1, 0, STRIDE).eval()
    u, lengths = torch.randn(4, 400, 1), torch.tensor([400, 400, 160, 160])
    u[2:, 160:] = 1e6
    bank.fit(u, lengths)
    y = bank(u[:2], bank.init_state(2), torch.ones(2, 400, dtype=torch.bool))[0].y
    assert y.mean().abs() < 0.3
    assert 0.7 < y.std() < 1.3
