"""One step by its published name, against the equation; its state in place."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.interop.mamba_ssm.state_update import (
    selective_state_update,
    selective_state_update_ref,
)
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import randn, uniform


def by_the_equation(state, x, dt, A, B, C, D=None, z=None, dt_bias=None, softplus=True):
    """The new state, and the output, head by head."""
    h = state.shape[1]
    dt = dt if dt_bias is None else dt + dt_bias
    dt = F.softplus(dt) if softplus else dt
    new, out = [], []
    for k in range(h):
        group = k * B.shape[1] // h
        decay = torch.exp(dt[:, k, :, None] * A[k])
        state_k = decay * state[:, k] + (dt * x)[:, k, :, None] * B[:, group, None]
        y = (state_k * C[:, group, None]).sum(-1)
        y = y if D is None else y + D[k] * x[:, k]
        new.append(state_k)
        out.append(y if z is None else y * F.silu(z[:, k]))
    return torch.stack(new, 1), torch.stack(out, 1)


def inputs(b=3, h=4, p=5, n=2, groups=2, tied=False, without=()):
    tensors = {
        "x": randn(b, h, p, seed=1),
        "dt": randn(b, h, p, seed=2),
        "A": -uniform(h, p, n, low=0.1, seed=3),
        "B": randn(b, groups, n, seed=4),
        "C": randn(b, groups, n, seed=5),
        "D": randn(h, p, seed=6),
        "z": randn(b, h, p, seed=7),
        "dt_bias": randn(h, p, seed=8),
    }
    if tied:
        for name in ("dt", "dt_bias"):
            tensors[name] = tensors[name][..., :1].expand(tensors[name].shape)
        tensors["A"] = tensors["A"][:, :1, :1].expand(h, p, n)
    return {name: x for name, x in tensors.items() if name not in without}


@pytest.mark.parametrize("function", [selective_state_update, selective_state_update_ref])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("without", [(), ("D", "z", "dt_bias"), ("dt_bias",)])
def test_step_is_the_equation(function, tied, without):
    tensors, state = inputs(tied=tied, without=without), randn(3, 4, 5, 2, seed=9)
    for softplus in (False, True):
        expected_state, expected = by_the_equation(state, **tensors, softplus=softplus)
        moved = state.clone()
        out = function(moved, **tensors, dt_softplus=softplus)
        assert_close(out, expected)
        assert_close(moved, expected_state)


@pytest.mark.parametrize("function", [selective_state_update, selective_state_update_ref])
def test_the_axis_of_heads_may_be_left_out(function):
    tensors, state = inputs(h=1, groups=1), randn(3, 1, 5, 2, seed=9)
    expected_state, expected = by_the_equation(state, **tensors)
    short = {k: v[0] if k in ("A", "D", "dt_bias") else v[:, 0] for k, v in tensors.items()}
    moved = state[:, 0].clone()
    out = function(moved, **short, dt_softplus=True)
    assert_close(out, expected[:, 0])
    assert_close(moved, expected_state[:, 0])


def test_rows_are_picked_and_padding_is_skipped():
    tensors, rows = inputs(), torch.tensor([4, -1, 1], dtype=torch.int32)
    there = rows >= 0
    state = randn(6, 4, 5, 2, seed=9)
    per_row = ("x", "dt", "B", "C", "z")
    picked = {k: v[there] if k in per_row else v for k, v in tensors.items()}
    expected = state.clone()
    expected[[4, 1]], y = by_the_equation(state[[4, 1]], **picked)
    out = selective_state_update(state, **tensors, dt_softplus=True, state_batch_indices=rows)
    assert_close(out[there], y)
    assert not out[~there].any()
    assert_close(state, expected)


def test_narrow_states_are_rounded_once_and_outputs_come_from_the_unrounded():
    tensors = {k: v.float() for k, v in inputs().items()}
    tensors["x"] = tensors["x"].bfloat16()
    state = randn(3, 4, 5, 2, seed=9).bfloat16()
    exact = by_the_equation(state.double(), **{k: v.double() for k, v in tensors.items()})
    plain = by_the_equation(state.float(), **{k: v.float() for k, v in tensors.items()})
    out = selective_state_update(state, **tensors, dt_softplus=True)
    for found, value, rounded in zip((state, out), exact, plain, strict=True):
        assert_within_reference_error(found, value, rounded.bfloat16())


def test_no_graph_grows_through_the_state():
    tensors, state = inputs(), randn(3, 4, 5, 2, seed=9)
    tensors["x"].requires_grad_()
    out = selective_state_update(state, **tensors)
    assert not out.requires_grad
    assert not state.requires_grad


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("state", (3, 4, 5, 2, 1), "state must be"),
        ("state", (2, 4, 5, 2), r"state must be \(3, 4, 5, 2\); got \(2, 4, 5, 2\)"),
        ("x", (3, 4, 6), r"x must be \(3, 4, 5\)"),
        ("dt", (3, 4), "dt must be"),
        ("A", (4, 5, 3), r"A must be \(4, 5, 2\)"),
        ("B", (3, 3, 2), "B has 3 groups, which do not divide 4 heads"),
        ("C", (3, 1, 2), r"C must be \(3, 2, 2\)"),
        ("D", (4,), r"D must be \(4, 5\)"),
        ("dt_bias", (4, 4), "dt_bias must be"),
        ("state_batch_indices", (4,), r"state_batch_indices must be \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(name, shape, message):
    tensors = {"state": torch.zeros(3, 4, 5, 2)} | inputs() | {name: torch.zeros(shape)}
    with pytest.raises(InputError, match=message):
        selective_state_update(**tensors)
