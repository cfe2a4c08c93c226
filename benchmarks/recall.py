"""Associative recall: the task, and small models that are trained on it.

A row is PAIRS keys and values in turn, then the same keys in another order; at each of these the
model answers with its value. LETTERS keys and as many values, each value drawn by itself.
"""

import torch
from kept import kept
from torch import Tensor
from torch.nn import functional as F

from longstate.models import LanguageModel, LanguageSpec

PAIRS, LETTERS, SEEDS, STEPS = 6, 16, (0, 1, 2), 2500
CONTEXT = 2 * PAIRS
OPTIONS = {"d_state": 32, "d_head": 16}


def recall(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    """Keys and values in turn, then every key again in another order; and the values asked for."""
    draw = torch.Generator().manual_seed(seed)
    keys = torch.rand(rows, LETTERS, generator=draw).argsort(1)[:, :PAIRS]
    values = torch.randint(0, LETTERS, (rows, PAIRS), generator=draw)
    order = torch.rand(rows, PAIRS, generator=draw).argsort(1)
    pairs = torch.stack([keys, LETTERS + values], dim=2).flatten(1)
    return torch.cat([pairs, keys.gather(1, order)], dim=1), values.gather(1, order)


def trained(seed: int) -> LanguageModel:
    """Two layers of Mamba-2 of 32 channels, from disk if they were trained before."""
    settings = OPTIONS, PAIRS, LETTERS, STEPS
    model: LanguageModel = kept(f"recall_mamba2_{seed}", settings, lambda: _train(seed))
    return model.eval()


def _train(seed: int) -> LanguageModel:
    torch.manual_seed(seed)
    layers, options = ("mamba2", "mamba2"), {"mamba2": OPTIONS}
    model = LanguageModel(LanguageSpec(2 * LETTERS, 32, layers, options=options))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    for i in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * min(1, (i + 1) / 50) * (1 - 0.95 * i / STEPS)
        x, y = recall(64, 1_000_000 * (seed + 1) + i)
        logits = model(x)[0][:, CONTEXT:, LETTERS:]
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def right(model: LanguageModel, x: Tensor, y: Tensor) -> float:
    """Share of the answers that are right."""
    with torch.no_grad():
        given = torch.cat(
            [model(part)[0][:, CONTEXT:, LETTERS:].argmax(-1) for part in x.split(500)]
        )
    return float((given == y).double().mean())
