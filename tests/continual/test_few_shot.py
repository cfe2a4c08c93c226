"""The fixed classifier, the second branch, and its losses."""

import math

import pytest
import torch
from torch.testing import assert_close

from longstate.continual import DualBranch, Simplex, branch_losses
from longstate.errors import InputError
from longstate.layers import S4D, FalconMamba, Longhorn, Mamba
from longstate.testing import check_layer


@pytest.mark.parametrize(("k", "d"), [(2, 2), (5, 9), (10, 10)])
def test_classes_are_at_equal_angles(k, d):
    w = Simplex(k, d, seed=1).double().weight
    wanted = torch.full((k, k), -1 / (k - 1)).fill_diagonal_(1.0).double()
    assert_close(w @ w.T, wanted, rtol=0, atol=4 * torch.finfo(torch.float32).eps)


def test_the_loss_is_zero_at_a_corner_of_any_length_and_else_as_written():
    head = Simplex(4, 6).double()
    y = torch.tensor([0, 1, 2, 3])
    assert_close(head.loss(3 * head.weight, y), torch.zeros(()).double(), rtol=0, atol=1e-12)
    h = torch.randn(4, 6).double()
    by_hand = [
        (math.fsum((a * b) for a, b in zip(h[i].tolist(), head.weight[i].tolist(), strict=True))
         / math.sqrt(math.fsum(a * a for a in h[i].tolist())) - 1) ** 2 / 2
        for i in range(4)
    ]  # fmt: skip
    assert float(head.loss(h, y)) == pytest.approx(sum(by_hand) / 4)
    assert not list(head.parameters())


def opened(layer: DualBranch) -> DualBranch:
    """With a gate that is not 0."""
    torch.nn.init.normal_(layer.branch.in_proj.weight)
    return layer


@pytest.mark.parametrize("kind", [Mamba, FalconMamba, Longhorn])
def test_a_new_branch_is_zero_learns_at_once_and_leaves_the_base(kind):
    torch.manual_seed(0)
    base, u = kind(6, d_state=4).double(), torch.randn(2, 7, 6).double()
    with torch.no_grad():
        wanted = base(u)[0]
    layer = DualBranch(base)
    y, _ = layer(u)
    assert torch.equal(y, wanted)
    y.square().sum().backward()
    assert bool(layer.branch.in_proj.weight.grad[layer.base.d_inner :].any())
    assert all(p.grad is None for p in layer.base.parameters())
    y, state = opened(layer)(u)
    assert_close(y, layer.base(u)[0] + layer.branch(u)[0])
    assert set(state) == {"base", "branch"}


def test_the_contract():
    check_layer(lambda: opened(DualBranch(Mamba(6, d_state=4)).requires_grad_(True)))


def test_the_losses_are_those_of_plain_loops():
    torch.manual_seed(0)
    layer = opened(DualBranch(Mamba(6, d_state=4))).double()
    old, new = torch.randn(3, 5, 6).double(), 2 * torch.randn(2, 5, 6).double()
    found = branch_losses(layer, old, new)
    suppression, novelty, separation = (float(v.detach()) for v in found)
    y = [layer.branch(u)[0].flatten().tolist() for u in (old, new)]
    sizes = [math.sqrt(math.fsum(v * v for v in part)) / len(part) for part in y]
    assert suppression == pytest.approx(sizes[0])
    assert novelty == pytest.approx(-sizes[1])
    cosines = []
    for name in ("gain", "write", "read"):
        a, b = (getattr(layer.branch.trace(u), name).mean((0, 1)).flatten() for u in (old, new))
        cosines.append(abs(float((a @ b / a.norm() / b.norm()).detach())))
    assert separation == pytest.approx(sum(cosines) / 3 / 2)
    found.separation.backward()
    assert bool(layer.branch.x_proj.weight.grad.any())


def test_wrong_use_is_one_sentence():
    with pytest.raises(InputError, match=r"needs a layer with Mamba's gate .*; got S4D"):
        DualBranch(S4D(4))
    with pytest.raises(InputError, match="n_classes must be a whole number of at least 2; got 1"):
        Simplex(1, 4)
    with pytest.raises(InputError, match="d_model must be a whole number of at least 5; got 4"):
        Simplex(5, 4)
