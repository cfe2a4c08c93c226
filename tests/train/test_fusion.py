"""The share of the network: ridge unless the network is clearly better."""

import torch

from longstate.train._fusion import choose_share


def share(network: torch.Tensor, ridge: torch.Tensor) -> float:
    """Outcomes are losses here, mixed linearly."""
    return choose_share(network, ridge, torch.ones(len(ridge)), lambda p: p[:, 0])


def test_ridge_decides_where_the_network_gains_less_than_chance():
    assert share(torch.tensor([[0.1], [2.0], [0.1], [1.0]]), torch.ones(4, 1)) == 0.0


def test_the_network_decides_where_it_is_always_better():
    gain = torch.tensor([[0.10], [0.11], [0.10], [0.11]])
    assert share(1 - gain, torch.ones(4, 1)) == 1.0


def test_one_case_proves_nothing():
    assert share(torch.zeros(1, 1), torch.ones(1, 1)) == 0.0
