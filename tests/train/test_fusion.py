"""The share of the network: ridge unless the network is clearly better."""

import torch

from longstate.train._fusion import choose_share


def share(network: torch.Tensor, ridge: torch.Tensor) -> float:
    """Outcomes are losses here, mixed linearly."""
    return choose_share(network, ridge, torch.ones(len(ridge)), lambda p: p[:, 0])


def test_ridge_decides_where_the_network_gains_less_than_two_standard_errors():
    # gains of 1 and -0.5: mean 0.25, standard error 0.127 of 36 cases
    gain = torch.tensor([[1.0], [-0.5]]).repeat(18, 1)
    assert share(1 - gain, torch.ones(36, 1)) == 0.0
    assert share(1 - gain - 0.05, torch.ones(36, 1)) == 1.0


def test_the_network_decides_where_it_is_always_better():
    gain = torch.tensor([[0.10], [0.11]]).repeat(15, 1)
    assert share(1 - gain, torch.ones(30, 1)) == 1.0


def test_29_cases_prove_nothing():
    assert share(torch.zeros(29, 1), torch.ones(29, 1)) == 0.0
