"""Certificates of linear layers for irregular time."""

import pytest
import torch

from longstate.layers import S4, S4D, LinOSS
from longstate.memory import certify
from tests.memory.test_certify_linear import claim


@pytest.mark.parametrize("variant", ["zoh", "bilinear"])
def test_irregular_time_of_a_diagonal_layer(variant):
    """Steps between the ends leave at most what is certified, and the ends reach it."""
    torch.manual_seed(0)
    layer = S4D(2, d_state=8, variant=variant).double()
    found = certify(layer, dt=(0.5, 400.0))
    left = claim(found, "dt between").certified
    layer.requires_grad_(False)
    sizes = [
        float(layer.system(rate=r).A.abs().max()) for r in torch.linspace(0.5, 400, 301).tolist()
    ]
    assert max(sizes) <= left * (1 + 1e-12)
    assert max(sizes) >= left * (1 - 1e-12)
    assert "dt" in found.scope
    assert all("regular samples" in c.what or "dt between" in c.what for c in found.claims)
    assert len(found.claims) == 9
    assert found.sentence == "No layer (of 1) can expand a state (2-norm), for any input."


def test_irregular_time_of_a_dense_layer():
    """Nothing is certified of it, and the sentence does not claim more than the lines."""
    torch.manual_seed(1)
    layer = LinOSS(4, d_state=8).double().requires_grad_(False)
    found = certify(layer, dt=(0.1, 10.0))
    grown = found.claims[1].certified
    assert all(c.what.endswith(", regular samples") for c in found.claims)
    assert f"may grow up to {grown:.4g} times (2-norm) at regular samples." in found.sentence
    assert "At other times between samples nothing is certified of LinOSS." in found.sentence
    torch.manual_seed(0)
    flat = certify(S4(2, d_state=4), dt=(0.5, 2.0)).sentence
    assert flat.startswith(
        "No layer (of 1) can expand a state (2-norm) at regular samples, for any"
    )
    assert "nothing is certified" not in certify(layer).sentence
