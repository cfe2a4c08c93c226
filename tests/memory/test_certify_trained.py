"""Certificates of trained models, whose weights are far from their initial values."""

import pytest
import torch
from torch import nn

from longstate.memory import certify
from longstate.models import LanguageModel, LanguageSpec


@pytest.mark.parametrize("name", ["mamba", "mamba2", "longhorn"])
def test_of_a_model_that_was_trained(name):
    """Repeat what came before a pause: weights as training leaves them, and texts to break them."""
    torch.manual_seed(0)
    options = {"mamba2": {"d_head": 4}} if name == "mamba2" else {}
    model = LanguageModel(LanguageSpec(10, 16, (name, name), options=options))
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        word = torch.randint(1, 10, (16, 4))
        text = torch.cat([word, torch.zeros(16, 4, dtype=torch.long), word], 1)
        logits, _ = model(text[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]
    for text in (
        torch.randint(0, 10, (64, 64)),
        torch.arange(10)[:, None].expand(10, 64),
        torch.randint(0, 10, (64, 2)).repeat(1, 32),
    ):
        result = certify(model, text)  # asserts the order of every claim
        assert result.passed
        assert any(c.seen is not None for c in result.claims)
