"""Attention against its own equation, written as loops."""

import math

import pytest
import torch
from torch.testing import assert_close

from longstate.layers import Attention
from longstate.testing import check_layer


def make(**options):
    torch.manual_seed(0)
    return Attention(8, n_heads=2, **options).double()


def noise(*shape, seed=1):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def turned(x, place):
    """Each pair (i, i + p/2) as a complex number, times exp(i place 10000^(-2 i / p))."""
    half = x.shape[-1] // 2
    z = torch.complex(x[:half], x[half:])
    speed = torch.tensor([10_000 ** (-i / half) for i in range(half)], dtype=torch.float64)
    z = z * torch.polar(torch.ones_like(speed), place * speed)
    return torch.cat([z.real, z.imag])


def by_hand(layer, u):
    """One row u (t, d)."""
    t = len(u)
    h, p = layer.n_heads, layer.d_head
    q, k, v = (u @ layer.in_proj.weight.T).view(t, 3, h, p).unbind(1)
    y = torch.zeros(t, h, p, dtype=u.dtype)
    for head in range(h):
        for now in range(t):
            first = 0 if layer.window is None else max(0, now - layer.window + 1)
            places = range(first, now + 1)
            turn = turned if layer.positions == "rotary" else lambda x, place: x
            query = turn(q[now, head], now)
            scores = [query @ turn(k[s, head], s) / math.sqrt(p) for s in places]
            weights = torch.stack(scores).softmax(0)
            y[now, head] = sum(w * v[s, head] for w, s in zip(weights, places, strict=True))
    return y.flatten(1) @ layer.out_proj.weight.T


@pytest.mark.parametrize("positions", ["rotary", "none"])
@pytest.mark.parametrize("window", [None, 1, 4])
def test_is_its_equation(positions, window):
    layer, u = make(positions=positions, window=window), noise(2, 11, 8)
    with torch.no_grad():
        y, _ = layer(u)
        assert_close(y, torch.stack([by_hand(layer, row) for row in u]))


def test_a_window_keeps_the_contract_over_many_lengths_of_it():
    check_layer(lambda: Attention(4, n_heads=2, window=5), takes_dt=False, time=40)


def test_the_state_keeps_only_samples_within_the_window():
    u = noise(3, 10, 8)
    assert make()(u)[1]["k"].shape == (3, 10, 2, 4)
    assert make(window=4)(u)[1]["k"].shape == (3, 3, 2, 4)
    mask = torch.ones(3, 10, dtype=torch.bool)
    mask[0, 2:] = False
    mask[1:, 7:] = False
    state = make()(u, mask=mask)[1]
    assert state["k"].shape == (3, 7, 2, 4)
    assert state["length"].tolist() == [2, 7, 7]
    assert not state["k"][0, :5].any()
    assert state["k"][0, 5:].all()


def test_only_distances_count():
    """Samples before the window do not change the outputs."""
    layer, u = make(window=3), noise(1, 8, 8)
    _, state = layer(noise(1, 50, 8, seed=2))
    far, _ = layer(u, state)
    assert_close(far[:, 2:], layer(u)[0][:, 2:])


def test_positions_can_be_switched_off():
    u = noise(1, 7, 8)
    shuffled = torch.cat([u[:, [3, 1, 5, 0, 2, 4]], u[:, 6:]], dim=1)
    last = [make(positions="none")(x)[0][:, -1] for x in (u, shuffled)]
    assert_close(*last)
    rotary = [make()(x)[0][:, -1] for x in (u, shuffled)]
    assert not torch.allclose(*rotary)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_heads": 3}, "n_heads must divide d_model = 8; got 3"),
        ({"n_heads": 0}, "n_heads must divide"),
        ({"n_heads": 8}, "8 heads have 1 each"),
        ({"n_heads": 2, "window": 0}, "window must be at least 1 sample"),
        ({"positions": "learned"}, "positions must be 'rotary' or 'none'"),
    ],
)
def test_a_wrong_option_is_named(options, message):
    with pytest.raises(ValueError, match=message):
        Attention(8, **options)


def test_refuses_time_and_a_state_of_unequal_lengths():
    layer, u = make(), noise(1, 4, 8)
    with pytest.raises(ValueError, match="neither dt nor rate"):
        layer(u, rate=2.0)
    _, state = layer(u)
    with pytest.raises(ValueError, match="as many keys as values"):
        layer(u, {**state, "v": state["v"][:, 1:]})


def test_a_state_of_other_heads_is_named():
    layer, u = make(), noise(2, 3, 8)
    _, state = layer(u)
    wrong = {**state, "k": state["k"].repeat(1, 1, 2, 1), "v": state["v"].repeat(1, 1, 2, 1)}
    with pytest.raises(ValueError, match=r"state\['k'\] to be float64 \(2, \*, 2, 4\)"):
        layer(u, wrong)
