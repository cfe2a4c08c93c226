"""Certificates of selective layers: their assumptions, and a search for violations."""

import math

import pytest
import torch
from torch import nn

from longstate.errors import InputError
from longstate.layers import FalconMamba, Longhorn, Mamba, Mamba2, Mamba3
from longstate.layers._gated import RMSNorm
from longstate.memory import _attack as search
from longstate.memory import certify, record
from longstate.memory._attack import attack
from longstate.memory._selective_bounds import Ball, cast, rates, state_size, steps
from longstate.models import LanguageModel, LanguageSpec

LAYERS = {
    "mamba": lambda: Mamba(6, d_state=3),
    "mamba, limited": lambda: Mamba(6, d_state=3, dt_limit=(0.02, 0.5)),
    "falcon mamba": lambda: FalconMamba(6, d_state=3),
    "mamba2": lambda: Mamba2(6, d_state=4, d_head=3, n_groups=2),
    "mamba3": lambda: Mamba3(6, d_state=4, d_head=3, n_groups=2),
    "mamba3, softplus": lambda: Mamba3(6, d_state=4, d_head=3, variant="softplus"),
}


def claim(result, words):
    return next(c for c in result.claims if words in c.what)


def trained_like(make, seed, scale=0.6):
    torch.manual_seed(seed)
    layer = make().double().requires_grad_(False)
    for p in layer.parameters():
        p.add_(scale * torch.randn_like(p))
    return layer


class Spheres(nn.Module):
    """A layer behind a norm of PyTorch, as a block of this library's kind, which data confirms."""

    def __init__(self, layer, norm):
        super().__init__()
        self.norm, self.mixer = norm, layer

    def forward(self, u):
        return u + self.mixer(self.norm(u))[0]


class After(Spheres):
    """The norm after the layer."""

    def forward(self, u):
        return self.norm(u + self.mixer(u)[0])


class Gamma(nn.Module):
    """An RMSNorm of another library, with a scale named gamma."""

    def __init__(self, d):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((d,), 200.0))

    def forward(self, u):
        return self.gamma * nn.functional.rms_norm(u, u.shape[-1:])


class GammaRMSNorm(Gamma):
    pass


class OneMoreRMSNorm(nn.RMSNorm):
    """Scales by 1 + weight."""

    def forward(self, u):
        return super().forward(u) + nn.functional.rms_norm(u, u.shape[-1:])


def hill_climb(layer, ball, measure, *, length=40, tries=8, rounds=60):
    """Largest measure(trace) over sequences on the ball, by Adam on the layer itself."""
    g = torch.Generator().manual_seed(0)
    z = torch.randn(tries, length, layer.d_model, generator=g, dtype=torch.float64)
    z.requires_grad_()
    optimiser, best = torch.optim.Adam([z], lr=0.1), -math.inf
    for _ in range(rounds):
        optimiser.zero_grad()
        on = nn.functional.normalize(z, dim=-1) * ball.radius * ball.weight + ball.bias
        value = measure(layer.trace(on)).amax()
        (-value).backward()
        optimiser.step()
        best = max(best, value.item())
    return best


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("name", LAYERS)
def test_an_independent_search_stays_below_the_bounds(name, seed):
    """Largest state and weakest decay, by gradients of the layer itself and not of the bounds."""
    layer = trained_like(LAYERS[name], seed)
    ball = Ball(torch.ones(6).double(), torch.zeros(6).double(), math.sqrt(6))
    s = cast(layer.selection(), torch.float64)
    size = hill_climb(layer, ball, lambda t: t.states().abs())
    assert size <= float(state_size(s, ball).max())
    weak = hill_climb(layer, ball, lambda t: t.decay.log(), length=6)
    exponent = float((steps(s, ball).low * rates(s, ball).amin(1)).min())
    assert -weak >= exponent
    # and the attack that certify reports is no weaker than a search of this kind
    assert attack(layer, s, ball).exponent.value <= -weak * 1.05


