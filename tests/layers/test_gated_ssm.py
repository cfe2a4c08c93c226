"""GatedSSM against the equation as a loop, against Mamba's scan, and by hand."""

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import GatedSSM
from longstate.ops import diagonal_scan


def made(**options):
    torch.manual_seed(0)
    return GatedSSM(5, d_state=7, **options).double()


def wide(**options):
    """With so many entries that a step gathers those that it writes."""
    torch.manual_seed(0)
    return GatedSSM(5, d_state=32, **options).double()


def by_the_equation(layer, u, h):
    """h and y of u (t, d) with a full matrix A, one entry and one sample at a time."""
    A = torch.diag(torch.exp(-layer.log_rate.exp()))
    outputs = []
    for x in u:
        raw = layer.gate.weight @ x + layer.gate.bias
        g = layer.floor + (1 - layer.floor) / (1 + torch.exp(-raw))
        chosen = set(range(7))
        if layer.top_k is not None:
            chosen = set(sorted(range(7), key=lambda i: -raw.tolist()[i])[: layer.top_k])
        c, plain = A @ h + layer.B @ x, A @ h
        new = []
        for i in range(7):
            if i in chosen:
                new.append((1 - g[i]) * h[i] + g[i] * c[i])
            else:
                new.append((1 - layer.floor) * h[i] + layer.floor * plain[i])
        h = torch.stack(new)
        outputs.append(layer.C @ h + layer.D * x)
    return torch.stack(outputs), h


FORMS = [{}, {"floor": 0.1}, {"top_k": 2}, {"top_k": 2, "floor": 0.1}, {"top_k": 7}]


@pytest.mark.parametrize("options", FORMS)
def test_is_its_equation(options):
    layer, u, h = made(**options), torch.randn(2, 12, 5).double(), torch.randn(2, 7).double()
    y, state = layer(u, {"ssm": h[..., None]})
    for row in range(2):
        expected = by_the_equation(layer, u[row], h[row])
        assert_close((y[row], state["ssm"][row, :, 0]), expected)


def test_with_a_equal_to_zero_it_is_mamba_with_a_of_minus_one():
    """exp(-softplus(s)) = 1 - sigmoid(s), and what is written by zero-order hold is the rest."""
    layer, u = made(), torch.randn(2, 12, 5).double()
    layer.log_rate.data.fill_(4.0)  # A = exp(-54)
    step = torch.nn.functional.softplus(layer.gate(u))
    h, _ = diagonal_scan(-torch.expm1(-step) * (u @ layer.B.T), torch.exp(-step))
    assert_close(layer(u)[0], h @ layer.C.T + layer.D * u)


def test_by_hand():
    """A = g = 1/2, B = C = 1, D = 0, u = 1: h <- 3/4 h + 1/2."""
    layer = GatedSSM(1, d_state=1).double()
    with torch.no_grad():
        for p, value in zip(
            (layer.gate.weight, layer.gate.bias, layer.B, layer.C, layer.D), (0, 0, 1, 1, 0),
            strict=True,
        ):  # fmt: skip
            p.fill_(value)
        layer.log_rate.copy_(torch.tensor(2.0).double().log().log())
    y, _ = layer(torch.ones(1, 4, 1).double())
    assert_close(y[0, :, 0].tolist(), [0.5, 0.875, 1.15625, 1.3671875])
    # two samples in one, and half of one: 1 - a^dt of the limit 2
    y, _ = layer(torch.ones(1, 2, 1).double(), dt=torch.tensor([[2.0, 0.5]]).double())
    assert_close(y[0, :, 0].tolist(), [0.875, 2 - 2 * 0.75**2.5])


@pytest.mark.parametrize("top_k", [1, 8, 9, 31])
def test_a_hard_gate_writes_k_entries_and_does_not_touch_the_others(top_k):
    layer, h = wide(top_k=top_k), torch.randn(1, 32).double()
    state = {"ssm": h[..., None]}
    for _ in range(20):
        u = torch.randn(1, 5).double()
        with torch.no_grad():
            after = layer.step(u, state)[1]
        _, in_training = layer(u[:, None], state)
        same = after["ssm"] == state["ssm"]
        assert int((~same).sum()) == top_k
        assert torch.equal(same, in_training["ssm"] == state["ssm"])
        largest = layer.gate(u)[0].topk(top_k).indices
        assert not same[0, largest].any()
        state = after


def test_its_gradient_is_that_of_open_gates():
    """Of y = C h after one sample: dy/dg_i = C_i (B u - (1 - A) h)_i for every entry i."""
    layer, u, h = made(top_k=2), torch.randn(1, 1, 5).double(), torch.randn(1, 7).double()
    y, _ = layer(u, {"ssm": h[..., None]})
    (found,) = torch.autograd.grad(y.sum(), layer.gate.bias)
    raw = layer.gate(u)[0, 0]
    g = raw.sigmoid()
    opened = (layer.B @ u[0, 0]) - (1 - torch.exp(-layer.log_rate.exp())) * h[0]
    assert_close(found, layer.C.sum(0) * opened * g * (1 - g))


@pytest.mark.parametrize("options", [{"top_k": 2}, {"top_k": 2, "floor": 0.1}])
def test_a_step_without_gradients_is_the_same_step(options):
    layer, u = wide(**options), torch.randn(3, 9, 5).double()
    mask, reset = torch.rand(3, 9) < 0.7, torch.rand(3, 9) < 0.3
    dt = 3 * torch.rand(3, 9).double()
    state, whole = layer(torch.randn(3, 4, 5).double())[1], []
    expected = layer(u, state, dt=dt, mask=mask, reset=reset)
    with torch.no_grad():
        for t in range(9):
            now = {"dt": dt[:, t], "mask": mask[:, t], "reset": reset[:, t]}
            y, state = layer.step(u[:, t], state, **now)
            whole.append(y)
    assert_close((torch.stack(whole, 1), state), expected)


def test_a_step_reads_k_rows_of_b(monkeypatch):
    """The other rows do not count, whatever they hold."""
    layer, u = wide(top_k=2), torch.randn(1, 5).double()
    state = {"ssm": torch.randn(1, 32, 1).double()}
    with torch.no_grad():
        expected = layer.step(u, state)
        kept = layer.gate(u)[0].topk(2).indices
        others = [i for i in range(32) if i not in kept.tolist()]
        layer.B[others] = torch.nan
        assert_close(layer.step(u, state), expected, rtol=0, atol=0)


def test_its_trace_is_the_layer():
    layer, u = made(top_k=3, floor=0.1), torch.randn(2, 9, 5).double()
    first = layer(torch.randn(2, 4, 5).double())[1]
    y, state = layer(u, first)
    trace = layer.trace(u, first)
    unit = layer.C / layer.C.norm(dim=0)
    assert_close(trace.outputs() @ unit.T + layer.D * u, y)
    assert_close(trace.states()[:, -1], state["ssm"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, "top_k must be 1 to d_state = 7"),
        ({"top_k": 8}, "top_k must be 1 to d_state = 7"),
        ({"floor": 1.0}, "floor must be at least 0 and below 1"),
        ({"floor": -0.1}, "floor must be at least 0 and below 1"),
        ({"decay_min": 0.6}, "decay_min and decay_max must be in order"),
    ],
)
def test_refuses(options, message):
    with pytest.raises(ValueError, match=message):
        made(**options)
    with pytest.raises(ValueError, match="d_state must be at least 1"):
        GatedSSM(3, d_state=0)
