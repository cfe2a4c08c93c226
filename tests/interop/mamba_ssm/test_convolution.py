"""The short convolution by its published names, against the equation tap by tap."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.errors import InputError
from longstate.interop.mamba_ssm.convolution import (
    causal_conv1d_fn,
    causal_conv1d_ref,
    causal_conv1d_update,
    causal_conv1d_update_ref,
    causal_conv1d_varlen_states,
    causal_conv1d_varlen_states_ref,
)
from tests.ops.helpers import assert_equals_reference, randn


def loop(x, weight, bias=None, initial_states=None, seq_idx=None):
    """SiLU of the sum over taps, for one row, channel and sample after the other."""
    b, d, t = x.shape
    past = weight.shape[1] - 1
    before = x.new_zeros(b, d, past) if initial_states is None else initial_states
    u = torch.cat([before, x], dim=-1)
    out = []
    for i in range(b):
        for k in range(t):
            first = k
            while seq_idx is not None and first > 0 and seq_idx[i, first - 1] == seq_idx[i, k]:
                first -= 1
            if seq_idx is not None and seq_idx[i, k] < 0:
                out.append(x.new_zeros(d))
                continue
            # the initial inputs belong to the first sequence
            reach = past if seq_idx is None or first == 0 else min(past, k - first)
            y = 0 if bias is None else bias
            for back in range(reach + 1):
                y = y + weight[:, past - back] * u[i, :, past + k - back]
            out.append(F.silu(y))
    return torch.stack(out).view(b, t, d).mT


SEQUENCES = torch.tensor([[4, 4, 4, 4, 7, 0, 0, 0, 0], [1, 2, 2, 2, -1, -1, 3, 3, -1]])


def inputs(taps=4, without=(), t=9):
    tensors = {
        "x": randn(2, 3, t, seed=1),
        "weight": randn(3, taps, seed=2),
        "bias": randn(3, seed=3),
        "initial_states": randn(2, 3, taps - 1, seed=4),
        "seq_idx": SEQUENCES.int(),
    }
    return {name: x for name, x in tensors.items() if name not in without}


def call(impl, **tensors):
    if impl == "reference":
        return (loop(**tensors),)
    function = {"fn": causal_conv1d_fn, "ref": causal_conv1d_ref}[impl]
    return (function(**tensors, activation="silu"),)


@pytest.mark.parametrize("impl", ["fn", "ref"])
@pytest.mark.parametrize("taps", [2, 4])
@pytest.mark.parametrize(
    "without", [(), ("initial_states",), ("seq_idx",), ("bias", "initial_states", "seq_idx")]
)
def test_convolution_is_the_equation_with_gradients(impl, taps, without):
    assert_equals_reference(call, impl, inputs(taps, without))


@pytest.mark.parametrize("t", [1, 2, 3, 9])
def test_final_states_continue_the_sequence(t):
    tensors = inputs(without=("seq_idx",))
    whole = causal_conv1d_fn(**tensors, activation="swish")
    first = tensors | {"x": tensors["x"][..., :t]}
    for function in (causal_conv1d_fn, causal_conv1d_ref):
        y, final = function(**first, return_final_states=True, activation="swish")
        assert_close(y, whole[..., :t])
        seen = torch.cat([tensors["initial_states"], first["x"]], dim=-1)
        assert torch.equal(final, seen[..., -3:])
    if t < 9:
        rest = tensors | {"x": tensors["x"][..., t:], "initial_states": final}
        assert_close(causal_conv1d_fn(**rest, activation="swish"), whole[..., t:])
    buffer = torch.full_like(final, torch.nan)
    _, again = causal_conv1d_fn(**first, return_final_states=True, final_states_out=buffer)
    assert again is buffer
    assert torch.equal(buffer, final)


def test_gradients_flow_through_final_states():
    tensors = inputs(without=("seq_idx",), t=2)

    def final(x, initial_states):
        return causal_conv1d_fn(
            x, tensors["weight"], initial_states=initial_states, return_final_states=True
        )[1]

    torch.autograd.gradcheck(
        final, [tensors[k].requires_grad_() for k in ("x", "initial_states")]
    )  # fmt: skip


def test_results_have_the_type_and_layout_of_the_input():
    x, weight = randn(2, 70, 5, seed=1).bfloat16().mT, randn(5, 4, seed=2).float()
    for v in (x, x.contiguous(), x[..., 3:]):
        y = causal_conv1d_fn(v, weight)
        assert y.dtype == torch.bfloat16
        assert y.stride() == torch.empty_like(v).stride()
    assert causal_conv1d_ref(x, weight).dtype == torch.bfloat16


def update_by_the_equation(samples, state, weight, bias, seen):
    """One sample after the other: write into the state, then read from it."""
    out = []
    for k in range(samples.shape[2]):
        window = []
        for i in range(len(samples)):
            if seen is None:
                state[i] = torch.cat([state[i, :, 1:], samples[i, :, k : k + 1]], dim=-1)
                window.append(state[i, :, -weight.shape[1] :])
            else:
                at = int(seen[i]) + k
                places = [(at - back) % state.shape[2] for back in range(weight.shape[1])]
                past = state[i, :, places[:0:-1]]
                state[i, :, places[0]] = samples[i, :, k]
                window.append(torch.cat([past, samples[i, :, k : k + 1]], dim=-1))
        out.append(F.silu((torch.stack(window) * weight).sum(-1) + bias))
    return torch.stack(out, dim=-1)


@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize(("places", "t"), [(4, 1), (4, 6), (5, 2), (7, 11)])
def test_update_appends_to_the_state(places, t, ring):
    samples, weight, bias = randn(3, 2, t, seed=1), randn(2, 4, seed=2), randn(2, seed=3)
    seen = torch.tensor([0, 3, 22], dtype=torch.int32) if ring else None
    start = randn(3, 2, places, seed=4)
    expected_state = start.clone()
    expected = update_by_the_equation(samples, expected_state, weight, bias, seen)
    for function in (causal_conv1d_update, causal_conv1d_update_ref):
        state = start.clone()
        y = function(samples, state, weight, bias, "silu", seen)
        assert_close(y, expected)
        assert torch.equal(state, expected_state)
    if t == 1:
        y = causal_conv1d_update(samples[..., 0], start, weight, bias, "silu", seen)
        assert_close(y, expected[..., 0])
        assert torch.equal(start, expected_state)


def test_a_state_may_hold_one_input_less_than_there_are_taps():
    samples, weight, bias = randn(3, 2, 3, seed=1), randn(2, 4, seed=2), randn(2, seed=3)
    long, short = randn(3, 2, 4, seed=4), randn(3, 2, 4, seed=4)[..., 1:].clone()
    expected = causal_conv1d_update(samples, long, weight, bias)
    assert_close(causal_conv1d_update(samples, short, weight, bias), expected)
    assert torch.equal(short, long[..., 1:])


@pytest.mark.parametrize("ring", [False, True])
def test_update_picks_rows_and_skips_padding(ring):
    samples, weight = randn(4, 2, 3, seed=1), randn(2, 3, seed=2)
    seen = torch.tensor([5, 1, 2, 9]) if ring else None
    rows = torch.tensor([6, -1, 2, -1], dtype=torch.int32)
    there = rows >= 0
    state = randn(8, 2, 5, seed=3)
    expected_state, picked = state.clone(), state[[6, 2]]
    expected = causal_conv1d_update(
        samples[there], picked, weight, None, "silu", None if seen is None else seen[there]
    )
    expected_state[[6, 2]] = picked
    y = causal_conv1d_update(samples, state, weight, None, "silu", seen, rows)
    assert torch.equal(y[there], expected)
    assert not y[~there].any()
    assert torch.equal(state, expected_state)


def test_states_of_packed_sequences():
    x, bounds = randn(12, 3, seed=1), torch.tensor([0, 2, 2, 9, 12], dtype=torch.int32)
    for function in (causal_conv1d_varlen_states, causal_conv1d_varlen_states_ref):
        states = function(x, bounds, 4)
        assert states.shape == (4, 3, 4)
        assert torch.equal(states[0], F.pad(x[:2].T, (2, 0)))
        assert not states[1].any()
        assert torch.equal(states[2], x[5:9].T)
        assert torch.equal(states[3], F.pad(x[9:].T, (1, 0)))


def test_refusals():
    tensors = inputs(without=("seq_idx",))
    with pytest.raises(NotImplementedError, match="activation must be None, 'silu' or 'swish'"):
        causal_conv1d_fn(**tensors, activation="gelu")
    with pytest.raises(InputError, match="return_final_states with seq_idx"):
        causal_conv1d_fn(**inputs(), return_final_states=True)
    for name, shape, message in (
        ("x", (2, 3), r"x must be \(batch, channels, time\)"),
        ("x", (2, 3, 0), "x has no samples"),
        ("weight", (4, 4), r"weight must be \(3, taps\)"),
        ("bias", (4,), r"bias must be \(3,\); got \(4,\)"),
        ("initial_states", (2, 3, 4), r"initial_states must be \(2, 3, 3\)"),
        ("seq_idx", (2, 8), r"seq_idx must be \(2, 9\)"),
        ("final_states_out", (2, 3, 2), "final_states_out must be"),
    ):
        bad = tensors | {name: torch.zeros(shape)}
        with pytest.raises(InputError, match=message):
            causal_conv1d_fn(**bad, return_final_states=name != "seq_idx")
    weight = tensors["weight"]
    for state, options, message in (
        (torch.zeros(2, 3, 2), {}, "conv_state must hold at least 3 samples; got 2"),
        (torch.zeros(5, 3, 4), {}, r"conv_state must be \(2, 3, 4\)"),
        (torch.zeros(2, 3, 4), {"cache_seqlens": torch.zeros(3)}, "cache_seqlens must be"),
        (torch.zeros(5, 3, 4), {"conv_state_indices": torch.zeros(3)}, "conv_state_indices must"),
    ):
        with pytest.raises(InputError, match=message):
            causal_conv1d_update(tensors["x"], state, weight, **options)
