"""Mamba-2 against its equations; names of parameters; the meaning of a step size."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.layers import Mamba, Mamba2
from longstate.layers._gated import GatedRMSNorm


def make(**options):
    torch.manual_seed(0)
    return Mamba2(8, d_state=5, d_head=4, **options).double()


def by_the_equations(layer, u):
    """Sample by sample, from the published definition."""
    p, n, g, h = layer.d_head, layer.d_state, layer.n_groups, layer.n_heads
    inner = h * p
    z, xBC, dt = (u @ layer.in_proj.weight.T).split([inner, inner + 2 * g * n, h], dim=-1)
    xBC = F.silu(layer.conv1d(xBC.mT)[..., : u.shape[1]].mT)
    x, B, C = xBC.split([inner, g * n, g * n], dim=-1)
    dt, A = F.softplus(dt + layer.dt_bias).clamp(*layer.dt_limit), -layer.A_log.exp()
    state, outputs = u.new_zeros(len(u), h, p, n), []
    for t in range(u.shape[1]):
        x_t = x[:, t].view(-1, h, p)
        B_t, C_t = (v[:, t].view(-1, g, n).repeat_interleave(h // g, 1) for v in (B, C))
        decay = (dt[:, t] * A).exp()[..., None, None]
        state = decay * state + torch.einsum("bh,bhp,bhn->bhpn", dt[:, t], x_t, B_t)
        y = torch.einsum("bhpn,bhn->bhp", state, C_t) + layer.D[:, None] * x_t
        y = (y.flatten(1) * F.silu(z[:, t])).view(-1, g, inner // g)
        y = y / (y.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        outputs.append((y.flatten(1) * layer.norm.weight) @ layer.out_proj.weight.T)
    return torch.stack(outputs, 1)


@pytest.mark.parametrize("n_groups", [1, 2])
def test_forward_is_the_equations(n_groups):
    layer = make(n_groups=n_groups)
    nn.init.normal_(layer.norm.weight)
    nn.init.normal_(layer.D)
    u = torch.randn(2, 70, 8, dtype=torch.float64)
    assert_close(layer(u)[0], by_the_equations(layer, u))


@pytest.mark.parametrize("limit", [(0.01, 0.03), (0.02, None)])
def test_steps_have_limits(limit):
    layer, u = make(dt_limit=limit), torch.randn(2, 70, 8, dtype=torch.float64)
    expected = by_the_equations(layer, u)
    assert_close(layer(u)[0], expected)
    assert_close(layer.step(u[:, 0], layer.init_state(2))[0], expected[:, 0])
    assert not torch.allclose(make()(u)[0], expected)


def test_names_and_shapes_are_the_authors():
    layer = Mamba2(768)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "dt_bias": (24,),
        "A_log": (24,),
        "D": (24,),
        "in_proj.weight": (2 * 1536 + 2 * 128 + 24, 768),
        "conv1d.weight": (1536 + 2 * 128, 1, 4),
        "conv1d.bias": (1536 + 2 * 128,),
        "norm.weight": (1536,),
        "out_proj.weight": (768, 1536),
    }


def test_initial_values():
    torch.manual_seed(0)
    layer = Mamba2(512, d_head=2)
    steps = F.softplus(layer.dt_bias.detach())
    assert steps.min() >= 1e-3 * (1 - 1e-4)
    assert steps.max() <= 1e-1 * (1 + 1e-4)
    # Log-uniform over two decades: the median of n has a standard error of 1 / sqrt(n) decades.
    assert abs(steps.median().log10() + 2) < 2 * len(steps) ** -0.5
    rates = layer.A_log.detach().exp()
    assert 1 <= rates.min() < 1.5 < 15 < rates.max() <= 16
    assert torch.equal(layer.D, torch.ones(512))
    tiny = Mamba2(64, d_head=2, dt_min=1e-6, dt_max=1e-6)
    assert_close(1e4 * F.softplus(tiny.dt_bias.detach()), torch.ones(64))


def test_zero_time_does_not_change_the_matrix_state():
    layer = make()
    u = torch.randn(2, 10, 8, dtype=torch.float64)
    _, state = layer(u)
    _, after = layer(u[:, :3], state, dt=torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(after["ssm"], state["ssm"])
    assert not torch.equal(after["taps"], state["taps"])


class Scaled(nn.Module):
    """A replacement for LoRA or quantised layers, without its own weight."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, u):
        return 2 * self.inner(u)


def test_projections_are_called():
    layer, u = make(), torch.randn(2, 7, 8, dtype=torch.float64)
    plain, state = layer(u)
    layer.out_proj = Scaled(layer.out_proj)
    assert_close(layer(u)[0], 2 * plain)
    assert_close(layer.step(u[:, 0], state)[0], layer(u[:, :1], state)[0][:, 0])
    layer.in_proj = Scaled(layer.in_proj)
    layer(u)


def test_narrow_weights_and_autocast_keep_a_wide_state():
    u = torch.randn(2, 30, 8)
    layer = make().float()
    with torch.autocast("cpu", torch.bfloat16):
        y, state = layer(u)
    assert all(v.dtype == torch.float32 for v in state.values())
    assert y.isfinite().all()
    y, state = layer.bfloat16()(u.bfloat16())
    assert y.dtype == torch.bfloat16
    assert all(v.dtype == torch.float32 for v in state.values())
    assert y.isfinite().all()
    y, state = layer.step(u[:, 0].bfloat16(), state)
    assert all(v.dtype == torch.float32 for v in state.values())


def test_gated_norm_is_per_group():
    norm = GatedRMSNorm(6, n_groups=2).double()
    y, z = torch.randn(2, 4, 6, dtype=torch.float64)
    gated = (y * F.silu(z)).view(4, 2, 3)
    assert_close(norm(y, z), F.rms_norm(gated, (3,), eps=1e-5).view(4, 6))


def test_refusals():
    with pytest.raises(ValueError, match="d_head must divide expand"):
        Mamba2(8, d_head=5)
    with pytest.raises(ValueError, match="n_groups must divide the 4 heads"):
        Mamba2(8, d_head=4, n_groups=3)
    with pytest.raises(ValueError, match="dt_min"):
        Mamba2(8, d_head=4, dt_min=1.0, dt_max=0.1)
    for limit in ((0.2, 0.1), (-1, 1), (None, 1), (1,), ()):
        with pytest.raises(ValueError, match="dt_limit must be"):
            Mamba2(8, d_head=4, dt_limit=limit)


def test_mamba_limits_its_step_as_mamba2_does():
    """The learned step is clamped, then time multiplies it: in a pass, a step, a trace."""
    torch.manual_seed(0)
    plain, limited = Mamba(6, d_state=4), Mamba(6, d_state=4, dt_limit=(0.01, 0.02))
    limited.load_state_dict(plain.state_dict())
    for layer in (plain, limited):
        layer.requires_grad_(False)
    u, dt = 3 * torch.randn(2, 30, 6), 4 * torch.rand(2, 30)
    step = limited.trace(u).gain
    torch.testing.assert_close(step, plain.trace(u).gain.clamp(0.01, 0.02))
    assert float(step.min()) == pytest.approx(0.01)
    assert float(step.max()) == pytest.approx(0.02)
    steps = step * dt[..., None]
    decay = (steps[..., None] * -plain.A_log.exp()).exp()
    trace = replace(limited.trace(u), decay=decay, gain=steps)
    torch.testing.assert_close(limited(u, dt=dt)[1]["ssm"], trace.states()[:, -1])
    with pytest.raises(ValueError, match="dt_limit"):
        Mamba(6, dt_limit=(0.2, 0.1))
