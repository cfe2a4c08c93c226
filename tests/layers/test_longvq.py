"""LongVQ against quadratic attention over quantised keys, and the size of its state."""

import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close
from torch.utils._pytree import tree_leaves

from longstate.layers import LongVQ


def made(**options) -> LongVQ:
    torch.manual_seed(0)
    layer = LongVQ(4, d_state=3, d_key=5, n_codes=6, window=4, **options).double()
    for p in (layer.bias, layer.shift):
        torch.nn.init.normal_(p)
    return layer


def quadratic(layer: LongVQ, u: torch.Tensor) -> torch.Tensor:
    """Every sample attends to every earlier one; the averages are explicit sums. Keys in the window
    learn as if they had not been rounded."""
    a = torch.sigmoid(layer.decay)
    v = F.silu(layer.in_proj(u))
    x = torch.stack(
        [
            sum((layer.read * a ** (t - s) * (1 - a)).sum(-1) * u[s] for s in range(t + 1))
            for t in range(len(u))
        ]
    )
    z, phi, gamma, h = layer.x_proj(x).split([5, 4, 4, 4], -1)
    q, k = (F.silu(z) * layer.scale[i] + layer.shift[i] for i in (0, 1))
    code = layer.codes[torch.cdist(k, layer.codes).argmin(-1)]
    scores, close = q @ code.T / math.sqrt(5), q @ (code + k - k.detach()).T / math.sqrt(5)
    for t in range(len(u)):
        for s in range(len(u)):
            if s > t:
                scores[t, s] = -torch.inf
            elif t - s < 4:
                scores[t, s] = close[t, s] + layer.bias[t - s]
    o = scores.softmax(-1) @ v
    phi = phi.sigmoid()
    return layer.out_proj(phi * F.silu(h + layer.mix(F.silu(gamma) * o)) + (1 - phi) * u)


def test_sums_of_codes_are_quadratic_attention_over_quantised_keys():
    layer, u = made(), torch.randn(1, 23, 4).double()
    found, expected = layer(u)[0][0], quadratic(layer, u[0])
    assert_close(found, expected)
    weights = list(layer.parameters())
    slopes = (torch.autograd.grad(y.square().sum(), weights) for y in (found, expected))
    for (name, _), slope, wanted in zip(layer.named_parameters(), *slopes, strict=True):
        assert_close(slope, wanted, msg=lambda text, name=name: f"{name}: {text}")


def test_the_state_does_not_grow_and_counts_what_left_the_window():
    layer = made()
    sizes = []
    for t in (3, 40):
        _, state = layer(torch.randn(2, t, 4).double())
        sizes.append([leaf.shape for leaf in tree_leaves(state)])
        assert state["counts"].sum(1).tolist() == [max(0, t - 3)] * 2
    assert sizes[0] == sizes[1]


def test_every_parameter_learns():
    layer = made()
    layer(torch.randn(2, 12, 4).double())[0].square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in layer.parameters())


def test_wrong_use_is_named():
    with pytest.raises(ValueError, match="window must be at least 2; got 1"):
        LongVQ(4, window=1)
    with pytest.raises(ValueError, match="LongVQ takes neither dt nor rate"):
        made()(torch.zeros(1, 2, 4).double(), rate=2.0)


def test_most_codes_are_near_a_key_at_first():
    torch.manual_seed(0)
    layer = LongVQ(36)
    _, state = layer(torch.randn(4, 200, 36))
    used = (state["counts"].sum(0) > 0).sum()
    assert used > layer.n_codes / 2
