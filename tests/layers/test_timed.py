"""Steps from stamps and from the input; when a sample may be split or added without any effect."""

import math

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.testing import assert_close

import longstate
from longstate.layers import (
    DSS,
    GRUD,
    S4,
    S4D,
    S5,
    CfC,
    GatedSSM,
    LinearCDE,
    LinOSS,
    Mamba,
    Mamba2,
    Mamba3,
    Timed,
)
from longstate.models import Stack
from longstate.models._saving import load_layer, save_layer

LARGE = {"dt_min": 0.5, "dt_max": 1.0}  # steps at which an approximate rule is seen to be one
HOLD = {
    "s5": lambda: S5(4, d_state=8, **LARGE),
    "s4d": lambda: S4D(4, d_state=8, **LARGE),
    "s4d-real": lambda: S4D(4, d_state=3, init="real", **LARGE),
    "dss": lambda: DSS(4, d_state=8, **LARGE),
    "linear-cde": lambda: LinearCDE(4, d_state=5),
    "linear-cde-diagonal": lambda: LinearCDE(4, d_state=5, variant="diagonal"),
    "gated-ssm": lambda: GatedSSM(4, d_state=5),
}
OTHERS = {
    "s5-bilinear": lambda: S5(4, d_state=8, variant="bilinear", **LARGE),
    "s4d-bilinear": lambda: S4D(4, d_state=8, variant="bilinear", **LARGE),
    "linoss-im": lambda: LinOSS(4, d_state=4),
    "linoss-imex": lambda: LinOSS(4, d_state=4, variant="imex"),
    "mamba": lambda: Mamba(4, d_state=3),
    "mamba2": lambda: Mamba2(4, d_state=3, d_head=4),
    "mamba3": lambda: Mamba3(4, d_state=4, d_head=4),
    "cfc": lambda: CfC(4, d_state=5, d_backbone=6),
    "grud": lambda: GRUD(4, d_state=5),
}
ADDS_UP = ["linear", ("linear", "learned"), ("tokens", "linear"), ("linear", "tokens", "learned")]


def made(layer, step) -> Timed:
    torch.manual_seed(0)
    timed = Timed(layer(), step=step).double()
    for p in timed.sources.parameters():
        nn.init.normal_(p, std=0.5)
    return timed


def split() -> tuple:
    """u and gaps of 7 samples; the same signal with each sample cut into 1 to 4; and where a sample
    ends."""
    torch.manual_seed(1)
    u, gap = torch.randn(2, 7, 4).double(), 2 * torch.rand(2, 7).double()
    counts = torch.tensor([2, 1, 4, 3, 1, 2, 2])
    share = torch.rand(2, int(counts.sum())).double()
    ends = counts.cumsum(0) - 1
    owner = torch.arange(7).repeat_interleave(counts)
    total = torch.zeros(2, 7).double().index_add_(1, owner, share)
    return u, gap, u[:, owner], gap[:, owner] * share / total[:, owner], ends


@pytest.mark.parametrize("layer", HOLD)
@pytest.mark.parametrize("step", ADDS_UP)
def test_a_split_step_changes_nothing_under_a_hold(layer, step):
    timed = made(HOLD[layer], step)
    u, gap, more_u, more_gap, ends = split()
    y, state = timed(u, dt=gap)
    longer, after = timed(more_u, dt=more_gap)
    assert_close(longer[:, ends], y)
    assert_close(after, state)


@pytest.mark.parametrize("layer", HOLD)
@pytest.mark.parametrize("step", ADDS_UP)
def test_a_sample_of_no_duration_changes_no_state(layer, step):
    timed = made(HOLD[layer], step)
    u, gap, *_ = split()
    at = [0, 1, 2, 2, 3, 4, 5, 6]
    more_u, more_gap = u[:, at].clone(), gap[:, at].clone()
    more_u[:, 3], more_gap[:, 3] = 7.0, 0.0
    assert_close(timed(more_u, dt=more_gap)[1], timed(u, dt=gap)[1])


@pytest.mark.parametrize("layer", OTHERS)
def test_other_rules_see_a_split_step(layer):
    timed = made(OTHERS[layer], "linear")
    u, gap, more_u, more_gap, ends = split()
    assert not torch.allclose(timed(more_u, dt=more_gap)[0][:, ends], timed(u, dt=gap)[0])


@pytest.mark.parametrize("step", ["constant", "learned", "tokens", "saturating", "cosine"])
def test_other_sources_see_a_split_step(step):
    timed = made(HOLD["s5"], step)
    u, gap, more_u, more_gap, ends = split()
    assert not torch.allclose(timed(more_u, dt=more_gap)[0][:, ends], timed(u, dt=gap)[0])


