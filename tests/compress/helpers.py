"""Models and data that several tests share."""

import torch

from longstate.models import LanguageModel, LanguageSpec


def tokens(rows=3, length=40, vocabulary=32, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randint(vocabulary, (rows, length), generator=g)


def language(*layers, d_model=8, options=None, seed=0):
    torch.manual_seed(seed)
    known = {
        "mamba2": {"d_state": 8, "d_head": 4},
        "mamba3": {"d_state": 8, "d_head": 4},
        "mamba": {"d_state": 6},
        "falconmamba": {"d_state": 6},
        "longhorn": {"d_state": 6},
        "s4d": {"d_state": 8},
        "s4": {"d_state": 8},
        "dss": {"d_state": 8},
        "s5": {"d_state": 8},
        "linoss": {"d_state": 6},
        "attention": {"n_heads": 2},
    }
    given = {name: {**known[name], **(options or {}).get(name, {})} for name in set(layers)}
    return LanguageModel(LanguageSpec(32, d_model, layers, given)).eval()
