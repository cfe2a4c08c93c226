"""GRU-D against its equations as a loop over absolute times, and its missing values."""

import math

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import GRUD


def made() -> tuple[GRUD, torch.Tensor, torch.Tensor]:
    """A layer, u with missing values (2, 9, 3), and times."""
    torch.manual_seed(0)
    layer = GRUD(3, d_state=5).double()
    for p in (*layer.parameters(), layer.mean):
        torch.nn.init.normal_(p)
    u = torch.randn(2, 9, 3, dtype=torch.float64)
    u[torch.rand(u.shape) < 0.5] = math.nan
    u[0, :, 1], u[1, :3] = math.nan, math.nan  # never, and at first
    return layer, u, torch.rand(2, 9, dtype=torch.float64)


@torch.no_grad()
def by_equations(layer: GRUD, u, dt):
    """Channel by channel; a gap is a difference of two times."""
    W, b, U = layer.in_proj.weight, layer.in_proj.bias, layer.recurrent.weight
    n, sigmoid = layer.d_state, lambda x: 1 / (1 + torch.exp(-x))
    outputs = torch.zeros_like(u)
    for row in range(len(u)):
        times = dt[row].cumsum(0).tolist()
        h = torch.zeros(n, dtype=u.dtype)
        for t in range(u.shape[1]):
            gaps, filled = [], []
            for i in range(u.shape[2]):
                seen = [s for s in range(t) if not math.isnan(u[row, s, i])]
                gaps.append(times[t] - (times[seen[-1]] if seen else 0.0))
                mean = float(layer.mean[i])
                before = float(u[row, seen[-1], i]) if seen else mean
                rate, shift = float(layer.input_rate[i]), float(layer.input_shift[i])
                gamma = math.exp(-max(0.0, rate * gaps[-1] + shift))
                value = float(u[row, t, i])
                filled.append(gamma * before + (1 - gamma) * mean if value != value else value)
            observed = (~u[row, t].isnan()).to(u.dtype)
            x = torch.cat([torch.tensor(filled, dtype=u.dtype), observed])
            fading = layer.hidden_rate @ torch.tensor(gaps, dtype=u.dtype) + layer.hidden_shift
            h = torch.exp(-torch.clamp(fading, min=0)) * h
            r = sigmoid(W[:n] @ x + U[:n] @ h + b[:n])
            z = sigmoid(W[n : 2 * n] @ x + U[n : 2 * n] @ h + b[n : 2 * n])
            q = torch.tanh(W[2 * n :] @ x + U[2 * n :] @ (r * h) + b[2 * n :])
            h = (1 - z) * h + z * q
            outputs[row, t] = layer.out_proj.weight @ h + layer.out_proj.bias
    return outputs, h


def test_the_layer_is_its_equations():
    layer, u, dt = made()
    for given in (dt, None):
        y, state = layer(u, dt=given)
        expected, last = by_equations(layer, u, torch.ones_like(dt) if given is None else given)
        assert_close(y, expected)
        assert_close(state["h"][-1], last)


def test_the_state_knows_the_last_value_and_the_time_since_then():
    layer, u, dt = made()
    _, state = layer(u, dt=dt)
    seen = [t for t in range(9) if not math.isnan(u[1, t, 0])][-1]
    assert_close(state["last"][1, 0], u[1, seen, 0] - layer.mean[0])
    assert_close(state["gap"][1, 0], dt[1, seen + 1 :].sum())


def test_steps_are_the_pass_also_with_missing_values():
    layer, u, dt = made()
    state, outputs = layer.init_state(2), []
    for t in range(9):
        y, state = layer.step(u[:, t], state, dt=dt[:, t])
        outputs.append(y)
    assert_close((torch.stack(outputs, 1), state), layer(u, dt=dt))


def test_a_missing_value_becomes_the_mean_with_time():
    layer, _, _ = made()
    state = {"h": torch.zeros(1, 5), "last": torch.ones(1, 3), "gap": torch.zeros(1, 3)}
    state = {name: part.double() for name, part in state.items()}
    missing = torch.full((1, 3), math.nan, dtype=torch.float64)
    with torch.no_grad():
        layer.input_rate.abs_()
        layer.input_shift.zero_()
        layer.in_proj.weight[:, 3:] = 0  # which would tell the mean from no value
        at = [layer.step(missing, state, dt=torch.tensor([gap]).double())[0] for gap in (0.0, 1e6)]
        for found, value in zip(at, (layer.mean + 1, layer.mean), strict=True):
            assert_close(found, layer.step(value[None], layer.init_state(1))[0])


def test_derivatives_do_not_see_missing_values():
    layer, u, dt = made()
    u, dt = u[:, :5].requires_grad_(), dt[:, :5].requires_grad_()
    gradients = torch.autograd.grad(layer(u, dt=dt)[0].square().sum(), [u, *layer.parameters()])
    assert all(g.isfinite().all() for g in gradients)
    assert not gradients[0][u.isnan()].any()
    full = u.detach().nan_to_num(0.3).requires_grad_()
    torch.autograd.gradcheck(lambda u, dt: layer(u, dt=dt)[0], (full, dt))


def test_the_mean_is_that_of_observed_values():
    layer, u, _ = made()
    before, mask = layer.mean.clone(), torch.ones(2, 9, dtype=torch.bool)
    mask[:, 6:] = False
    u[..., 2] = math.nan
    layer.fit_mean(u, mask)
    for i in range(2):
        values = [x for x in u[:, :6, i].flatten().tolist() if x == x]
        assert_close(float(layer.mean[i]), sum(values) / len(values))
    assert layer.mean[2] == before[2]


def test_a_size_below_one_is_refused():
    with pytest.raises(ValueError, match="d_state must be at least 1; got 0"):
        GRUD(2, d_state=0)
