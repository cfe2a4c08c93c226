"""Certificates are sound: no input violates one."""

import json
import math

import pytest
import torch
from torch import nn

from longstate.errors import InputError
from longstate.layers import (
    FalconMamba,
    LinOSS,
    Longhorn,
    Mamba,
    Mamba2,
    Mamba3,
)
from longstate.layers._gated import RMSNorm
from longstate.memory import certify, record
from longstate.memory._attack import attack
from longstate.memory._selective_bounds import (
    Ball,
    cast,
    decay,
    inner_size,
    state_size,
    steps,
)
from longstate.models import LanguageModel, LanguageSpec
from longstate.systems import DenseSystem

LAYERS = {
    "mamba": lambda: Mamba(8, d_state=3),
    "falcon mamba": lambda: FalconMamba(8, d_state=3),
    "mamba2": lambda: Mamba2(8, d_state=4, d_head=4, n_groups=2),
    "mamba3": lambda: Mamba3(8, d_state=4, d_head=4, n_groups=2),
}


def random_layer(name, seed):
    """Weights far from their start, as training leaves them, of a scale that the seed chooses."""
    torch.manual_seed(seed)
    layer = LAYERS[name]().double()
    with torch.no_grad():
        for p in layer.parameters():
            p.add_((0.1 + seed % 5) * 0.5 * torch.randn_like(p))
    norm = RMSNorm(8).double()
    norm.weight.data = 0.5 + torch.rand(8).double()
    ball = Ball(norm.weight.detach(), torch.zeros(8).double(), math.sqrt(8))
    return layer, norm, ball


def adversarial(norm, sequences, length):
    """Inputs behind a norm: noise, constants, jumps between two values, single spikes, silence."""
    noise = torch.randn(sequences, length, 8).double()
    held = torch.randn(sequences, 1, 8).double().expand(-1, length, -1)
    jump = torch.where(torch.rand(sequences, length, 1) < 0.5, held, -held.flip(0))
    spike = torch.where(torch.rand(sequences, length, 1) < 0.2, 100 * noise, 1e-4 * held)
    every = torch.cat([noise, held, jump, spike])
    return norm(every[torch.randperm(len(every))[:sequences]])


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("name", LAYERS)
def test_no_sequence_leaves_the_certified_range(name, seed):
    """24 models, 10,000 sequences and more in all."""
    layer, norm, ball = random_layer(name, seed)
    s = cast(layer.selection(), torch.float64)
    step, bound = steps(s, ball), state_size(s, ball)
    highest = decay(s, ball, step.low)  # (o, n or 1)
    with torch.no_grad():
        trace = layer.trace(adversarial(norm, 450, 24)).double()
    o = len(step.low)
    seen = trace.decay.amax((0, 1)).unflatten(0, (o, -1)).amax(1)
    assert bool((seen <= highest * (1 + 1e-12)).all())
    size = trace.states().abs().amax((0, 1)).unflatten(0, (o, -1)).amax(1)
    assert bool((size <= bound * (1 + 1e-12)).all())
    x = trace.x.abs().amax((0, 1))
    assert bool((x <= inner_size(s, ball)[: s.inner] * (1 + 1e-12)).all())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", LAYERS)
def test_an_attack_is_an_input_and_its_value_what_the_layer_does_with_it(name, seed):
    """The input is one that the norm can give; the layer, run on it, does what was reported."""
    layer, _, ball = random_layer(name, seed)
    s = cast(layer.selection(), torch.float64)
    found, low = attack(layer, s, ball), steps(s, ball).low
    for one in filter(None, found):
        z = (one.inputs - ball.bias) / ball.weight
        assert float(z.norm(dim=-1).max()) <= ball.radius * (1 + 1e-12)
    layer.requires_grad_(False)
    trace = layer.trace(found.exponent.inputs[None])
    if found.step is not None:
        last = layer.trace(found.step.inputs[None]).gain[0, -1]
        assert found.step.value == float(last.min())
        assert found.step.value >= float(low.min())
        assert s.rate is not None
        exponent = trace.gain[0, -1].unflatten(0, (len(s.rate), -1)).amin(1) * s.rate.amin(1)
        assert found.exponent.value == float(exponent.min())
    else:
        left = trace.decay[0, -1].amax()
        torch.testing.assert_close(torch.tensor(found.exponent.value).double(), -left.log())


