"""LinOSS against the paper's code, against its own system, and over irregular time."""

import math

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import LinOSS
from longstate.ops.oscillator_scan import STABLE
from longstate.testing import check_layer
from tests.golden import assert_parity, golden

DOUBLE = torch.float64
both_rules = pytest.mark.parametrize("rule", ["im", "imex"])


def make(d_model=3, seed=0, **options):
    torch.manual_seed(seed)
    return LinOSS(d_model, **{"d_state": 5} | options).double()


def noise(*shape, seed=1):
    return torch.randn(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def uneven(*shape, seed=2):
    return 3 * torch.rand(*shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


def load(g, rule):
    n, d = g["B"].shape
    layer = LinOSS(d, d_state=n, variant=rule)
    with torch.no_grad():
        A = g["A"]
        layer.frequency.copy_(A.expm1().log() if rule == "im" else torch.logit(A / STABLE))
        layer.step_size.copy_(torch.logit(g["dt"]))
        layer.B.copy_(torch.view_as_real(g["B"]))
        layer.C.copy_(torch.view_as_real(g["C"]))
        layer.D.zero_()
    return layer


@both_rules
def test_is_the_papers_code(rule):
    g = golden(f"linoss_{rule}")
    layer = load(g, rule)
    A, s = layer.oscillators()
    assert_parity(A, g["A"])
    assert_parity(s, g["dt"])
    u = g["u"][None].float()
    assert_parity(layer(u)[0][0], g["y"])
    assert_parity(layer(u, dt=torch.ones(u.shape[:2]))[0][0], g["y"])


@both_rules
def test_keeps_the_contract_over_many_chunks(rule):
    check_layer(lambda: LinOSS(2, d_state=3, variant=rule), time=70)


def test_compiles_over_irregular_time_in_one_graph():
    layer, u, dt = make(), noise(2, 9, 3), uneven(2, 9)
    mask, reset = uneven(2, 9, seed=3) < 2.5, uneven(2, 9, seed=4) < 0.5
    torch._dynamo.reset()
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    flags = {"dt": dt, "mask": mask, "reset": reset}
    for a, b in zip(compiled(u, **flags), layer(u, **flags), strict=True):
        assert_close(a, b)


@both_rules
def test_autocast_narrows_nothing(rule):
    layer = LinOSS(3, d_state=8, variant=rule)
    u, dt = noise(2, 9, 3).float(), uneven(2, 9).float()
    for flags in ({}, {"dt": dt}):
        expected, state = layer(u, **flags)
        with torch.autocast("cpu", torch.bfloat16):
            y, again = layer(u, **flags)
        assert torch.equal(y, expected)
        assert torch.equal(again, state)


# One system, many views


@pytest.mark.parametrize("rate", [1.0, 0.5, 3.0])
@both_rules
def test_impulses_give_the_systems_response(rule, rate):
    layer = make(variant=rule)
    with torch.no_grad():
        layer.frequency[0] = 3.0  # fast enough to be cut at rate 3
    u = torch.eye(3, dtype=DOUBLE)[:, None] * torch.eye(20, 1, dtype=DOUBLE)
    y, state = layer(u, rate=rate)  # row i: an impulse in channel i
    system = layer.system(rate)
    assert_close(y.permute(1, 2, 0), system.impulse_response(20))
    silence, _ = layer(0 * u, state, rate=rate)
    assert_close(silence, system.state_response(torch.view_as_real(state).flatten(1), 20))


def test_moduli_of_the_two_rules():
    layer = make(variant="im")
    A, s = layer.oscillators()
    moduli = torch.linalg.eigvals(layer.system().A).abs().sort().values
    expected = (1 + s**2 * A).rsqrt().repeat_interleave(4).sort().values
    assert_close(moduli, expected)
    moduli = torch.linalg.eigvals(make(variant="imex").system().A).abs()
    assert_close(moduli, torch.ones_like(moduli))


def test_a_free_oscillator_has_its_period():
    layer = make(d_model=1, d_state=1, variant="imex")
    with torch.no_grad():
        layer.D.zero_()
        layer.C.copy_(torch.tensor([[[1.0, 0.0]]]))
    A, s = layer.oscillators()
    omega = math.acos(1 - (A * s**2).item() / 2)
    start = torch.tensor([[[0.0], [1.0]]], dtype=torch.complex128)
    y, _ = layer(torch.zeros(1, 200, 1, dtype=DOUBLE), start)
    # a sequence with frequency omega obeys y_{t+1} = 2 cos(omega) y_t - y_{t-1}
    y = y.detach().flatten()
    assert_close(y[2:], 2 * math.cos(omega) * y[1:-1] - y[:-2])
    assert_close(y[0].item(), 1 - (A * s**2).item())


@pytest.mark.parametrize("extreme", [-50.0, 50.0])
@both_rules
def test_no_parameter_makes_regular_time_unstable(rule, extreme):
    layer = make(variant=rule)
    with torch.no_grad():
        layer.frequency.fill_(extreme)
        layer.step_size.fill_(50.0)
        layer.D.zero_()
    for rate in (1.0, 10.0):
        moduli = torch.linalg.eigvals(layer.system(rate).A).abs()
        assert_close(moduli, moduli.clamp(max=1))
    y, _ = layer(noise(1, 200, 3))
    y.sum().backward()
    for name, p in layer.named_parameters():
        assert p.grad.isfinite().all(), name


@both_rules
def test_energy_over_any_irregular_steps(rule):
    layer = make(variant=rule)
    A, s = layer.oscillators()
    A = (A * s**2).detach()
    _, state = layer(noise(2, 30, 3))
    state = state.detach()
    silence = torch.zeros(2, 500, 3, dtype=DOUBLE)
    _, after = layer(silence, state, dt=20 * uneven(2, 500))

    def energy(state):
        z, y = state.detach().unbind(1)
        tilt = A * (z * y.conj()).real if rule == "imex" else 0
        return z.abs() ** 2 + A * y.abs() ** 2 - tilt

    if rule == "imex":
        assert_close(energy(after), energy(state))
    else:
        assert (energy(after) < energy(state)).all()


# Irregular time


@both_rules
def test_every_parameter_learns_from_irregular_time(rule):
    layer, u = make(d_model=2, d_state=3, variant=rule), noise(1, 4, 2)
    dt = uneven(1, 4).requires_grad_()
    names = list(dict(layer.named_parameters()))
    values = [p.detach().requires_grad_() for p in layer.parameters()]

    def run(dt, *values):
        with_values = dict(zip(names, values, strict=True))
        return torch.func.functional_call(layer, with_values, (u,), {"dt": dt})

    torch.autograd.gradcheck(run, (dt, *values))


@both_rules
def test_small_steps_converge_to_the_differential_equation(rule):
    """ "im" is of first order, half the step, half the error; uneven "imex" of second."""
    layer = make(variant=rule)
    u = noise(1, 8, 3)
    states = []
    for pieces in (64, 128, 256):
        fine = u.repeat_interleave(pieces, dim=1)
        dt = torch.full(fine.shape[:2], 1 / pieces, dtype=DOUBLE)
        states.append(layer(fine, dt=dt)[1].detach())
    first, second = (states[0] - states[1]).abs().max(), (states[1] - states[2]).abs().max()
    order = torch.log2(first / second).round().item()
    assert order == {"im": 1, "imex": 2}[rule]


def test_masked_samples_may_be_nonfinite():
    layer, u, dt = make(), noise(2, 9, 3), uneven(2, 9)
    mask = uneven(2, 9, seed=3) < 2
    hostile = torch.where(mask[..., None], u, torch.nan).requires_grad_()
    y, _ = layer(hostile, dt=dt, mask=mask)
    assert_close(y, layer(torch.where(mask[..., None], u, 0), dt=dt, mask=mask)[0])
    assert torch.autograd.grad(y.sum(), hostile)[0].isfinite().all()


def test_initial_values_are_the_papers():
    torch.manual_seed(0)
    for rule in ("im", "imex"):
        layer = LinOSS(16, d_state=400, variant=rule)
        A, s = layer.oscillators()
        assert A.min() >= 0
        assert 0.9 < A.max() <= 1
        assert abs(A.mean() - 0.5) < 0.05
        assert s.min() >= 0.5
        assert s.max() < 0.7311
        assert layer.B.abs().max() <= 0.25
        assert layer.C.abs().max() <= 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [({"variant": "euler"}, "'im' or 'imex'"), ({"d_state": 0}, "at least 1")],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        LinOSS(3, **options)
