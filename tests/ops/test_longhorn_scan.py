"""longhorn_scan: conditions of a minimiser, every form against the reference, the authors' data."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.ops import longhorn_scan
from tests.golden import assert_parity, golden
from tests.ops.helpers import (
    randn,
    results,
    uniform,
)

OPTIONAL = ("D", "z", "h0", "beta_bias", "mask", "reset")
UPDATES = ("diagonal", "exact")


def diagonal(impl, x, beta, k, q, **options):
    return longhorn_scan(x, beta, k, q, **options, beta_sigmoid=True, impl=impl)


def exact(impl, x, beta, k, q, **options):
    return longhorn_scan(x, beta, k, q, **options, beta_sigmoid=True, update="exact", impl=impl)


def plain_weight(impl, x, beta, k, q, **options):
    return longhorn_scan(x, beta.abs(), k, q, **options, update="exact", impl=impl)


both = pytest.mark.parametrize("call", [diagonal, exact])
implementations = pytest.mark.parametrize("impl", ["reference", "cpu"])


def inputs(b=2, t=9, d=5, n=3, without=()):
    tensors = {
        "x": randn(b, t, d, seed=1),
        "beta": randn(b, t, d, seed=2),
        "k": randn(b, t, n, seed=3),
        "q": randn(b, t, n, seed=4),
        "D": randn(d, seed=5),
        "z": randn(b, t, d, seed=6),
        "h0": randn(b, d, n, seed=7),
        "beta_bias": randn(d, seed=8),
        "mask": uniform(b, t, seed=9) < 0.7,
        "reset": uniform(b, t, seed=10) < 0.1,
    }
    return {name: None if name in without else x for name, x in tensors.items()}


def one_step(update, impl, x, beta, k, h0):
    """New states (b, d, n) after one step from `h0`."""
    _, last = longhorn_scan(
        x[:, None], beta[:, None], k[:, None], torch.zeros_like(k)[:, None], h0=h0,
        update=update, impl=impl,
    )  # fmt: skip
    return last


# The equations


@implementations
def test_hand_numbers(impl):
    x, beta = torch.tensor([[3.0]]), torch.tensor([[0.5]])
    k, h0 = torch.tensor([[1.0, 2.0]]), torch.tensor([[[1.0, -1.0]]])
    # e = .5 / (1 + .5 * 5) = 1/7; the residual is 3 - (1 - 2) = 4
    exactly = one_step("exact", impl, x, beta, k, h0)
    assert_close(exactly, torch.tensor([[[1 + 4 / 7, -1 + 8 / 7]]]))
    assert_close(3 - (exactly * k).sum(), torch.tensor(4 / 3.5))
    roughly = one_step("diagonal", impl, x, beta, k, h0)
    assert_close(roughly, torch.tensor([[[6 / 7 + 3 / 7, -3 / 7 + 6 / 7]]]))


@implementations
def test_exact_update_minimises_the_objective(impl):
    x, beta, k, h0 = randn(4, 6, seed=1), uniform(4, 6, seed=2), randn(4, 5, seed=3), randn(4, 6, 5)
    state = one_step("exact", impl, x, beta, k, h0).requires_grad_()
    miss = (state * k[:, None]).sum(-1) - x
    objective = (state - h0).square().sum() + (beta * miss.square()).sum()
    (slope,) = torch.autograd.grad(objective, state)
    assert_close(slope, torch.zeros_like(slope))


@implementations
@pytest.mark.parametrize("case", ["one-hot key", "one state", "empty state"])
def test_where_the_two_updates_agree(impl, case):
    n = 1 if case == "one state" else 5
    x, beta, k, h0 = randn(4, 6, seed=1), uniform(4, 6, seed=2), randn(4, n, seed=3), randn(4, 6, n)
    if case == "one-hot key":
        k = k * F.one_hot(torch.arange(4), 5)
    if case == "empty state":
        h0 = torch.zeros_like(h0)
    found = [one_step(update, impl, x, beta, k, h0) for update in UPDATES]
    assert_close(*found)


def test_where_they_differ_the_diagonal_update_may_be_worse_than_none():
    x, beta, k, h0 = randn(500, 1, seed=1), uniform(500, 1), randn(500, 8, seed=3), randn(500, 1, 8)

    def objective(state):
        miss = (state * k[:, None]).sum(-1) - x
        return (state - h0).square().sum((1, 2)) + (beta * miss.square()).sum(1)

    nothing = objective(h0)
    exactly, roughly = (objective(one_step(u, "cpu", x, beta, k, h0)) for u in UPDATES[::-1])
    assert (exactly <= nothing).all()
    worse = (roughly > nothing).double().mean()
    assert 0.1 < worse < 0.6


@implementations
@pytest.mark.parametrize("update", UPDATES)
def test_large_keys_are_stable(impl, update):
    k = randn(2, 200, 4) * 10 ** uniform(2, 200, 1, low=-4.0, high=4.0)
    x = torch.zeros(2, 200, 3, dtype=torch.float64)
    beta = uniform(2, 200, 3, high=10.0, seed=2)
    h0 = randn(2, 3, 4, seed=3)
    _, last = longhorn_scan(x, beta, k, k, h0=h0, update=update, impl=impl)
    assert (last.norm(dim=-1) <= h0.norm(dim=-1)).all()


# What mask, reset and state promise


@both
@implementations
def test_a_masked_step_has_no_effect(call, impl):
    tensors = inputs(b=1, t=70, without=("reset",))
    mask = tensors["mask"][0]
    over_time = ("x", "beta", "k", "q", "z")
    for name in over_time:
        tensors[name][:, ~mask] = float("nan")
    y, last = call(impl, **tensors)
    kept = {n: tensors[n][:, mask] for n in over_time} | {"mask": None}
    expected, expected_last = call(impl, **tensors | kept)
    assert_close(y[:, mask], expected)
    assert_close(last, expected_last)
    assert not y[:, ~mask].any()


@both
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_masked_step_leaves_the_state_bit_for_bit(call, dtype):
    tensors = {n: x if x is None or x.dtype == torch.bool else x.to(dtype)
               for n, x in inputs(t=40, without=("reset",)).items()}  # fmt: skip
    _, last = call("cpu", **tensors | {"mask": torch.zeros(2, 40, dtype=torch.bool)})
    assert torch.equal(last, tensors["h0"])


@both
@implementations
def test_gradients_at_masked_steps_are_zero(call, impl):
    tensors = inputs(t=40)
    for name in ("x", "beta", "k", "q", "z"):
        tensors[name][~tensors["mask"]] = float("nan")
    found = results(call, impl, tensors)
    for name in ("x", "beta", "k", "q", "z"):
        assert not found[f"gradient of {name}"][~tensors["mask"]].any()
    assert all(torch.isfinite(x).all() for x in found.values())


@both
@implementations
@pytest.mark.parametrize("where", [0, 4, 32, 39])
def test_reset_starts_a_new_sequence(call, impl, where):
    tensors = inputs(b=1, t=40, without=("mask",))
    tensors["x"][:, :where] = float("inf")
    reset = torch.zeros(1, 40, dtype=torch.bool)
    reset[0, where] = True
    whole, last = call(impl, **tensors | {"reset": reset})
    tail = {n: tensors[n][:, where:] for n in ("x", "beta", "k", "q", "z")}
    expected, expected_last = call(impl, **tensors | tail | {"h0": None, "reset": None})
    assert_close(whole[:, where:], expected)
    assert_close(last, expected_last)


@both
def test_chunks_and_their_gradients_equal_the_whole(call):
    def in_three(impl, **tensors):
        outputs, state = [], tensors["h0"]
        for lo, hi in ((0, 1), (1, 37), (37, 70)):
            over_time = ("x", "beta", "k", "q", "z", "mask", "reset")
            piece = {n: tensors[n][:, lo:hi] for n in over_time}
            y, state = call(impl, **tensors | piece | {"h0": state})
            outputs.append(y)
        return torch.cat(outputs, dim=1), state

    tensors = inputs(t=70)
    expected, found = results(call, "cpu", tensors), results(in_three, "cpu", tensors)
    for name, value in expected.items():
        assert_close(found[name], value)


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3)}, "x must be"),
        ({"x": torch.zeros(2, 0, 5)}, "no time steps"),
        ({"beta": torch.zeros(2, 9, 1)}, "beta must be"),
        ({"k": torch.zeros(2, 8, 3)}, "k must be"),
        ({"q": torch.zeros(2, 9, 4)}, "q must be"),
        ({"z": torch.zeros(2, 8, 5)}, "z must be"),
        ({"D": torch.zeros(4)}, "D must be"),
        ({"h0": torch.zeros(2, 3, 5)}, "h0 must be"),
        ({"update": "full"}, "update must be"),
        ({"mask": torch.zeros(2, 9)}, "mask must be"),
        ({"reset": torch.zeros(9, dtype=torch.bool)}, "reset must be"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        diagonal("cpu", **inputs() | change)


# The authors' own numbers


def by_time(x):
    return x.movedim(-1, 1)


@implementations
def test_parity_with_longhorns_own_scan(impl):
    data = golden("longhorn_scan")
    names = ("u", "t", "k", "q", "D", "z", "t_bias")
    leaves = {n: data[n].requires_grad_() for n in names}
    y, _ = diagonal(
        impl, *(by_time(leaves[n]) for n in ("u", "t", "k", "q")),
        D=leaves["D"], z=by_time(leaves["z"]), beta_bias=leaves["t_bias"],
    )  # fmt: skip
    assert_parity(y, by_time(data["out"]))
    grads = torch.autograd.grad(y, list(leaves.values()), by_time(data["cotangent"]))
    for name, grad in zip(names, grads, strict=True):
        assert_parity(grad, data[f"grad_{name}"])