def test_limit_of_the_step_is_a_guard():
    """dt >= 0.05 certifies how long anything can be kept."""
    torch.manual_seed(0)
    layer = Mamba2(8, d_state=4, d_head=4, dt_limit=(0.05, 0.2)).double()
    s = cast(layer.selection(), torch.float64)
    ball = Ball(torch.ones(8).double(), torch.zeros(8).double(), math.sqrt(8))
    assert bool((steps(s, ball).low >= 0.05).all())
    assert bool((steps(s, ball).high <= 0.2).all())


def test_sampling_bound_is_nearly_attained():
    """Steps of the largest size, the input at its largest: |h| comes close to the bound."""
    rate, largest = 0.7, 0.3
    h, bound = 0.0, largest / (1 - math.exp(-rate * largest))
    for _ in range(200):
        h = math.exp(-rate * largest) * h + largest
        assert h <= bound
    # A step rounds once, and the roundings before it fade as the state does.
    assert bound - h <= 2.0**-52 * bound / (1 - math.exp(-rate * largest))


def test_longhorn_grows_at_most_like_the_root_of_time():
    """The greedy worst case reaches sqrt(T / 2) times the input; the bound is exactly that."""
    h, T = 0.0, 4000
    for _ in range(T):  # the best D = 1 / (1 + k^2), beta = 1, |x| = 1, k with D k = slope
        ks = torch.linspace(1e-3, 3, 400).double()
        rate = 1 / (1 + ks * ks)
        h = float(((1 - rate * ks * ks) * h + rate * ks).max())
    assert 0.69 * math.sqrt(T) < h <= math.sqrt(T / 2)


def make(names, **options):
    torch.manual_seed(0)
    return LanguageModel(LanguageSpec(vocab_size=20, d_model=8, layers=names, **options))


def test_of_a_model_with_data_and_attack():
    model = make(("mamba", "longhorn", "mamba2", "s4d"), options={"mamba2": {"d_head": 4}})
    result = certify(model, torch.randint(0, 20, (2, 40)))
    assert result.passed
    assert {c.layer for c in result.claims} == {f"blocks.{i}.mixer" for i in range(4)}
    assert all(c.ordered() for c in result.claims)
    decayed = next(c for c in result.claims if c.what == "decay of a step, at most")
    assert decayed.seen <= decayed.attacked <= decayed.certified <= 1
    facts = json.loads(result.to_json())
    assert facts["passed"] is True
    assert facts["claims"][0]["layer"] == "blocks.0.mixer"
    assert model.training


def test_undamped_linoss_fails_its_claim():
    torch.manual_seed(0)
    layer = LinOSS(4, variant="imex")
    result = certify(layer)
    assert not result.passed
    assert "largest |eigenvalue|" in result.sentence


def test_an_unstable_system_reports_its_eigenvalue():
    """The modulus is 1, and the claim fails."""

    class Growing(nn.Module):
        def system(self):
            one = torch.ones(1, 1)
            return DenseSystem(
                torch.diag(torch.tensor([0.5, -1.5])),
                one.mT.expand(2, 1),
                one.expand(1, 2),
                one,
                discrete=True,
            )

    found = certify(Growing())
    assert not found.passed
    assert found.claims[0].certified == 1.5
    assert found.claims[1].certified == math.inf


def test_the_smallest_step_is_reported_with_the_measured_one():
    model, tokens = make(("mamba", "mamba3"), options={"mamba3": {"d_head": 4}}), torch.arange(20)
    claims = certify(model, tokens[None]).claims
    step, deep = (c for c in claims if c.what == "step dt, at least")
    assert 0 < step.certified <= step.attacked <= step.seen
    trace = record(model, tokens[None])["blocks.0.mixer"]
    assert step.seen == float(trace.gain.min())
    assert deep.seen is None  # Mamba-3 writes with a part of its step, so that none is seen


