"""Online memory: against closed forms, and against the best polynomial there is."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from numpy.polynomial import Legendre
from torch.testing import assert_close

from longstate.systems import LegSMemory, legs

SCRIPT = Path(__file__).parents[2] / "docs" / "hippo_memory.py"


def moments_of_time(t):
    """Sample k of t stands at k / t of the past."""
    return torch.arange(1, t + 1, dtype=torch.float64) / t


def five_sines(t):
    x = moments_of_time(t)
    return sum(torch.sin(2 * math.pi * periods * x) for periods in (1, 2, 3, 5, 7))


def error(order, f):
    memory = LegSMemory(order)
    past = memory.reconstruct(memory.project(f)[-1], moments_of_time(len(f)))
    return ((past - f).norm() / f.norm()).item()


def test_a_constant_is_one_coefficient():
    A, B, _ = legs(6)
    assert_close(A[:, 0] + B, torch.zeros(6, dtype=torch.float64))  # c = e_0 stays
    c = LegSMemory(6).project(torch.full((2000,), 3.0, dtype=torch.float64))
    k = torch.arange(1, 2001, dtype=torch.float64)
    # From c = 0 the recurrence of the mean telescopes: what is missing is 1 / (2k + 1).
    assert_close(c[:, 0], 3 * (1 - 1 / (2 * k + 1)))
    assert c[-1, 1:].abs().max() < 0.51 * c[999, 1:].abs().max()


def test_a_ramp_has_two_coefficients():
    t = 4000
    c = LegSMemory(5).project(moments_of_time(t))[-1]
    expected = torch.tensor([1 / 2, 1 / (2 * math.sqrt(3)), 0, 0, 0], dtype=torch.float64)
    assert ((c - expected).abs() <= 1 / t).all()  # the rule is of first order in 1 / t


def test_reconstruction_is_the_legendre_sum():
    c, points = torch.randn(7, dtype=torch.float64), torch.linspace(0, 1, 9, dtype=torch.float64)
    scale = torch.sqrt(2 * torch.arange(7, dtype=torch.float64) + 1)
    series = Legendre((c * scale).numpy(), domain=[0, 1])
    assert_close(LegSMemory(7).reconstruct(c, points), torch.from_numpy(series(points.numpy())))
    assert LegSMemory(1).reconstruct(c[:1], points).shape == (9,)


@pytest.mark.parametrize("order", [8, 16])
def test_memory_is_nearly_the_best_polynomial(order):
    f = five_sines(2000)
    x = moments_of_time(2000).numpy()
    best = Legendre.fit(x, f.numpy(), order - 1, domain=[0, 1])(x)
    least = ((torch.from_numpy(best) - f).norm() / f.norm()).item()
    assert least <= error(order, f) < 1.001 * least


def test_more_orders_remember_more_until_the_step_limits():
    # The published shape: large at 8 and 16, a few thousandths at 32, and no better at 64.
    errors = [error(order, five_sines(2000)) for order in (8, 16, 32, 64)]
    assert errors[0] > errors[1] > 0.3
    assert errors[2] < 0.005
    assert 0.99 < errors[3] / errors[2] < 1.01
    assert error(32, five_sines(4000)) < 0.6 * errors[2]


def test_every_row_is_the_memory_of_that_moment():
    f = torch.randn(2, 20, dtype=torch.float64)
    c = LegSMemory(4).project(f)
    assert c.shape == (2, 20, 4)
    assert_close(c[1, 7], LegSMemory(4).project(f[1, :8])[-1])


def test_gradients():
    f = torch.randn(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(LegSMemory(3).project, (f,))


def test_the_figure_can_be_drawn_again(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    spec = importlib.util.spec_from_file_location("hippo_memory", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert script.FIGURE.exists()
    monkeypatch.setattr(script, "FIGURE", tmp_path / "figure.svg")
    script.main()
    assert "what 32 numbers remember" in (tmp_path / "figure.svg").read_text()


def test_refusals():
    with pytest.raises(ValueError, match="order must be at least 1; got 0"):
        LegSMemory(0)
    with pytest.raises(ValueError, match="with t > 0"):
        LegSMemory(2).project(torch.zeros(0))
    with pytest.raises(ValueError, match=r"coefficients must be \(\.\.\., 2\); got \(3,\)"):
        LegSMemory(2).reconstruct(torch.zeros(3), torch.zeros(1))
