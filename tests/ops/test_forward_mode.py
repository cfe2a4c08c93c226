"""Ops have no kernels for forward-mode derivatives: the reference gives them, whatever `impl`."""

import pytest
import torch
from torch.testing import assert_close

from longstate.ops import (
    chunk_scan,
    diagonal_channel_scan,
    diagonal_scan,
    oscillator_scan,
    short_conv,
    zoh_scan,
)
from tests.ops.helpers import randn, uniform

C128 = torch.complex128
B, T, D, N = 2, 6, 3, 4
FLAGS = {"mask": uniform(B, T, seed=8) < 0.7, "reset": uniform(B, T, seed=9) < 0.3}


def diagonal(x, impl):
    return diagonal_scan(x, uniform(B, T, D, seed=1), randn(B, D, seed=2), impl=impl, **FLAGS)


def zoh(x, impl):
    A = torch.complex(-uniform(N, seed=1), randn(N, seed=2))
    dt, b = uniform(B, T, seed=3), randn(N, D, dtype=C128, seed=4)
    return zoh_scan(x, A, dt, B=b, impl=impl, **FLAGS)


def oscillator(x, impl):
    return oscillator_scan(x, uniform(D, seed=1), dt=uniform(B, T), rule="imex", impl=impl, **FLAGS)


def channels(x, impl):
    A, b, C = (randn(D, N, dtype=C128, seed=i) for i in (1, 2, 3))
    lengths = torch.tensor([T, T - 2])
    y, last = diagonal_channel_scan(x, A / 2, b, C, lengths=lengths, impl=impl)
    return y * (torch.arange(T) < lengths[:, None])[..., None], last


def real_channels(x, impl):
    A, b, C = (randn(D, N, seed=i) for i in (1, 2, 3))
    return diagonal_channel_scan(x, A / 2, b, C, impl=impl)


def chunks(x, impl):
    log_a, (b, C) = -uniform(B, T, D), randn(2, B, T, 1, N, seed=2)
    impl = "chunks" if impl == "cpu" else impl
    return chunk_scan(x[..., None], log_a, b, C, D=randn(D), impl=impl, **FLAGS)


def conv(x, impl):
    weight, bias, taps = randn(D, 3, seed=1), randn(D, seed=2), randn(B, 2, D, seed=3)
    return short_conv(x, weight, bias, taps, activation="silu", impl=impl, **FLAGS)


@pytest.mark.parametrize("call", [diagonal, zoh, oscillator, channels, real_channels, chunks, conv])
def test_forward_mode_is_that_of_the_reference(call):
    x, tangent = randn(B, T, D, seed=5), randn(B, T, D, seed=6)
    expected = torch.func.jvp(lambda x: call(x, "reference"), (x,), (tangent,))
    found = torch.func.jvp(lambda x: call(x, "cpu"), (x,), (tangent,))
    assert_close(found, expected)
    assert found[1][0].abs().max() > 0
