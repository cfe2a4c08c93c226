import math

import pytest
import torch

from longstate.errors import InputError
from longstate.memory import by_lag, by_slot, probe


def noisy(samples, flip, seed=0):
    """A fair coin, and a state that shows it with errors: I = 1 - h(flip)."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (samples,), generator=g)
    wrong = torch.rand(samples, generator=g) < flip
    shown = torch.where(wrong, 1 - y, y)
    return shown[:, None].double() + torch.tensor([[0.0, 3.0]]), y


@pytest.mark.parametrize("seed", range(3))
def test_known_channel(seed):
    states, y = noisy(4000, 0.11, seed)
    truth = 1 + 0.11 * math.log2(0.11) + 0.89 * math.log2(0.89)
    found = probe(states, {"coin": y}, seed=seed)
    assert abs(float(found.bits) - truth) < 3 * float(found.error) + 0.01
    assert found.kind == "lower_bound"


def test_a_nonlinear_code_needs_the_network_probe():
    """Exclusive or of two signs: nothing linear in it."""
    g = torch.Generator().manual_seed(0)
    states = torch.randint(2, (1500, 2), generator=g).double()
    y = (states[:, 0] != states[:, 1]).long()
    found = probe(states + 0.01 * torch.randn(1500, 2, generator=g), {"xor": y})
    assert float(found.linear) < 0.05
    assert float(found.network) > 0.9


@pytest.mark.parametrize("seed", range(3))
def test_an_uninformative_state_gets_no_information(seed):
    g = torch.Generator().manual_seed(seed)
    states, y = torch.randn(1000, 20, generator=g), torch.randint(4, (1000,), generator=g)
    found = probe(states, {"nothing": y}, seed=seed)
    assert float(found.bits) < 3 * float(found.error) + 0.02


def test_never_more_than_the_label_holds():
    states, y = noisy(400, 0.0)
    found = probe(states, {"coin": y})
    assert 0.95 < float(found.bits) <= float(found.entropy) + 1e-12 <= 1 + 1e-9


def test_labels_by_lag_and_by_slot():
    tokens = torch.tensor([[5, 6, 7], [8, 9, 4]])
    assert {k: v.tolist() for k, v in by_lag(tokens, [0, 2]).items()} == {
        "lag 0": [7, 4],
        "lag 2": [5, 8],
    }
    data = torch.tensor([[True, False, True], [False, True, False]])
    assert {k: v.tolist() for k, v in by_slot(tokens, data).items()} == {
        "slot 0": [5, 9],
        "slot 1": [7, -1],
    }


def test_refuses():
    states, y = noisy(100, 0.1)
    with pytest.raises(InputError, match="empty"):
        probe(states, {})
    with pytest.raises(InputError, match="integers of shape"):
        probe(states, {"a": y[:50]})
    with pytest.raises(InputError, match="NaN"):
        probe(states * float("nan"), {"a": y})
    with pytest.raises(InputError, match="are needed"):
        probe(states[:40], {"a": y[:40]})
    with pytest.raises(InputError, match="lags"):
        by_lag(y[None], [1000])


def test_uninformative_numbers_do_not_hide_information():
    """Two of 122 numbers know the label; a probe that fits the others would claim nothing."""
    g = torch.Generator().manual_seed(0)
    label = torch.randint(16, (1000,), generator=g)
    angle = label * (2 * math.pi / 16)
    known = torch.stack([angle.cos(), angle.sin()], 1) + 0.2 * torch.randn(1000, 2, generator=g)
    states = torch.cat([known, torch.randn(1000, 120, generator=g)], 1)
    found = probe(states, {"label": label})
    assert float(found.linear) > 0.4
    assert float(found.network) > -0.2
    useless = probe(states[:, 2:], {"label": label})
    assert float(useless.linear) > -0.1
    assert float(useless.bits) < 0.1
