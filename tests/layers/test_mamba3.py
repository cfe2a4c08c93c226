"""Mamba-3 against its authors' numbers, their names, Mamba-2, and parity."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.layers import Mamba3
from longstate.layers._trapezoid import Tokens, advance, rotate, scan
from longstate.ops import chunk_scan
from tests.golden import assert_parity, golden


def make(**options):
    torch.manual_seed(0)
    return Mamba3(8, d_state=6, d_head=4, **options).double()


def zero_state(tokens):
    b, h, p = len(tokens.v), *tokens.v.shape[-2:]
    s, n = tokens.turn.shape[-1], tokens.k.shape[-1]
    shapes = {"angle": (b, h, s), "ssm": (b, h, p, n), "k": (b, h, n), "v": (b, h, p)}
    return {name: tokens.v.new_zeros(shape) for name, shape in shapes.items()}


def by_steps(tokens, D, state):
    outputs = []
    for t in range(tokens.v.shape[1]):
        y, state = advance(Tokens(*(v[:, t] for v in tokens)), D, state)
        outputs.append(y)
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("run", [lambda *a: scan(*a, None, None), by_steps])
def test_golden(run):
    data = golden("mamba3_siso")
    per_group = data["Q_bias"].shape[0] // data["Q"].shape[2]
    step = data["DT"].mT
    tokens = Tokens(
        v=data["V"],
        k=data["K"].repeat_interleave(per_group, 2) + data["K_bias"],
        q=data["Q"].repeat_interleave(per_group, 2) + data["Q_bias"],
        step=step,
        log_a=data["ADT"].mT,
        share=data["Trap"].mT.sigmoid(),
        turn=math.pi * data["Angles"].tanh() * step[..., None],
    )
    y, state = run(tokens, data["D"], zero_state(tokens))
    assert_parity(y * F.silu(data["Z"]), data["out"])
    assert_parity(state["ssm"], data["final_ssm"])
    assert_parity(state["k"], data["final_k"])
    assert_parity(state["v"], data["final_v"])
    assert_parity(state["angle"], data["final_angle"])


def random_tokens(b=2, t=150, h=2, p=3, n=6, s=2):
    torch.manual_seed(1)

    def randn(*shape):
        return torch.randn(b, t, h, *shape, dtype=torch.float64)

    step = F.softplus(randn())
    return Tokens(
        randn(p), randn(n), randn(n), step, -step, randn().sigmoid(), step[..., None] * randn(s)
    )


def test_scan_is_the_recurrence():
    tokens = random_tokens()
    D = torch.randn(2, dtype=torch.float64)
    _, state = by_steps(tokens, D, zero_state(tokens))
    state = {k: v.detach() for k, v in state.items()}
    assert_close(scan(tokens, D, state, None, None), by_steps(tokens, D, state))


def test_all_of_the_step_at_once_is_mamba2():
    """share = 1 and no rotation: the plain rule with weight step."""
    tokens = random_tokens()._replace(share=torch.ones(2, 150, 2, dtype=torch.float64))
    tokens = tokens._replace(turn=torch.zeros_like(tokens.turn))
    D = torch.randn(2, dtype=torch.float64)
    y, state = scan(tokens, D, zero_state(tokens), None, None)
    expected, last = chunk_scan(tokens.v, tokens.log_a, tokens.k, tokens.q, weight=tokens.step, D=D)
    assert_close(y, expected)
    assert_close(state["ssm"], last)


def test_rotating_k_and_q_is_rotating_the_state():
    tokens = random_tokens(t=20)
    D = torch.zeros(2, dtype=torch.float64)
    y, _ = scan(tokens, D, zero_state(tokens), None, None)
    h = torch.zeros(2, 2, 3, 6, dtype=torch.float64)
    before = torch.zeros(2, 2, 3, 6, dtype=torch.float64)
    for t in range(20):
        v, k, q, step, log_a, share, turn = (x[:, t] for x in tokens)
        h = h + ((1 - share) * step)[..., None, None] * before
        h = rotate(log_a.exp()[..., None, None] * h, -turn[..., None, :])
        before = v[..., None] * k[..., None, :]
        h = h + (share * step)[..., None, None] * before
        assert_close(y[:, t], (h * q[..., None, :]).sum(-1))


@pytest.mark.parametrize("variant", ["rational", "softplus"])
def test_a_layer_is_the_equations_head_by_head(variant):
    layer = make(n_groups=2, variant=variant)  # four heads, two to a group
    for p in layer.parameters():
        nn.init.normal_(p)
    u = torch.randn(1, 7, 8, dtype=torch.float64)
    sizes = [16, 16, 12, 12, 4, 4, 4, layer.n_angles]
    z, x, B, C, dt, a, trap, angle = (u[0] @ layer.in_proj.weight.T).split(sizes, dim=1)
    outputs = []
    for head in range(4):
        own, group = slice(4 * head, 4 * head + 4), slice(6 * (head // 2), 6 * (head // 2) + 6)
        state = before = torch.zeros(4, 6, dtype=torch.float64)
        for t in range(7):
            step = F.softplus(dt[t, head] + layer.dt_bias[head])
            rate = F.softplus(a[t, head])
            if variant == "rational":
                rate = a[t, head] + 1 if a[t, head] > 0 else 1 / (1 - a[t, head])
            share, turn = trap[t, head].sigmoid(), math.pi * angle[t].tanh() * step
            k, q = (
                v[t, group] / (v[t, group].square().mean() + norm.eps).sqrt() * norm.weight + bias
                for v, norm, bias in (
                    (B, layer.B_norm, layer.B_bias[head, 0]),
                    (C, layer.C_norm, layer.C_bias[head, 0]),
                )
            )
            state = rotate((-rate * step).exp() * (state + (1 - share) * step * before), -turn)
            before = torch.outer(x[t, own], k)
            state = state + share * step * before
            y = state @ q + layer.D[head] * x[t, own]
            outputs.append(y * F.silu(z[t, own]))
    y = torch.stack(outputs).view(4, 7, 4).transpose(0, 1).flatten(1)
    assert_close(layer(u)[0][0], y @ layer.out_proj.weight.T)


def test_a_half_turn_computes_parity():
    """One pair of columns, turned by pi for a 1 and not at all for a 0, changes sign with it."""
    bits = torch.randint(0, 2, (1, 200), generator=torch.Generator().manual_seed(0))
    ones = torch.ones(1, 200, 1, dtype=torch.float64)
    first = torch.zeros_like(ones)
    first[:, 0] = 1
    east = torch.stack([ones, 0 * ones], -1)
    turn = (math.pi * bits)[..., None, None].double()
    turn[:, 0] = 0
    tokens = Tokens(first[..., None], east, east, ones, 0 * ones, ones, turn)
    y, _ = scan(tokens, torch.zeros(1, dtype=torch.float64), zero_state(tokens), None, None)
    parity = bits[0, 1:].cumsum(0) % 2
    assert_close(y[0, 1:, 0, 0], 1.0 - 2.0 * parity.double())


def test_angles_stay_accurate_after_many_steps():
    """In float32, after so many turns that a plain sum would have lost every digit."""
    t = 4000
    one = torch.ones(1, t, 1)
    zero = torch.zeros(1, t, 1, 2)
    turn = torch.full((1, t, 1, 1), 3.0)
    tokens = Tokens(zero[..., :1], zero, zero, one, one, one, turn)
    start = zero_state(Tokens(*(v[:, :1] for v in tokens)))
    _, state = scan(tokens, torch.zeros(1), start, None, None)
    wrapped = torch.tensor(3.0 * t, dtype=torch.float64).remainder(2 * math.pi)
    assert_close(state["angle"].flatten()[0], wrapped.float())


def test_a_reset_after_the_last_sample_clears_the_pending_part():
    """Row 0 ends in a masked reset, row 1 has no sample at all, row 2 neither sample nor reset."""
    layer = make()
    u = torch.randn(3, 12, 8, dtype=torch.float64)
    _, first = layer(torch.randn(3, 5, 8, dtype=torch.float64))
    mask = torch.zeros(3, 12, dtype=torch.bool)
    mask[0, :6] = True
    reset = torch.zeros(3, 12, dtype=torch.bool)
    reset[0, 8] = reset[1, 4] = True
    _, state = layer(u, first, mask=mask, reset=reset)
    for v in state.values():
        assert not v[:2].any()
    assert_close({k: v[2] for k, v in state.items()}, {k: v[2] for k, v in first.items()})


def test_the_two_activations_differ_as_expected():
    rational, softplus = make(), make(variant="softplus")
    a = torch.tensor([-1e6, -1.0, 0.0, 2.0], dtype=torch.float64)
    assert_close(rational._rate(a), a.new_tensor([1e-4, 0.5, 1.0, 3.0]))
    assert_close(softplus._rate(a)[1:], F.softplus(a)[1:])
    assert softplus._rate(a)[0] == 1e-4
    softplus.load_state_dict(rational.state_dict())
    u = torch.randn(1, 10, 8, dtype=torch.float64)
    assert (rational(u)[0] - softplus(u)[0]).abs().max() > 1e-3


def test_names_and_shapes_are_the_authors():
    layer = Mamba3(768)
    assert {k: tuple(v.shape) for k, v in layer.state_dict().items()} == {
        "dt_bias": (24,),
        "B_bias": (24, 1, 128),
        "C_bias": (24, 1, 128),
        "D": (24,),
        "in_proj.weight": (2 * 1536 + 2 * 128 + 3 * 24 + 32, 768),
        "B_norm.weight": (128,),
        "C_norm.weight": (128,),
        "out_proj.weight": (768, 1536),
    }
    assert torch.equal(layer.B_bias, torch.ones(24, 1, 128))
    assert torch.equal(layer.C_bias, layer.B_bias)
    assert Mamba3(64, rope_fraction=1.0).n_angles == 64


def test_projections_come_in_the_authors_order():
    """Set z, x, B, C, dt, a, trap, angle to zero, one after another."""
    layer = make()
    sizes = [16, 16, 6, 6, 4, 4, 4, 1]
    assert layer.in_proj.out_features == sum(sizes)
    u = torch.randn(1, 9, 8, dtype=torch.float64)
    rows = dict(
        zip(
            ["z", "x", "B", "C", "dt", "a", "trap", "angle"],
            torch.arange(57).split(sizes),
            strict=True,
        )
    )

    def tokens_without(name):
        silent = make()
        with torch.no_grad():
            silent.in_proj.weight[rows[name]] = 0
        return silent._project(u, None)

    z, tokens = tokens_without("z")
    assert not z.any()
    assert not tokens_without("x")[1].v.any()
    assert_close(tokens_without("B")[1].k, torch.ones_like(tokens.k))
    assert_close(tokens_without("C")[1].q, torch.ones_like(tokens.q))
    assert_close(tokens_without("dt")[1].step, F.softplus(layer.dt_bias).expand(1, 9, 4))
    _, still = tokens_without("a")
    assert_close(still.log_a, -still.step)  # f(0) = 1
    assert_close(tokens_without("trap")[1].share, torch.full((1, 9, 4), 0.5).double())
    assert not tokens_without("angle")[1].turn.any()


def test_projections_are_called():
    class Scaled(nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, u):
            return 2 * self.inner(u)

    layer, u = make(), torch.randn(2, 7, 8, dtype=torch.float64)
    plain, _ = layer(u)
    layer.out_proj = Scaled(layer.out_proj)
    assert_close(layer(u)[0], 2 * plain)
    layer.in_proj = Scaled(layer.in_proj)
    layer(u)


def test_refusals():
    with pytest.raises(ValueError, match="variant must be"):
        Mamba3(8, d_head=4, variant="relu")
    with pytest.raises(ValueError, match="rope_fraction must rotate"):
        Mamba3(8, d_head=4, rope_fraction=0.0)
    with pytest.raises(ValueError, match="d_head must divide"):
        Mamba3(8, d_head=5)
