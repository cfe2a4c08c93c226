"""oscillator_scan: numbers by hand, the paper's matrices, energy, periods."""

import math
from functools import partial

import pytest
import torch
from torch.testing import assert_close

from longstate.ops import diagonal_scan, oscillator_scan
from longstate.ops.oscillator_scan import STABLE, oscillator_step
from tests.ops.helpers import randn, uniform
from tests.ops.test_oscillator_scan import inputs, with_rule

both_rules = pytest.mark.parametrize("rule", ["im", "imex"])
both_exact = pytest.mark.parametrize("impl", ["reference", "cpu"])


@both_exact
def test_hand_numbers(impl):
    A = torch.tensor([1.0], dtype=torch.float64)
    x = torch.tensor([[[2.0], [0.0]]], dtype=torch.float64)
    y, last = oscillator_scan(x, A, rule="im", impl=impl)
    # z = (0 + 2) / 2 = 1, y = 1; z = (1 - 1) / 2 = 0, y = 1
    assert y.flatten().tolist() == [1.0, 1.0]
    assert last.flatten().tolist() == [0.0, 1.0]
    y, last = oscillator_scan(x, A, rule="imex", impl=impl)
    # z = 2, y = 2; z = 2 - 2 = 0, y = 2
    assert y.flatten().tolist() == [2.0, 2.0]
    assert last.flatten().tolist() == [0.0, 2.0]


def papers_step(rule, A, dt):
    """(z, y)_t = M (z, y)_{t-1} + F x_t, by the paper's rule at any step: M (..., 2, 2), F."""
    one = torch.ones_like(A * dt)
    if rule == "im":
        s = one / (1 + dt**2 * A)
        rows, force = ((s, -dt * A * s), (dt * s, s)), (dt * s, dt**2 * s)
    else:
        rows, force = ((one, -dt * A), (dt * one, 1 - dt**2 * A)), (dt * one, dt**2 * one)
    return torch.stack([torch.stack(row, -1) for row in rows], -2), torch.stack(force, -1)


@both_rules
@pytest.mark.parametrize("A", [0.0, 0.7, 3.0])
def test_the_papers_matrices_solve_its_equations(rule, A):
    dt, z, y, drive = 0.4, 0.3, -1.1, 0.9
    M, F = papers_step(rule, torch.tensor(A, dtype=torch.float64), dt)
    after = M @ torch.tensor([z, y], dtype=torch.float64) + F * drive
    position = after[1].item() if rule == "im" else y
    assert_close(after[0].item(), z + dt * (drive - A * position))
    assert_close(after[1].item(), y + dt * after[0].item())


def through_matrices(tensors, step):
    state, positions = tensors["h0"][0].mT, []  # n, 2
    for t in range(tensors["u"].shape[1]):
        M, F = step(tensors["A"], tensors["dt"][0, t])
        state = (M.to(state.dtype) @ state[..., None])[..., 0] + F * tensors["u"][0, t, :, None]
        positions.append(state[:, 1])
    return torch.stack(positions), state.mT


@both_exact
@both_rules
def test_equals_the_papers_matrices(rule, impl):
    """ "im" over any steps; "imex", where A < 4, over steps of 1."""
    tensors = inputs(b=1, t=12, form="drive")
    if rule == "imex":
        tensors["A"].clamp_(max=3)
        tensors["dt"].fill_(1)
    positions, state = through_matrices(tensors, partial(papers_step, rule))
    y, last = with_rule(rule)(impl, **tensors)
    assert_close(y[0], positions)
    assert_close(last[0], state)


def test_an_uneven_imex_step_has_the_papers_eigenvalues():
    A = torch.tensor([0.0, 0.1, 1.0, 3.0, 3.9], dtype=torch.float64)
    for dt in (0.01, 0.3, 1.0):
        M, _ = oscillator_step(A, dt, "imex")
        paper, _ = papers_step("imex", A, dt)
        for of in (torch.linalg.det, lambda m: m.diagonal(dim1=-2, dim2=-1).sum(-1)):
            assert_close(of(M), of(paper))


