"""Layers with states to park, and states of them."""

import math

import torch

from longstate.layers import DSS, S4, S4D, S5, GatedSSM, LinOSS, Longhorn, Mamba, Mamba2, Mamba3
from longstate.models import LanguageModel, LanguageSpec

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
    "gated": lambda: GatedSSM(4, d_state=6, top_k=4),
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