def test_steps_too_small_for_a_decay_to_show_are_still_in_order():
    """Of a step of 1e-24 float64 makes a decay of exactly 1; the certificate must not trip."""
    model = make(
        ("mamba", "mamba2", "mamba3"), options={"mamba2": {"d_head": 4}, "mamba3": {"d_head": 4}}
    )
    with torch.no_grad():
        model.blocks[0].mixer.dt_proj.bias.fill_(-55)
        for block in list(model.blocks)[1:]:
            block.mixer.dt_bias.fill_(-55)
    result = certify(model, torch.randint(0, 20, (2, 40)))
    assert result.passed
    first = next(c for c in result.claims if c.what == "decay of a step, at most")
    assert first.seen == 1


def test_forgetting_on_average_beside_the_certificate():
    claims = certify(make(("mamba", "longhorn", "s4d")), torch.randint(0, 20, (2, 40))).claims
    two = [c for c in claims if c.what == "distance of two states, log per step"]
    assert [c.layer for c in two] == ["blocks.0.mixer", "blocks.1.mixer"]
    assert all(c.kind == "estimate" and c.certified is None and c.seen < 0 for c in two)
    grow = next(c for c in claims if c.what == "|u| / |state| that cannot make it grow")
    assert grow.layer == "blocks.2.mixer"
    assert grow.certified > 0


def test_norm_with_bias_before_the_layer():
    """LayerNorm's bias moves the ball; soundness again, through a model of S4's kind of block."""
    model = make(("mamba",), norm="layer")
    model.blocks[0].norm.bias.data.normal_()
    assert certify(model, torch.randint(0, 20, (4, 64))).passed


def test_data_may_be_what_runs_the_model():
    model, tokens = make(("mamba",)), torch.randint(0, 20, (2, 40))
    a, b = certify(model, tokens), certify(model, lambda: model(tokens))
    assert a.to_json() == b.to_json()
    assert a.claims[0].seen is not None


def test_a_recording_has_the_inputs_of_the_layer():
    model, tokens = make(("mamba", "longhorn")).double(), torch.randint(0, 20, (2, 40))
    traces = record(model, tokens)
    _, state = model(tokens)
    for i, trace in enumerate(traces.values()):
        last = trace.states()[:, -1].flatten(1)
        torch.testing.assert_close(last, state[i]["ssm"].flatten(1).detach())


def test_rounding_of_a_narrow_norm_breaks_no_certificate():
    """One channel: every input is as long as the norm allows, and bfloat16 makes some longer."""
    torch.manual_seed(1)
    model = LanguageModel(LanguageSpec(vocab_size=64, d_model=1, layers=("mamba",)))
    with torch.no_grad():
        model.blocks[0].norm.weight.fill_(1.3)
        model.embedding.weight.mul_(1e4)
    assert certify(model.bfloat16(), torch.arange(64)[None]).passed


def test_an_adapter_inside_a_layer_is_included():
    """Its weight is only the base matrix, so a certificate from it would be wrong."""

    class Adapted(nn.Linear):
        def forward(self, x):
            return super().forward(x) + 100 * x.mean(-1, keepdim=True)

    model = make(("mamba", "s4d"))
    model.blocks[0].mixer.in_proj = Adapted(8, 32, bias=False)
    with pytest.raises(InputError, match=r"blocks\.0\.mixer\.in_proj is a Adapted"):
        certify(model)


@pytest.mark.parametrize("update", ["diagonal", "exact"])
def test_longhorn_never_exceeds_its_energy_bound(update):
    torch.manual_seed(0)
    layer = Longhorn(8, d_state=4, variant=update).double()
    norm = RMSNorm(8).double()
    s = cast(layer.selection(), torch.float64)
    ball = Ball(norm.weight.detach(), torch.zeros(8).double(), math.sqrt(8))
    with torch.no_grad():
        trace = layer.trace(adversarial(norm, 300, 40)).double()
    states = trace.states()
    energy = 0.5 * trace.x.square().cumsum(1)
    if update == "diagonal":
        assert bool((states.square() <= energy[..., None] * (1 + 1e-9)).all())
    sup = inner_size(s, ball)[: s.inner]
    growth = states.abs().amax(-1) / torch.arange(1, 41).sqrt()[:, None]
    assert bool((growth <= math.sqrt(0.5) * sup * (1 + 1e-9)).all())
