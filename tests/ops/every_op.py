"""Every registered op in one table: a call, and small inputs for all of its arguments."""

from collections.abc import Callable

import torch
from torch import Tensor

from longstate.ops import (
    allpass_channel_scan,
    chimera_scan,
    chunk_scan,
    diagonal_channel_scan,
    diagonal_scan,
    dplr_channel_scan,
    expm_scan,
    gated_norm,
    oscillator_scan,
    short_conv,
    zoh_channel_scan,
    zoh_scan,
)
from tests.ops import own_rule
from tests.ops import test_longhorn_scan as longhorn
from tests.ops import test_selective_scan as selective
from tests.ops.helpers import Call, randn, uniform

Tensors = dict[str, Tensor]
C128 = torch.complex128
B, T, D, N = 2, 5, 3, 2


def flags() -> Tensors:
    return {"mask": uniform(B, T, seed=8) < 0.8, "reset": uniform(B, T, seed=9) < 0.2}


def diagonal(impl, x, a, h0, **flags):
    return diagonal_scan(x, a, h0, impl=impl, **flags)


def diagonal_inputs(constant: bool = False, dtype: torch.dtype = torch.float64) -> Tensors:
    a = randn(D, dtype=dtype, seed=1) if constant else randn(B, T, D, dtype=dtype, seed=1)
    h0 = randn(B, D, dtype=dtype, seed=3)
    return {"x": randn(B, T, D, dtype=dtype, seed=2), "a": a / 2, "h0": h0, **flags()}


def zoh(impl, u, A_real, A_imag, dt, h0, B, **flags):
    A = torch.complex(-A_real, A_imag)
    return zoh_scan(u, A, dt, h0, B=B, impl=impl, **flags)


def zoh_inputs() -> Tensors:
    return {
        "u": randn(B, T, D, seed=1), "A_real": uniform(N, seed=2), "A_imag": randn(N, seed=3),
        "dt": uniform(B, T, seed=4), "h0": randn(B, N, dtype=C128, seed=5),
        "B": randn(N, D, dtype=C128, seed=6), **flags(),
    }  # fmt: skip


def held_channels(impl, u, A_real, A_imag, B, C, dt, h0, **flags):
    A = torch.complex(-A_real, A_imag)
    return zoh_channel_scan(u, A, B, C, dt, h0, impl=impl, **flags)


def held_channel_inputs() -> Tensors:
    b, c = randn(2, D, N, dtype=C128, seed=6)
    return {
        "u": randn(B, T, D, seed=1), "A_real": uniform(D, N, seed=2), "A_imag": randn(D, N, seed=3),
        "B": b, "C": c, "dt": uniform(B, T, seed=4), "h0": randn(B, D, N, dtype=C128, seed=5),
        **flags(),
    }  # fmt: skip


def implicit(impl, u, A, h0, B, dt, **flags):
    return oscillator_scan(u, A, h0, B=B, dt=dt, rule="im", impl=impl, **flags)


def explicit(impl, u, A, h0, B, dt, **flags):
    return oscillator_scan(u, A, h0, B=B, dt=dt, rule="imex", impl=impl, **flags)


def oscillator_inputs() -> Tensors:
    return {
        "u": randn(B, T, D, seed=1), "A": uniform(N, low=0.2, seed=2),
        "h0": randn(B, 2, N, dtype=C128, seed=3), "B": randn(N, D, dtype=C128, seed=4),
        "dt": uniform(B, T, low=0.2, seed=5), **flags(),
    }  # fmt: skip


def channels(impl, u, A, B, C, h0):
    return diagonal_channel_scan(u, A, B, C, h0, impl=impl)


def channel_inputs() -> Tensors:
    A, b, C = (randn(D, N, dtype=C128, seed=i) / 2 for i in (2, 3, 4))
    h0 = randn(B, D, N, dtype=C128, seed=5)
    return {"u": randn(B, T, D, seed=1), "A": A, "B": b, "C": C, "h0": h0}


def dplr(impl, u, A, P, Q, B, C, h0):
    return dplr_channel_scan(u, A, P, Q, B, C, h0, impl=impl)


def dplr_inputs() -> Tensors:
    P, Q = randn(2, D, N, 1, dtype=C128, seed=6) / 2
    return {**channel_inputs(), "P": P, "Q": Q}


def allpass(impl, u, rho, C, h0):
    return allpass_channel_scan(u, rho, C, h0, impl=impl)


def allpass_inputs() -> Tensors:
    return {
        "u": randn(B, T, D, seed=1), "rho": uniform(D, low=-0.9, high=0.9, seed=2),
        "C": randn(D, N, seed=3), "h0": randn(B, D, N + 1, seed=4),
    }  # fmt: skip


