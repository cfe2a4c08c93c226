"""Certificates of a gate: the closed forms, a search for violations, and conditions that fail."""

import math

import pytest
import torch
from torch import nn

from longstate.errors import InputError
from longstate.layers import GatedSSM
from longstate.memory import _gate_claims as claims
from longstate.memory import certify, gate_contraction
from longstate.memory._gate_claims import least_gate, most_written
from longstate.memory._selective_bounds import Ball
from longstate.models import LanguageModel, LanguageSpec

FORMS = [{}, {"floor": 0.05}, {"top_k": 2}, {"top_k": 2, "floor": 0.05}]


def trained_like(seed, **options):
    torch.manual_seed(seed)
    layer = GatedSSM(5, d_state=6, **options).double().requires_grad_(False)
    for p in layer.parameters():
        p.add_(0.6 * torch.randn_like(p))
    return layer


def claim(result, words):
    return next(c for c in result.claims if words in c.what)


def climb(layer, ball, measure, *, length):
    """Largest measure of sequences on the ball, by gradients of the layer and not of the bounds."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(8, length, layer.d_model, generator=g, dtype=torch.float64).requires_grad_()
    optimiser, best = torch.optim.Adam([z], lr=0.1), -math.inf
    for _ in range(60):
        optimiser.zero_grad()
        on = nn.functional.normalize(z, dim=-1) * ball.radius * ball.weight + ball.bias
        value = measure(layer.trace(on)).amax()
        (-value).backward()
        optimiser.step()
        best = max(best, value.item())
    return best


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("options", FORMS)
def test_a_search_that_knows_no_bound_stays_below_them(options, seed):
    layer, g = trained_like(seed, **options), torch.Generator().manual_seed(seed)
    weight, bias = torch.randn(2, 5, generator=g).double()
    ball, s = Ball(weight, bias, 2.0), layer.selection()
    size = climb(layer, ball, lambda t: t.states().abs(), length=50)
    assert size <= float(most_written(s, ball).max())
    left = climb(layer, ball, lambda t: t.decay, length=3)
    bound = float((1 - least_gate(s, ball) * s.lost).max())
    assert left <= bound * (1 + 1e-12)
    if "top_k" not in options:  # the closed form is reached
        assert left >= 0.999 * bound


@pytest.mark.parametrize("options", FORMS)
def test_no_irregular_time_makes_a_state_larger(options):
    layer = trained_like(1, **options)
    ball = Ball(torch.ones(5).double(), torch.zeros(5).double(), 2.0)
    u = 2 * nn.functional.normalize(torch.randn(64, 40, 5).double(), dim=-1)
    dt = 50 * torch.rand(64, 40).double() ** 4
    state, found = None, certify(layer, radius=2.0, dt=(0.5, 50.0))
    for t in range(40):
        before = layer.init_state(64) if state is None else state
        _, state = layer.step(u[:, t], before, dt=dt[:, t])
        assert bool((state["ssm"][..., 0].abs() <= most_written(layer.selection(), ball)).all())
    assert (
        claim(found, "|state|").certified == claim(certify(layer, radius=2.0), "|state|").certified
    )
    regular = claim(certify(layer, radius=2.0), "decay of a step").certified
    assert claim(found, "decay of a step").certified == pytest.approx(regular**0.5)


@pytest.mark.parametrize("options", FORMS)
def test_starts_are_forgotten_at_the_certified_rate(options):
    """Distance of two runs on the same input: at most factor^t of the first."""
    layer = trained_like(2, **options)
    factor = claim(certify(layer, radius=2.0), "decay of a step").certified
    u = 2 * nn.functional.normalize(torch.randn(16, 30, 5).double(), dim=-1)
    one, two = (torch.randn(16, 6, 1).double() for _ in range(2))
    gap = (layer(u, {"ssm": one})[1]["ssm"] - layer(u, {"ssm": two})[1]["ssm"]).norm(dim=1)
    assert bool((gap <= factor**30 * (one - two).norm(dim=1) * (1 + 1e-9)).all())
    if "floor" not in options and "top_k" in options:
        assert factor == 1


@pytest.mark.parametrize("options", FORMS)
def test_what_is_attacked_is_what_the_witness_does(options):
    layer = trained_like(3, **options)
    found = certify(layer, torch.randn(2, 20, 5).double() / 3, radius=2.0)
    assert found.passed
    decay, size = claim(found, "decay of a step"), claim(found, "|state|")
    for c in (decay, size):
        assert float(c.witness.norm(dim=-1).max()) <= 2 * (1 + 1e-12)
        assert c.seen <= c.attacked <= c.certified * (1 + 1e-12)
    assert float(layer.trace(decay.witness[None]).decay[0, -1].max()) == decay.attacked
    assert float(layer.trace(size.witness[None]).states()[0, -1].abs().max()) == size.attacked
    if not options:
        assert size.attacked >= 0.99 * size.certified


def test_a_bound_that_is_too_small_is_a_failed_claim(monkeypatch):
    layer = trained_like(0)
    assert certify(layer, radius=2.0).passed
    for name, wrong in (
        ("most_written", lambda s, ball: most_written(s, ball) * 0.9),
        ("least_gate", lambda s, ball: least_gate(s, ball) * 1.5),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(claims, name, wrong)
            found = certify(layer, radius=2.0)
        assert not found.passed
        assert any("contradicted" in c.note for c in found.claims)


def test_a_model_is_certified_behind_its_norm():
    torch.manual_seed(0)
    model = LanguageModel(LanguageSpec(20, 8, ("gatedssm",), options={"gatedssm": {"top_k": 4}}))
    found = certify(model, torch.randint(0, 20, (2, 30)))
    assert found.passed
    assert "for ever" in claim(found, "decay of a step").note


def test_two_fixed_points_are_not_certified():
    """L rho = 0.9 < 1, and the state goes to 0 or to -200, as it began."""

    def run(h):
        for _ in range(300):
            h = (0.9 * h - 20.0) / (1 + math.exp(min(700.0, 4 * (h + 8))))
        return h

    assert abs(run(0.0)) < 1e-6
    assert run(-150.0) == pytest.approx(-200)
    found = gate_contraction(0.9, lipschitz=1.0, drive=20.0, form="multiplicative")
    assert not found.proved
    assert found.radius == pytest.approx(200)
    assert found.factor == pytest.approx(0.9 + 0.9 * 200 + 20)
    assert not gate_contraction(1.5, gate=(1.0, 1.0), drive=0.1, form="multiplicative").proved


@pytest.mark.parametrize("form", ["convex", "multiplicative"])
@pytest.mark.parametrize("seed", range(6))
def test_a_proved_factor_bounds_every_pair_of_states(form, seed):
    """Random gates that depend on the state: no step on the ball is steeper than the factor."""
    g = torch.Generator().manual_seed(seed)
    n, low, high = 3, 0.2, 0.9
    A = torch.randn(n, n, generator=g).double()
    A = 0.6 * A / A.abs().sum(1).max()
    W = 0.2 * torch.randn(n, n, generator=g).double()
    lipschitz = float((high - low) * W.abs().sum(1).max() / 4)  # a sigmoid rises by 1/4 at most
    drive = 0.3
    found = gate_contraction(0.6, gate=(low, high), lipschitz=lipschitz, drive=drive, form=form)

    def step(h, x):
        gate = low + (high - low) * (h @ W.T + 2 * x).sigmoid()
        c = h @ A.T + x
        return (1 - gate) * h + gate * c if form == "convex" else gate * c

    h = found.radius * (2 * torch.rand(20_000, n, generator=g).double() - 1)
    near = h + 1e-6 * torch.randn(20_000, n, generator=g).double()
    x = drive * (2 * torch.rand(20_000, n, generator=g).double() - 1)
    after = step(h, x)
    assert float(after.abs().max()) <= found.radius
    steepest = ((step(near, x) - after).abs().amax(1) / (near - h).abs().amax(1)).max()
    assert float(steepest) <= found.factor * (1 + 1e-6)
    assert float(steepest) > 0.4 * found.factor  # and it is not far from it


def test_a_gate_of_zero_keeps_everything():
    assert gate_contraction(0.5, gate=(0.0, 1.0), drive=1.0).factor == 1
    half = gate_contraction(0.5, gate=(0.5, 1.0), drive=1.0)
    assert half.factor == 0.75
    assert half.proved
    assert "contraction" in str(half)
    for wrong in ({"gate": (0.5, 0.2)}, {"form": "other"}, {"lipschitz": -1.0}):
        with pytest.raises(InputError):
            gate_contraction(0.5, **{"drive": 1.0, **wrong})


def test_the_worst_of_two_signs_bounds_a_state():
    """Inputs far on one side: the largest B u is small there, the smallest is not."""
    layer = trained_like(4, floor=0.2)
    s = layer.selection()
    ball = Ball(torch.ones(5).double(), -3 * s.into[0] / s.into[0].norm(), 0.5)
    u = ball.bias - 0.5 * s.into[0] / s.into[0].norm()
    largest = layer.trace(u.expand(1, 4000, -1)).states()[0, -1, 0].abs()
    assert float(largest) <= float(most_written(s, ball)[0]) * (1 + 1e-12)
    assert float(largest) >= 0.999 * float(most_written(s, ball)[0])


def test_a_steep_gate_counts_with_the_state_and_with_the_input():
    """A = 0, x = 1 and h = -1, where the gate is steepest: 1 - g + L (x - h) is the slope there."""
    low, high, steep, drive = 0.5, 0.9, 8.0, 1.0
    lipschitz = (high - low) * steep / 4

    def step(h):
        g = low + (high - low) * torch.sigmoid(steep * (h + drive))
        return (1 - g) * h + g * drive

    h = torch.tensor(-1.0).double().requires_grad_()
    (slope,) = torch.autograd.grad(step(h), h)
    found = gate_contraction(0.0, gate=(low, high), lipschitz=lipschitz, drive=drive)
    assert found.radius == 1
    assert 0.8 * found.factor < float(slope) <= found.factor
