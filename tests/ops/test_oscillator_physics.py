"""oscillator_scan: numbers by hand, the paper's matrices, energy, periods."""

import math

import pytest
import torch
from torch.testing import assert_close

from longstate.ops import diagonal_scan, oscillator_scan
from longstate.ops.oscillator_scan import STABLE
from longstate.systems import OscillatorImplicit, OscillatorImplicitExplicit
from tests.ops.helpers import randn, uniform
from tests.ops.test_oscillator_scan import inputs, with_rule

RULES = {"im": OscillatorImplicit(), "imex": OscillatorImplicitExplicit()}
both_rules = pytest.mark.parametrize("rule", RULES)
both_exact = pytest.mark.parametrize("impl", ["reference", "cpu"])


@both_exact
def test_hand_numbers(impl):
    A = torch.tensor([1.0], dtype=torch.float64)
    x = torch.tensor([[[2.0], [0.0]]], dtype=torch.float64)
    y, last = oscillator_scan(A, x, rule="im", impl=impl)
    # z = (0 + 2) / 2 = 1, y = 1; z = (1 - 1) / 2 = 0, y = 1
    assert y.flatten().tolist() == [1.0, 1.0]
    assert last.flatten().tolist() == [0.0, 1.0]
    y, last = oscillator_scan(A, x, rule="imex", impl=impl)
    # z = 2, y = 2; z = 2 - 2 = 0, y = 2
    assert y.flatten().tolist() == [2.0, 2.0]
    assert last.flatten().tolist() == [0.0, 2.0]


@both_exact
@both_rules
def test_equals_the_papers_matrices(rule, impl):
    tensors = inputs(b=1, t=12, form="drive")
    assert tensors["A"].max() * tensors["dt"].max() ** 2 > 4
    state, positions = tensors["h0"][0].mT, []  # n, 2
    for t in range(12):
        dt = tensors["dt"][0, t]
        A = tensors["A"].clamp(max=STABLE / dt**2) if rule == "imex" else tensors["A"]
        M, F = RULES[rule].oscillator(A, dt)
        state = (M.to(state.dtype) @ state[..., None])[..., 0] + F * tensors["u"][0, t, :, None]
        positions.append(state[:, 1])
    y, last = with_rule(rule)(impl, **tensors)
    assert_close(y[0], torch.stack(positions))
    assert_close(last[0], state.mT)


@both_rules
def test_equals_a_complex_diagonal_scan(rule):
    A = 0.1 + uniform(5, seed=1)
    x = randn(2, 60, 5)
    M, F = RULES[rule].oscillator(A, torch.ones((), dtype=torch.float64))
    values, V = torch.linalg.eig(M)
    into = torch.linalg.solve(V, F.to(V.dtype)[..., None])[..., 0]  # n, 2
    h = [diagonal_scan(values[:, i], into[:, i] * x)[0] * V[:, 1, i] for i in (0, 1)]
    y, _ = oscillator_scan(A, x, rule=rule)
    assert_close(y.to(h[0].dtype), h[0] + h[1])
    modulus = 1 / (1 + A) if rule == "im" else torch.ones_like(A)
    assert_close(values.abs().square(), modulus[:, None].expand(-1, 2))


def free(A, rule, steps, dt=None):
    """An oscillator let go at y = 1."""
    A = torch.tensor([A], dtype=torch.float64)
    start = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    nothing = torch.zeros(1, steps, 1, dtype=torch.float64)
    return oscillator_scan(A, nothing, start, rule=rule, dt=dt)


def test_imex_keeps_its_energy_for_a_hundred_thousand_steps():
    A = 0.7
    y, _ = free(A, "imex", 100_000)
    y = y.flatten()
    z = y.diff()  # the velocity, with steps of 1
    y = y[1:]
    energy = z.square() + A * y.square() - A * z * y
    assert_close(energy, energy[:1].expand_as(energy))


def test_imex_swings_with_the_period_of_its_step():
    A = 0.7
    omega = math.acos(1 - A / 2)
    y, _ = free(A, "imex", 300)
    t = torch.arange(1, 301, dtype=torch.float64)
    # y_0 = 1 and y_1 = 1 - A fix the phase
    y1 = 1 - A
    phase = math.atan2(math.cos(omega) - y1, math.sin(omega))
    assert_close(y.flatten(), torch.cos(omega * t + phase) / math.cos(phase))


def test_implicit_loses_energy_over_any_steps():
    dt = uniform(1, 500, high=5.0)
    y, _ = free(2.0, "im", 500, dt)
    before = torch.cat([torch.ones(1, dtype=y.dtype), y.flatten()[:-1]])
    z = (y.flatten() - before) / dt[0]
    energy = z.square() + 2.0 * y.flatten().square()
    assert (energy.diff() <= 0).all()


@pytest.mark.parametrize("step", [0.1, 1.0, 10.0, 1000.0])
def test_imex_is_bounded_at_any_regular_step(step):
    y, _ = free(3.0, "imex", 2000, torch.full((1, 2000), step, dtype=torch.float64))
    # by the conserved energy z^2 + A y^2 - A dt z y
    assert y.abs().max() <= 1 / math.sqrt(1 - STABLE / 4)


@both_exact
@both_rules
def test_a_step_of_no_length_does_nothing_at_all(rule, impl):
    tensors = inputs()
    tensors["dt"] = torch.zeros_like(tensors["dt"])
    y, last = with_rule(rule)(impl, **tensors)
    assert torch.equal(y, tensors["h0"][:, 1:].expand_as(y))
    assert torch.equal(last, tensors["h0"])
