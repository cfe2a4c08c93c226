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
"""Layers with states to park, and states of them."""
import math
from longstate.layers import DSS, S4, S4D, S5, LinOSS, Longhorn, Mamba, Mamba2, Mamba3
LINEAR = {
    "s4d": lambda: S4D(3, d_state=8),
    "s4d real": lambda: S4D(3, d_state=4, init="real"),
    "s4": lambda: S4(2, d_state=8),
    "s5": lambda: S5(4, d_state=8),
    "dss": lambda: DSS(3, d_state=8),
    "linoss": lambda: LinOSS(4, d_state=6),
}
SELECTIVE = {
    "mamba": lambda: Mamba(4, d_state=4),
    "mamba2": lambda: Mamba2(4, d_state=6, d_head=4),
    "mamba3": lambda: Mamba3(4, d_state=6, d_head=4),
    "longhorn": lambda: Longhorn(4, d_state=3),
    "longhorn exact": lambda: Longhorn(4, d_state=3, variant="exact"),
}
def made(name):
    torch.manual_seed(3)
    return {**LINEAR, **SELECTIVE}[name]().eval()
def language():
    torch.manual_seed(4)
    options = {"s4d": {"d_state": 4}, "mamba2": {"d_state": 4, "d_head": 4}}
    return LanguageModel(LanguageSpec(11, 8, ("s4d", "mamba2"), options=options)).eval()
def state_of(layer, batch, length=24):
    torch.manual_seed(5)
    with torch.no_grad():
        return layer(torch.randn(batch, length, layer.d_model))[1]
def within(value, expected, share):
    """Whether a statistical number is as near as it must be."""
    return math.isclose(value, expected, rel_tol=share)