@pytest.mark.parametrize("name", LAYERS)
def test_the_attacked_value_is_that_of_its_witness(name):
    layer = trained_like(LAYERS[name], 4)
    found = certify(layer, radius=2.0)
    exponent, decay = claim(found, "decay exponent"), claim(found, "decay of a step")
    assert float(exponent.witness.norm(dim=-1).max()) <= 2 * (1 + 1e-12)
    trace = layer.trace(exponent.witness[None])
    largest = trace.decay[0, -1].max()
    torch.testing.assert_close(torch.tensor(decay.attacked).double(), largest)
    torch.testing.assert_close(torch.tensor(exponent.attacked).double(), -largest.log())
    step = claim(found, "step dt")
    if not name.startswith("mamba3"):
        last = layer.trace(step.witness[None]).gain[0, -1].min()
        torch.testing.assert_close(torch.tensor(step.attacked).double(), last)


def test_data_that_is_worse_than_the_search_is_the_attack(monkeypatch):
    """The three numbers are in order for any result of the search; here it has the wrong sign."""
    monkeypatch.setattr(search, "_polish", lambda layer, s, ball, z, chosen: -z)
    layer, u = trained_like(LAYERS["mamba"], 1), torch.randn(4, 30, 6).double()
    u = 2 * nn.functional.normalize(u, dim=-1)
    found = certify(layer, u, radius=2.0)
    assert all(c.ordered() for c in found.claims)
    assert claim(found, "step dt").attacked <= claim(found, "step dt").seen


def _unit(d):
    return torch.ones(d).double(), torch.zeros(d).double()


def test_the_rate_of_mamba3_is_certified_like_its_step():
    """Its rate is linear in u: the bound of the state does not stand on the floor of 1e-4."""
    torch.manual_seed(0)
    layer = Mamba3(8, d_state=4, d_head=4).double().requires_grad_(False)
    ball = Ball(*_unit(8), math.sqrt(8))
    low = rates(cast(layer.selection(), torch.float64), ball)
    a = layer.in_proj.weight[2 * 16 + 2 * 4 + 4 :][:4]
    for head in range(4):  # the worst input of each head, through the layer's own projection
        u = -math.sqrt(8) * nn.functional.normalize(a[head], dim=0)
        rate = (-layer._project(u[None, None], None)[1].log_a /
                layer._project(u[None, None], None)[1].step)[0, 0, head]  # fmt: skip
        torch.testing.assert_close(low[head, 0], rate)
    bound = claim(certify(layer, radius=math.sqrt(8)), "|state|").certified
    free = hill_climb(layer, ball, lambda t: t.states().abs(), length=60)
    assert free <= bound <= 200 * free


@pytest.mark.parametrize("norm", [GammaRMSNorm, Gamma, OneMoreRMSNorm])
def test_a_norm_is_known_by_its_type_and_not_by_its_name(norm):
    model = Spheres(Mamba(8, d_state=2), norm(8))
    u = torch.randn(2, 20, 8)
    for data in (None, u):
        with pytest.raises(InputError, match="radius"):
            certify(model, data)
    with pytest.raises(InputError, match="longer than radius"):
        certify(model, u, radius=1.0)
    assert certify(model, u, radius=1e4).passed


def test_a_norm_after_the_layer_limits_nothing():
    model, u = After(Mamba(8, d_state=2), nn.RMSNorm(8)), 50 * torch.randn(2, 20, 8)
    with pytest.raises(InputError, match=r"mixer.* radius"):
        certify(model)
    with pytest.raises(InputError, match="is not the output of the norm"):
        certify(model, u)
    trace = record(model, u)["mixer"]
    x = model.mixer.trace(u).x.double()
    torch.testing.assert_close(trace.x.float(), x.float())


@pytest.mark.parametrize("norm", [nn.RMSNorm, nn.LayerNorm, RMSNorm])
def test_a_foreign_block_is_accepted_if_the_data_confirms_it(norm):
    model, u = Spheres(Mamba(8, d_state=2), norm(8)), torch.randn(2, 20, 8)
    with pytest.raises(InputError, match=r"Spheres.* radius"):
        certify(model)
    assert certify(model, u).passed


