"""Layers with other settings than their defaults, by a name of their own for `screens.py`.

Each function makes a layer from a number of channels. Finished runs belong to the text of this
file: after an edit all of them run again.
"""

import math

import torch

from longstate.layers import S4D, LinearCDE, Longhorn


def s4d_real(width: int) -> S4D:
    return S4D(width, init="real")


def s4d_signed(width: int) -> S4D:
    return S4D(width, init="signed")


def s4d_inv(width: int) -> S4D:
    return S4D(width, init="inv")


def s4d_legs(width: int) -> S4D:
    return S4D(width, init="legs")


@torch.no_grad()
def s4d_random(width: int) -> S4D:
    """Complex modes that follow no theory: decays exp(N(0, 1)) / 2 and frequencies of N(0, pi²)."""
    layer = S4D(width)
    assert layer.frequency is not None
    layer.log_decay.copy_(torch.randn_like(layer.log_decay) - math.log(2))
    layer.frequency.copy_(torch.randn_like(layer.frequency) * math.pi)
    return layer


def longhorn_exact(width: int) -> Longhorn:
    return Longhorn(width, variant="exact")


def linear_cde_diagonal(width: int) -> LinearCDE:
    return LinearCDE(width, variant="diagonal")
