"""HOPE against Algorithm 1 of its paper, and known answers of the all-pass basis."""

import math

import pytest
import torch
from torch.nn import functional as F

from longstate.layers import HOPE


def layer(n: int, dt: float, d: int = 1) -> HOPE:
    own = HOPE(d, d_state=n).double()
    own.log_dt.data.fill_(math.log(dt))  # in float64
    return own


def algorithm_1(u, h, dt):
    """The published form, on a circle of the length of u (t)."""
    w = torch.exp(2j * torch.pi * torch.arange(len(u), dtype=torch.float64) / len(u))
    s = (w - 1) / (w + 1) / dt
    z = (1 + s) / (1 - s)
    k = torch.arange(1, len(h) + 1)
    return torch.fft.ifft(torch.fft.fft(u) * (h * z[:, None] ** -k).sum(-1)).real


@pytest.mark.parametrize("dt", [1.0, 0.3, 2.5])
def test_the_response_is_that_of_algorithm_1(dt):
    own = layer(6, dt)
    u = torch.randn(63, dtype=torch.float64)
    h, D = own.h[0], own.D[0]
    expected = algorithm_1(F.pad(u, (0, 1000)), h, dt)[: len(u)] + D * u  # odd: w is never -1
    y, _ = own(u[None, :, None])
    torch.testing.assert_close(y[0, :, 0], expected)


def test_the_published_circle_lets_the_end_reach_the_beginning():
    h = torch.randn(6, dtype=torch.float64)
    u = F.pad(torch.ones(1, dtype=torch.float64), (62, 0))
    assert algorithm_1(u, h, 1.0)[0] != 0
    assert not HOPE(1, d_state=6).double()(u[None, :, None])[0][0, :62].any()


def test_a_step_of_one_is_a_filter_with_taps_h():
    own = layer(5, 1.0, d=3)
    taps = own.system().impulse_response(8)[..., 0, 0]
    expected = torch.cat([own.D[:, None], own.h, torch.zeros(3, 2, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(taps, expected)


def test_a_rate_multiplies_the_step():
    own = layer(5, 0.5)
    taps = own.system(rate=2.0).impulse_response(6)[:, 1:, 0, 0]
    torch.testing.assert_close(taps, own.h)


@pytest.mark.parametrize("dt", [0.1, 0.5, 3.0])
def test_the_sections_are_orthonormal(dt):
    """All-pass: <o^j, o^k> depends on j - k only, and each o^k has the energy of u."""
    basis = _basis(8, dt, 2000)
    gram = basis.T @ basis
    torch.testing.assert_close(gram.diagonal(), torch.ones(8, dtype=torch.float64))
    torch.testing.assert_close(gram[1:, 1:], gram[:-1, :-1])


@pytest.mark.parametrize(("dt", "error"), [(1.0, "1.00"), (0.5, "0.80"), (0.2, "0.80")])
def test_how_much_of_a_delay_of_100_sixty_four_parameters_reach(dt, error):
    """Relative squared error of the best h, over 256 samples: 64 taps cannot reach sample 100."""
    basis = _basis(64, dt, 256)
    target = F.one_hot(torch.tensor(100), 256).double()[:, None]
    fit = basis @ torch.linalg.lstsq(basis, target, driver="gelsd").solution
    assert f"{(fit - target).square().sum():.2f}" == error


def _basis(n: int, dt: float, length: int) -> torch.Tensor:
    """Responses (length, n) of o^1, ..., o^n."""
    own = layer(n, dt, d=n)
    with torch.no_grad():
        own.h.copy_(torch.eye(n))
        own.D.zero_()
        return own.system().impulse_response(length)[..., 0, 0].T