def exponentials(impl, M, v, h0, start, **flags):
    return expm_scan(M, v, h0, start=start, impl=impl, **flags)


def exponential_inputs() -> Tensors:
    return {
        "M": randn(B, T, 2, N, N, seed=1) / 5, "v": randn(B, T, 2, N, seed=2) / 5,
        "h0": randn(B, 2, N, seed=3), "start": randn(2, N, seed=4), "reset": flags()["reset"],
    }  # fmt: skip


def grid(impl, x, s, r, select, a_real, a_imag, c, coupling, h0, g0, **flags):
    a = torch.complex(-a_real, a_imag)
    return chimera_scan(x, s, r, select, a, c, coupling, h0, g0, impl=impl, **flags)


def grid_inputs() -> Tensors:
    b, t, v, k, n = 1, 2, 2, 1, 1  # its second derivatives have many entries
    sites, channels = (b, t, v, k, 1), (k, 1, n)
    h0, g0 = randn(2, b, v, *channels, dtype=C128, seed=1)
    return {
        "x": randn(*sites, seed=2), "s": uniform(*sites, seed=3), "r": uniform(*sites, seed=4),
        "select": randn(b, t, v, k, 6, n, seed=5), "a_real": uniform(*channels, seed=6),
        "a_imag": randn(*channels, seed=7), "c": uniform(*channels, low=0.1, seed=8),
        "coupling": randn(2, *channels, seed=9) / 2, "h0": h0, "g0": g0,
        **{name: flag[:b, :t] for name, flag in flags().items()},
    }  # fmt: skip


def chunks(impl, x, log_a, B, C, h0, weight, own, D, **flags):
    return chunk_scan(
        x, -log_a, B, C, h0, weight=weight, own=own, D=D, impl=impl, **flags
    )  # fmt: skip


def chunk_inputs() -> Tensors:
    b, c = randn(2, B, T, 1, N, seed=3)
    return {
        "x": randn(B, T, 2, D, seed=1), "log_a": uniform(B, T, 2, seed=2), "B": b, "C": c,
        "h0": randn(B, 2, D, N, seed=4), "weight": uniform(B, T, 2, seed=5),
        "own": uniform(B, T, 2, seed=6), "D": randn(2, seed=7), **flags(),
    }  # fmt: skip


def conv(impl, x, weight, bias, taps, **flags):
    return short_conv(x, weight, bias, taps, activation="silu", impl=impl, **flags)


def conv_inputs() -> Tensors:
    return {
        "x": randn(B, T, D, seed=1), "weight": randn(D, 3, seed=2), "bias": randn(D, seed=3),
        "taps": randn(B, 2, D, seed=4), **flags(),
    }  # fmt: skip


def norm(impl, y, z, weight):
    return (gated_norm(y, z, weight, groups=2, impl=impl),)


def norm_inputs() -> Tensors:
    y, z = randn(2, B, T, 2 * D, seed=1)
    return {"y": y, "z": z, "weight": randn(2 * D, seed=2)}


def of_scan(inputs: Callable[..., Tensors]) -> Callable[[], Tensors]:
    return lambda: inputs(b=B, t=T, d=D, n=N)


OPS: dict[str, tuple[Call, Callable[[], Tensors]]] = {
    "diagonal": (diagonal, diagonal_inputs),
    "diagonal, constant, complex": (diagonal, lambda: diagonal_inputs(True, C128)),
    "zero-order hold": (zoh, zoh_inputs),
    "zero-order hold, channels": (held_channels, held_channel_inputs),
    "oscillator, im": (implicit, oscillator_inputs),
    "oscillator, imex": (explicit, oscillator_inputs),
    "channels": (channels, channel_inputs),
    "channels, low rank": (dplr, dplr_inputs),
    "channels, all-pass": (allpass, allpass_inputs),
    "matrix exponentials": (exponentials, exponential_inputs),
    "grid of samples and variates": (grid, grid_inputs),
    "chunks": (chunks, chunk_inputs),
    "short convolution": (conv, conv_inputs),
    "gated norm": (norm, norm_inputs),
    "selective": (selective.call, of_scan(selective.inputs)),
    "longhorn, diagonal": (longhorn.diagonal, of_scan(longhorn.inputs)),
    "longhorn, exact": (longhorn.exact, of_scan(longhorn.inputs)),
    "a rule of one's own": (own_rule.call, of_scan(own_rule.inputs)),
}


def split(tensors: Tensors) -> tuple[Tensors, Tensors]:
    """Those that have derivatives, and flags."""
    numbers = {name: x for name, x in tensors.items() if x.dtype != torch.bool}
    return numbers, {name: x for name, x in tensors.items() if name not in numbers}