def test_a_long_imex_step_is_the_longest_stable_one():
    A = torch.tensor([0.5, 2.0, 3.9, 50.0], dtype=torch.float64)
    longest = (STABLE / A.clamp(max=STABLE)).sqrt()
    for got, expected in zip(
        oscillator_step(A, 100.0, "imex"), oscillator_step(A, longest, "imex"), strict=True
    ):
        assert_close(got, expected)


def energy(A, z, y):
    return z.abs() ** 2 + A * y.abs() ** 2 - A * (z * y.conj()).real


@both_exact
def test_imex_keeps_its_energy_over_any_steps(impl):
    A = torch.tensor([0.01, 0.3, 2.0, 3.9], dtype=torch.float64)
    dt = uniform(3, 1000, high=5.0)
    start = randn(3, 2, 4, dtype=torch.complex128)
    nothing = torch.zeros(3, 1000, 4, dtype=torch.complex128)
    _, last = oscillator_scan(nothing, A, start, dt=dt, rule="imex", impl=impl)
    assert_close(energy(A, *last.unbind(1)), energy(A, *start.unbind(1)))


@both_exact
@both_rules
def test_a_constant_drive_leads_to_the_equilibrium(rule, impl):
    A = 0.1 + 3 * uniform(4)
    x = randn(2, 1, 4).expand(2, 50, 4)
    rest = torch.stack([torch.zeros(2, 4, dtype=x.dtype), x[:, 0] / A], dim=1)
    y, _ = oscillator_scan(x, A, rest, dt=uniform(2, 50, high=5.0), rule=rule, impl=impl)
    assert_close(y, (x / A))


@both_rules
def test_equals_a_complex_diagonal_scan(rule):
    A = 0.1 + uniform(5, seed=1)
    x = randn(2, 60, 5)
    M, F = papers_step(rule, A, torch.ones((), dtype=torch.float64))
    values, V = torch.linalg.eig(M)
    into = torch.linalg.solve(V, F.to(V.dtype)[..., None])[..., 0]  # n, 2
    h = [diagonal_scan(into[:, i] * x, values[:, i])[0] * V[:, 1, i] for i in (0, 1)]
    y, _ = oscillator_scan(x, A, rule=rule)
    assert_close(y.to(h[0].dtype), h[0] + h[1])
    modulus = 1 / (1 + A) if rule == "im" else torch.ones_like(A)
    assert_close(values.abs().square(), modulus[:, None].expand(-1, 2))


def free(A, rule, steps, dt=None):
    """An oscillator let go at y = 1."""
    A = torch.tensor([A], dtype=torch.float64)
    start = torch.tensor([[[0.0], [1.0]]], dtype=torch.float64)
    nothing = torch.zeros(1, steps, 1, dtype=torch.float64)
    return oscillator_scan(nothing, A, start, rule=rule, dt=dt)


def test_imex_keeps_its_energy_for_a_hundred_thousand_steps():
    A = 0.7
    y, _ = free(A, "imex", 100_000)
    y = y.flatten()
    kept = energy(A, y.diff(), y[1:])  # the velocity, with steps of 1
    assert_close(kept, kept[:1].expand_as(kept))


def test_imex_has_the_period_of_its_step():
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
    total = z.square() + 2.0 * y.flatten().square()
    assert (total.diff() <= 0).all()


@both_exact
@both_rules
def test_a_step_of_length_zero_changes_nothing(rule, impl):
    tensors = inputs()
    tensors["dt"] = torch.zeros_like(tensors["dt"])
    y, last = with_rule(rule)(impl, **tensors)
    assert torch.equal(y, tensors["h0"][:, 1:].expand_as(y))
    assert torch.equal(last, tensors["h0"])
