"""Calls and inputs of dplr_channel_scan and allpass_channel_scan."""

import torch

from longstate.ops import allpass_channel_scan, dplr_channel_scan
from tests.ops.helpers import randn, uniform

COMPLEX = torch.complex128


def dplr(impl, u, A, P, Q, B, C, h0=None, **flags):
    return dplr_channel_scan(u, A, P, Q, B, C, h0, impl=impl, **flags)


def allpass(impl, u, rho, C, h0=None, **flags):
    return allpass_channel_scan(u, rho, C, h0, impl=impl, **flags)


def dplr_inputs(b=2, t=40, d=5, n=3, r=1):
    P, Q = randn(2, d, n, r, dtype=COMPLEX, seed=3) / (4 * n) ** 0.5
    B, C = randn(2, d, n, dtype=COMPLEX, seed=4)
    A = torch.polar(uniform(d, n, high=0.95, seed=1), 3 * randn(d, n, seed=2))
    h0 = randn(b, d, n, dtype=COMPLEX, seed=5)
    return {"u": randn(b, t, d, seed=6), "A": A, "P": P, "Q": Q, "B": B, "C": C, "h0": h0}


def rank_two(**sizes):
    return dplr_inputs(r=2, **sizes)


def allpass_inputs(b=2, t=40, d=5, n=3):
    rho = uniform(d, low=-0.9, high=0.9, seed=1)
    return {
        "u": randn(b, t, d, seed=6), "rho": rho, "C": randn(d, n, seed=4),
        "h0": randn(b, d, n + 1, seed=5),
    }  # fmt: skip


CASES = {
    "dplr": (dplr, dplr_inputs),
    "rank 2": (dplr, rank_two),
    "allpass": (allpass, allpass_inputs),
}