def test_sources_are_their_equations():
    u, gap, *_ = split()

    def steps(step):
        timed = made(HOLD["s5"], step)
        return timed.steps(u, gap), [p.detach() for p in timed.sources.parameters()]

    found, (s,) = steps("learned")
    assert_close(found, s.exp().expand(2, 7))
    found, (w, c) = steps("tokens")
    assert_close(found, torch.log1p(torch.exp((u * w).sum(-1) + c)))
    found, (scale, largest) = steps("saturating")
    assert_close(found, largest.exp() * (1 - torch.exp(-gap / scale.exp())))
    found, (f, p, w, c) = steps("cosine")
    waves = sum(w[i] * torch.cos(f[i] * gap + p[i]) for i in range(100))
    assert_close(found, torch.log1p(torch.exp(waves + c)))
    assert_close(steps("linear")[0], gap)
    assert_close(steps(("learned", "linear"))[0], steps("learned")[0] * gap)
    assert made(HOLD["s5"], "constant").steps(u, gap) is None


def test_first_steps_are_near_that_of_the_layer():
    torch.manual_seed(0)
    one = torch.ones(1, 1).double()
    for step in ("learned", "tokens", "saturating", "cosine"):
        timed = Timed(S5(4), step=step).double()
        if step in ("tokens", "cosine"):
            assert timed.sources[0].weight.norm() < 0.5
            nn.init.zeros_(timed.sources[0].weight)
        # 1 as closely as the first values, which are float32
        assert_close(timed.steps(one[..., None].expand(1, 1, 4), one).float(), one.float())


@pytest.mark.parametrize("layer", HOLD | OTHERS)
def test_sources_learn_through_every_layer_with_a_step(layer):
    timed = made((HOLD | OTHERS)[layer], ("saturating", "tokens"))
    u, gap, *_ = split()
    own = {n: p.detach() for n, p in timed.named_parameters() if n.startswith("sources")}

    def run(*values):
        given = dict(zip(own, values, strict=True))
        return functional_call(timed, given, (u[:, :3],), {"dt": gap[:, :3]})[0]

    values = [p.clone().requires_grad_() for p in own.values()]
    torch.autograd.gradcheck(run, values)
    gradients = torch.autograd.grad(run(*values).square().sum(), values)
    assert all(g.any() for g in gradients)


def test_a_masked_sample_reaches_no_gradient_of_a_step():
    timed = made(HOLD["s5"], "tokens")
    u, mask = torch.randn(2, 4).double(), torch.tensor([True, False])
    u[1] = math.nan
    y, _ = timed.step(u, timed.init_state(2), mask=mask)
    gradients = torch.autograd.grad(y.square().sum(), list(timed.parameters()))
    assert all(g.isfinite().all() for g in gradients)


def test_constant_needs_no_step_and_the_others_do():
    torch.manual_seed(0)
    layer, u = S4(3, d_state=4), torch.randn(2, 5, 3)
    y, _ = Timed(layer, step="constant")(u, dt=torch.rand(2, 5))
    assert_close(y, layer(u)[0], rtol=0, atol=0)
    with pytest.raises(ValueError, match="S4"):
        Timed(layer)(u, dt=torch.rand(2, 5))


def test_it_is_saved_and_loaded(tmp_path):
    timed = made(lambda: S5(4, d_state=8), ("linear", "tokens")).eval()
    save_layer(timed, tmp_path / "layer.safetensors")
    again = load_layer(tmp_path / "layer.safetensors")
    u, gap, *_ = split()
    assert again.step_sources == ("linear", "tokens")
    assert torch.equal(again(u, dt=gap)[0], timed(u, dt=gap)[0])


def test_it_runs_in_a_stack():
    torch.manual_seed(0)
    stack = Stack([Timed(S5(4, d_state=8), step="saturating"), S5(4, d_state=8)]).double()
    u, gap, *_ = split()
    state, outputs = None, []
    for t in range(7):
        y, state = stack.step(u[:, t], stack.init_state(2) if t == 0 else state, dt=gap[:, t])
        outputs.append(y)
    assert_close((torch.stack(outputs, 1), state), stack(u, dt=gap))


def test_wrong_options_are_refused():
    with pytest.raises(ValueError, match=r"step must be one or more of .*; got 'time'"):
        Timed(S5(4), step="time")
    with pytest.raises(ValueError, match=r"step must be one or more of .*; got \(\)"):
        Timed(S5(4), step=())
    with pytest.raises(longstate.errors.InputError, match="no layer 'timed'"):
        longstate.models.layer_class("timed")
    assert math.isfinite(float(Timed(S5(4)).steps(torch.zeros(4))))
