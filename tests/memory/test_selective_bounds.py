"""The ranges behind the certificates of selective layers, each against the arithmetic."""

import math

import pytest
import torch
from torch import nn

from longstate.layers import Mamba2, Mamba3
from longstate.memory import _selective_bounds as bounds
from longstate.memory import certify, record
from longstate.memory._selective_bounds import Ball, cast, rates, state_size, steps
from longstate.systems import Selection
from tests.memory.test_certify import random_layer
from tests.memory.test_certify_selective import LAYERS, _unit, claim, trained_like

LOWEST = -0.27846454276107379  # of SiLU, at -1.27846454276107379


def one_channel(reach):
    """x = SiLU(u) for |u| <= reach, and a raw step of x."""
    one, zero = torch.ones(1, 1).double(), torch.zeros(1).double()
    s = Selection(
        into=one, offset=zero, taps=one, bias=zero, silu=True, inner=1, shift=zero, rate=one,
        low=one, write=one,
    )  # fmt: skip
    return s, Ball(torch.ones(1).double(), zero, reach)


@pytest.mark.parametrize("reach", [1.0, 1.3, 5.0, 20.0])
def test_the_lowest_value_of_silu_is_not_missed(reach):
    """Where its range holds the minimum, between the points of any grid."""
    s, ball = one_channel(reach)
    v = bounds._convolved(s, ball)
    least = LOWEST if reach > 1.28 else -reach / (1 + math.exp(reach))
    assert float(bounds._activated(s, v).low) <= least
    torch.testing.assert_close(bounds._activated(s, v).low[0], torch.tensor(least).double())
    flat = bounds._by_lines(s, ball, v, torch.zeros(1).double())
    assert float(flat.low) <= least
    points = torch.linspace(-reach, reach, 100_001).double()
    for slope in bounds._slopes(v):
        found = bounds._by_lines(s, ball, v, slope)
        values = nn.functional.silu(points)
        assert float(found.low) <= float(values.min())
        assert float(found.high) >= float(values.max())


@pytest.mark.parametrize("seed", range(8))
def test_inputs_before_the_first_sample_are_zero(seed):
    """Inputs that are never near zero: the first samples see taps of zero all the same."""
    layer = trained_like(LAYERS["mamba"], seed)
    s = cast(layer.selection(), torch.float64)
    ball = Ball(torch.ones(6).double(), 9 * torch.randn(6).double(), 1.0)
    g = torch.Generator().manual_seed(seed)
    z = nn.functional.normalize(torch.randn(200, 3, 6, generator=g).double(), dim=-1)
    trace, step = layer.trace(z + ball.bias), steps(s, ball)
    gain = trace.gain.flatten(0, 1)
    assert bool((gain >= step.low * (1 - 1e-12)).all())
    assert bool((gain <= step.high * (1 + 1e-12)).all())
    x = trace.x.abs().flatten(0, 1)
    assert bool((x <= bounds.inner_size(s, ball)[: s.inner] * (1 + 1e-12)).all())


def test_the_bound_of_a_split_gain_is_attained():
    """Every sample's own step whole, and for the newest the next step whole too."""
    one, zero = torch.ones(1, 1).double(), torch.zeros(1).double()
    rate, dt = 0.7, 0.3
    s = Selection(
        into=one, offset=zero, taps=one, bias=zero, silu=False, inner=1,
        shift=torch.tensor([math.log(math.expm1(dt))]).double(), rate=rate * one,
        write_cap=torch.ones(1).double(), split=True,
    )  # fmt: skip
    h = 0.0
    for _ in range(300):
        h = math.exp(-rate * dt) * h + dt
    bound = state_size(s, Ball(torch.ones(1).double(), zero, 1.0))
    torch.testing.assert_close(bound[0, 0], torch.tensor(h + dt).double())


def test_written_values_are_bounded_by_absolute_values():
    """x_1 - x_2 with |x_1|, |x_2| <= 1 may be 2."""
    two, zero = torch.eye(2).double(), torch.zeros(2).double()
    s = Selection(
        into=two, offset=zero, taps=torch.ones(2, 1).double(), bias=zero, silu=False, inner=2,
        shift=zero[:1], rate=torch.ones(1, 1).double(), write=torch.tensor([[1.0, -1.0]]).double(),
    )  # fmt: skip
    step = math.log(2)  # softplus(0): half of the state is left
    bound = state_size(s, Ball(torch.ones(2).double(), zero, 1.0))
    torch.testing.assert_close(bound[0, 0], torch.tensor(2 * step / 0.5).double())


def test_a_largest_step_is_a_limit_of_the_certificate_too():
    layer = Mamba2(6, d_state=4, d_head=3, dt_limit=(0.05, 0.2)).double()
    layer.dt_bias.data.fill_(5.0)
    ball = Ball(torch.ones(6).double(), torch.zeros(6).double(), 1.0)
    found = steps(cast(layer.selection(), torch.float64), ball)
    assert found.low.tolist() == found.high.tolist() == [0.2] * len(layer.dt_bias)


def test_lines_are_tighter_than_intervals():
    layer, _, ball = random_layer("mamba", 0)
    s = cast(layer.selection(), torch.float64)
    v = bounds._convolved(s, ball)
    plain = bounds._by_lines(s, ball, v, torch.zeros_like(v.low)).low
    best = torch.stack([bounds._by_lines(s, ball, v, k).low for k in bounds._slopes(v)]).amax(0)
    assert bool((best >= plain).all())
    assert float((best > plain + 1e-9).double().mean()) > 0.5


def test_a_split_gain_may_come_in_two_whole_steps():
    """Mamba-3: all of a sample's own step, and of the next one's, which has not decayed yet."""
    torch.manual_seed(0)
    layer = Mamba3(4, d_state=4, d_head=4, rope_fraction=0.5).double().requires_grad_(False)
    layer.in_proj.weight.zero_()
    inner, groups, h = 8, 4, 2
    layer.in_proj.weight[inner, 0] = 1.0  # x of channel 0 reads u_0
    trap = 2 * inner + 2 * groups + 2 * h
    layer.in_proj.weight[trap : trap + h, 1] = 40.0  # lambda is 1 or 0 as u_1 says
    layer.dt_bias.fill_(3.0)
    u = torch.zeros(1, 60, 4).double()
    u[..., 0] = 1.0
    u[..., 1] = torch.tensor([-1.0, 1.0]).repeat(30)
    u = nn.functional.normalize(u, dim=-1) * 2
    found = certify(layer, u, radius=2.0)
    assert found.passed
    size = claim(found, "|state|")
    assert size.seen <= size.certified
    rate = float(rates(cast(layer.selection(), torch.float64), Ball(*_unit(4), 2.0)).min())
    one_step = float(nn.functional.softplus(torch.tensor(3.0)))
    alone = one_step / -math.expm1(-rate * one_step)
    drive = float(record(layer, u)["Mamba3"].write.abs().max()) * math.sqrt(2)
    assert size.seen > alone * drive, "this input would not tell the split gain from a whole one"
