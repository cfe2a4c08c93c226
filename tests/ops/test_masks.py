"""A masked sample has no effect: scans with masked samples against scans without these samples."""

import pytest
import torch
from torch.testing import assert_close

from longstate.ops import (
    allpass_channel_scan,
    chimera_scan,
    dense_channel_scan,
    diagonal_channel_scan,
    diagonal_scan,
    dplr_channel_scan,
    oscillator_scan,
    zoh_channel_scan,
    zoh_scan,
)
from tests.ops.helpers import randn, uniform

C128 = torch.complex128
T, N = 23, 5


def diagonal(constant):
    a = uniform(1, T, N, low=-1.0, seed=1)
    return diagonal_scan, randn(1, T, N), {"a": a[0, 0] if constant else a}, randn(1, N, seed=3)


def zoh(_):
    A = torch.complex(-uniform(N, seed=1), randn(N, seed=2))
    A[0] = 0
    given = {"A": A, "dt": uniform(1, T, seed=4), "B": randn(N, 2, dtype=C128, seed=5)}
    return zoh_scan, randn(1, T, 2), given, randn(1, N, dtype=C128, seed=3)


def oscillator(rule):
    given = {"A": uniform(N, high=3.0), "dt": uniform(1, T, seed=4), "rule": rule}
    return oscillator_scan, randn(1, T, N), given, randn(1, 2, N, seed=3)


def channels(impl_of_dense):
    B, C = randn(2, N, 3, seed=1)
    if impl_of_dense:
        given = {"A": randn(N, 3, 3, seed=4) / 3, "B": B, "C": C}
        return dense_scan, randn(1, T, N), given, randn(1, N, 3, seed=3)
    given = {"A": uniform(N, 3, low=-1.0), "B": B, "C": C}
    return diagonal_channel_scan, randn(1, T, N), given, randn(1, N, 3, seed=3)


def held_channels(_):
    A = torch.complex(-uniform(N, 3, seed=1), randn(N, 3, seed=2))
    B, C = randn(2, N, 3, dtype=C128, seed=5)
    given = {"A": A, "B": B, "C": C, "dt": uniform(1, T, seed=4)}
    return zoh_channel_scan, randn(1, T, N), given, randn(1, N, 3, dtype=C128, seed=3)


def low_rank():
    A, B, C = randn(3, N, 3, dtype=C128, seed=4) / 3
    P, Q = randn(2, N, 3, 1, dtype=C128, seed=5) / 3
    given = {"A": A, "P": P, "Q": Q, "B": B, "C": C}
    return dplr_channel_scan, randn(1, T, N), given, randn(1, N, 3, dtype=C128, seed=3)


def allpass():
    given = {"rho": uniform(N, low=-0.9, high=0.9), "C": randn(N, 3, seed=1)}
    return allpass_channel_scan, randn(1, T, N), given, randn(1, N, 4, seed=3)


def grid():
    """Chimera with one variate, one head and N channels."""

    def scan(x, h0=None, *, impl, s, select, mask=None, reset=None):
        sites = [part[:, :, None, None] for part in (x, s, s, select)]
        start = (None, None) if h0 is None else h0.unbind(1)
        y, h, g = chimera_scan(*sites, a, c, coupling, *start, mask=mask, reset=reset, impl=impl)
        return y[:, :, 0, 0], torch.stack([h, g], 1)

    a = torch.complex(-uniform(1, N, 3, seed=1), randn(1, N, 3, seed=2))
    c, coupling = uniform(1, N, 3, low=0.1, seed=7), randn(2, 1, N, 3, seed=8)
    given = {"s": uniform(1, T, N, seed=4), "select": randn(1, T, 6, 3, seed=5)}
    return scan, randn(1, T, N), given, randn(1, 2, 1, 1, N, 3, dtype=C128, seed=3)


def dense_scan(x, impl, **given):
    return dense_channel_scan(x, impl="auto" if impl == "cpu" else impl, **given)


CASES = {
    "channels": lambda: channels(False),
    "dense channels": lambda: channels(True),
    "low-rank channels": low_rank,
    "all-pass channels": allpass,
    "grid": grid,
    "diagonal": lambda: diagonal(False),
    "diagonal, constant": lambda: diagonal(True),
    "zoh": lambda: zoh(None),
    "zoh, channels": lambda: held_channels(None),
    "oscillator, im": lambda: oscillator("im"),
    "oscillator, imex": lambda: oscillator("imex"),
}


def timed(x):
    return isinstance(x, torch.Tensor) and x.shape[:2] == (1, T)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("case", CASES)
def test_skipped_samples_have_no_effect(case, impl):
    op, x, given, h0 = CASES[case]()
    mask = uniform(1, T, seed=6) < 0.6
    mask[0, -2:] = False
    filled = {k: v for k, v in given.items() if timed(v)}
    bad = {k: torch.where(mask.view(1, T, *[1] * (v.dim() - 2)), v, torch.nan)
           for k, v in filled.items()}  # fmt: skip
    few = {k: v[mask][None] for k, v in filled.items()}
    y, last = op(torch.where(mask[..., None], x, torch.nan), h0=h0, mask=mask, impl=impl,
                 **given | bad)  # fmt: skip
    expected, end = op(x[mask][None], h0=h0, impl=impl, **given | few)
    assert_close(y[mask][None], expected)
    assert_close(last, end)
    assert (y[~mask] == 0).all()


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("case", CASES)
def test_a_reset_applies_at_a_skipped_sample(case, impl):
    op, x, given, h0 = CASES[case]()
    mask, reset = torch.ones(1, T, dtype=torch.bool), torch.zeros(1, T, dtype=torch.bool)
    mask[0, 7], reset[0, 7] = False, True
    y, last = op(x, h0=h0, mask=mask, reset=reset, impl=impl, **given)
    tail = {k: v[:, 8:] if timed(v) else v for k, v in given.items()}
    expected, end = op(x[:, 8:], impl=impl, **tail)
    assert_close(y[:, 8:], expected)
    assert_close(last, end)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
@pytest.mark.parametrize("case", CASES)
def test_a_reset_at_the_first_sample_clears_the_initial_state(case, impl):
    op, x, given, h0 = CASES[case]()
    reset = torch.zeros(1, T, dtype=torch.bool)
    reset[0, 0] = True
    h0.requires_grad_()
    found = op(x, h0=h0, reset=reset, impl=impl, **given)
    assert_close(found, op(x, impl=impl, **given))
    loss = sum(y.abs().sum() for y in found)
    if loss.requires_grad:  # otherwise nothing of h0 is in it
        (gradient,) = torch.autograd.grad(loss, h0, allow_unused=True)
        assert gradient is None or not gradient.any()


@pytest.mark.parametrize("case", CASES)
def test_gradients_pass_by_skipped_samples(case):
    op, x, given, h0 = CASES[case]()
    mask = uniform(1, T, seed=6) < 0.6
    x, h0 = x.requires_grad_(), h0.requires_grad_()
    found = []
    for impl in ("reference", "cpu"):
        y, last = op(x, h0=h0, mask=mask, impl=impl, **given)
        found.append(torch.autograd.grad(y.abs().sum() + last.abs().sum(), (x, h0)))
        assert (found[-1][0][~mask] == 0).all()
    assert_close(*found)


def test_a_mask_has_the_shape_of_the_time_axis():
    op, x, given, h0 = CASES["diagonal"]()
    with pytest.raises(ValueError, match=r"mask must be a bool tensor \(1, 23\); got \(1, 22\)"):
        op(x, h0=h0, mask=torch.ones(1, 22, dtype=torch.bool), **given)