def test_longer_times_write_more_and_shorter_ones_forget_less():
    """The bound for dt in a range, against the layer run with such times."""
    layer = trained_like(LAYERS["mamba"], 2, 0.3)
    regular, wide = certify(layer, radius=2.0), certify(layer, radius=2.0, dt=(0.25, 300.0))
    assert "regular samples" in regular.scope
    assert "0.25 and 300" in wide.scope
    u = 2 * nn.functional.normalize(torch.randn(64, 50, 6).double(), dim=-1)
    dt = 0.25 + 299.75 * torch.rand(64, 50).double().round()
    state, largest = None, 0.0
    for t in range(50):
        _, state = layer.step(
            u[:, t], layer.init_state(64) if state is None else state, dt=dt[:, t]
        )
        largest = max(largest, float(state["ssm"].abs().max()))
    assert claim(regular, "|state|").certified < largest <= claim(wide, "|state|").certified
    for what in ("step dt", "decay exponent"):
        torch.testing.assert_close(
            claim(wide, what).certified, 0.25 * claim(regular, what).certified
        )
        assert claim(wide, what).certified <= claim(wide, what).attacked
        torch.testing.assert_close(claim(wide, what).attacked, 0.25 * claim(regular, what).attacked)
    with pytest.raises(InputError, match="dt must be"):
        certify(layer, radius=2.0, dt=(2.0, 1.0))


def test_zero_time_keeps_the_state():
    found = certify(trained_like(LAYERS["mamba2"], 0), radius=2.0, dt=(0.0, 1.0))
    assert claim(found, "until 1 %").certified == math.inf
    assert claim(found, "decay of a step").certified == 1


def test_a_limit_of_mambas_step_is_a_retention_that_can_be_stated():
    """Steps of at least 0.05 at rates of at least 1: 1 % is left after 4.6 / 0.05 steps."""
    torch.manual_seed(0)
    layer = Mamba(8, d_state=3, dt_limit=(0.05, 0.2)).double()
    layer.dt_proj.bias.data.fill_(-50)
    found = certify(layer, radius=3.0)
    assert claim(found, "step dt").certified == 0.05
    assert claim(found, "until 1 %").certified == pytest.approx(math.log(100) / 0.05)
    assert claim(found, "until 1 %").attacked == pytest.approx(math.log(100) / 0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["mamba", "longhorn", "mamba2", "mamba3"])
def test_narrow_models_are_in_order(name, dtype):
    torch.manual_seed(0)
    options = {name: {"d_head": 4}} if name in ("mamba2", "mamba3") else {}
    model = LanguageModel(LanguageSpec(20, 8, (name,), options=options)).to(dtype)
    found = certify(model, torch.randint(0, 20, (2, 40)))
    assert found.passed
    assert all(c.ordered() for c in found.claims)


def test_a_state_that_its_format_cannot_hold_has_no_practical_bound():
    torch.manual_seed(0)
    model = LanguageModel(LanguageSpec(20, 8, ("mamba",)))
    model.blocks[0].norm.weight.data.fill_(1e20)
    found = claim(certify(model), "|state|")
    assert found.holds is None
    assert "no practical bound" in found.note
    model.blocks[0].norm.weight.data.fill_(1.0)
    assert claim(certify(model), "|state|").holds is True


def test_a_contradicted_bound_is_a_failed_claim(monkeypatch):
    from longstate.memory import _selective_claims as claims

    monkeypatch.setattr(claims, "state_size", lambda *a: torch.tensor([1e-9]).double())
    layer, u = trained_like(LAYERS["mamba"], 0), torch.randn(1, 20, 6).double()
    found = certify(layer, u, radius=100.0)
    assert not found.passed
    assert "contradicted" in claim(found, "|state|").note


def test_longhorn_accepts_a_range_of_time():
    layer = Longhorn(8, d_state=2)
    assert certify(layer, radius=2.0, dt=(0.5, 2.0)).passed


def test_for_a_model_of_another_library_the_error_names_the_loader():
    Other = type("MambaForCausalLM", (nn.Linear,), {"__module__": "transformers.models.mamba"})
    with pytest.raises(InputError, match="load_language_model"):
        certify(Other(2, 2))


def test_a_mixer_that_cannot_be_certified_is_named():
    class Attention(nn.Module):
        d_model = 8

    model = nn.Sequential(
        Spheres(Mamba(8, d_state=2), nn.RMSNorm(8)), Spheres(Attention(), nn.RMSNorm(8))
    )
    found = certify(model, radius=3.0)
    assert "Not certified" in found.sentence
    assert "1.mixer (Attention)" in found.sentence
