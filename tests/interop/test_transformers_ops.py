"""Each function against that of `transformers`, for the arguments that models pass."""

import pytest
import torch

from longstate.interop import _transformers_ops as ops
from longstate.interop import accelerate_transformers
from longstate.testing import assert_within_reference_error
from tests.interop.families import assert_same, modeling

mamba, mamba2 = modeling("mamba"), modeling("mamba2")
TYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])


def randn(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


def conv(t=37, d=6, k=4, b=2):
    # as a model passes it: a part of a projection, channels next to each other in memory
    x = randn(b, t, 2 * d).transpose(1, 2)[:, :d]
    return {"hidden_states": x, "weight": randn(d, k), "bias": randn(d), "activation": "silu"}


def scan(t=37, d=6, n=5, b=2):
    gate = randn(b, t, 2 * d).transpose(1, 2)[:, d:]
    return {
        "hidden_states": randn(b, d, t), "dt": randn(b, d, t, seed=1), "A": -randn(d, n).exp(),
        "B": randn(b, t, n).transpose(1, 2), "C": randn(b, t, n, seed=1).transpose(1, 2),
        "D": randn(d), "z": gate, "delta_bias": randn(d, seed=1), "delta_softplus": True,
    }  # fmt: skip


def chunks(t=37, h=4, p=3, n=5, g=2, b=2):
    return {
        "hidden_states": randn(b, t, h, p), "dt": randn(b, t, h), "A": -randn(h).exp(),
        "B": randn(b, t, g, n), "C": randn(b, t, g, n, seed=1), "chunk_size": 8, "D": randn(h),
        "dt_bias": randn(h, seed=1), "dt_softplus": True,
    }  # fmt: skip


CASES = {
    "conv": (ops.causal_conv1d_fn, mamba.causal_conv1d_fn, conv()),
    "conv, one sample": (ops.causal_conv1d_fn, mamba.causal_conv1d_fn, conv(t=1)),
    "conv, fewer than taps": (ops.causal_conv1d_fn, mamba.causal_conv1d_fn, conv(t=3)),
    "conv, no bias": (ops.causal_conv1d_fn, mamba.causal_conv1d_fn, conv() | {"bias": None}),
    "conv, linear": (ops.causal_conv1d_fn, mamba.causal_conv1d_fn, conv() | {"activation": None}),
    "conv, swish": (ops.causal_conv1d_fn, mamba.causal_conv1d_fn, conv() | {"activation": "swish"}),
    "scan": (ops.selective_scan_fn, mamba.mamba_selective_scan, scan()),
    "scan, one sample": (ops.selective_scan_fn, mamba.mamba_selective_scan, scan(t=1)),
    "scan, several tiles": (ops.selective_scan_fn, mamba.mamba_selective_scan, scan(t=130, d=70)),
    "scan, bare": (
        ops.selective_scan_fn, mamba.mamba_selective_scan,
        scan() | {"D": None, "z": None, "delta_bias": None},
    ),
    "chunks": (ops.chunk_scan_fn, mamba2.mamba2_chunk_scan, chunks()),
    "chunks, one sample": (ops.chunk_scan_fn, mamba2.mamba2_chunk_scan, chunks(t=1)),
    "chunks, several": (ops.chunk_scan_fn, mamba2.mamba2_chunk_scan, chunks(t=130, g=1)),
    "chunks, limited steps": (
        ops.chunk_scan_fn, mamba2.mamba2_chunk_scan, chunks() | {"dt_limit": (0.3, 0.9)},
    ),
    "chunks, going on": (
        ops.chunk_scan_fn, mamba2.mamba2_chunk_scan,
        chunks() | {"initial_states": randn(2, 4, 3, 5)},
    ),
}  # fmt: skip
STAYS_WIDE = ("A", "delta_bias", "initial_states")


def run(function, arguments, dtype):
    """Outputs, last states and gradients of all tensors, by name."""
    given = {
        k: v.to(dtype if k not in STAYS_WIDE or dtype == torch.float64 else torch.float32)
        .detach().requires_grad_()
        if isinstance(v, torch.Tensor)
        else v
        for k, v in arguments.items()
    }  # fmt: skip
    asked = {"delta_softplus": "return_last_state", "dt_softplus": "return_final_states"}
    out = function(**given, **{last: True for has, last in asked.items() if has in given})
    outputs = out if isinstance(out, tuple) else (out,)
    leaves = {k: v for k, v in given.items() if isinstance(v, torch.Tensor)}
    weights = [randn(*x.shape, seed=3).bfloat16().to(x.dtype) for x in outputs]
    grads = torch.autograd.grad(outputs, list(leaves.values()), weights)
    named = {f"output {i}": x.detach() for i, x in enumerate(outputs)}
    return named | {f"gradient of {k}": g for k, g in zip(leaves, grads, strict=True)}


@pytest.mark.parametrize("case", CASES)
def test_float32(case):
    ours, original, arguments = CASES[case]
    expected = run(original, arguments, torch.float32)
    assert_same(run(ours, arguments, torch.float32), expected)


@pytest.mark.parametrize("case", ["conv", "scan", "chunks", "chunks, limited steps"])
def test_bfloat16_is_more_precise_than_the_original(case):
    """Every output and every gradient, and not only within twice the error."""
    ours, original, arguments = CASES[case]
    arguments = {
        k: v.bfloat16().float() if isinstance(v, torch.Tensor) else v for k, v in arguments.items()
    }
    exact = run(ours, arguments, torch.float64)
    plain = run(original, arguments, torch.bfloat16)
    for key, actual in run(ours, arguments, torch.bfloat16).items():
        error, reference_error = (
            torch.linalg.vector_norm(x[key].double() - exact[key]) for x in ({key: actual}, plain)
        )
        assert error <= reference_error, key


def test_a_scan_begins_with_the_states_it_is_given():
    """In a model with heads the first scan with the first head's."""
    arguments = scan(t=9)
    states = randn(2, 3, 6, 5)
    with ops.beginning_with(states):
        several = [ops.selective_scan_fn(**arguments) for _ in range(3)]
    for head, y in enumerate(several):
        with ops.beginning_with(states[:, head]):
            assert torch.equal(ops.selective_scan_fn(**arguments), y)
    assert not torch.equal(several[0], several[1])
    again = ops.selective_scan_fn(**arguments)
    assert torch.equal(again, ops.selective_scan_fn(**arguments))
    assert not torch.equal(again, several[0])


def expanded(h=4, p=3, n=5, g=2, b=2):
    """The arguments of a Mamba-2 mixer for one token."""
    return {
        "state": randn(b, h, p, n), "hidden_states": randn(b, h, p),
        "dt": randn(b, 1, h).transpose(1, 2).expand(-1, -1, p),
        "A": (-randn(h).exp())[:, None, None].expand(-1, p, n), "B": randn(b, g, n),
        "C": randn(b, g, n, seed=1), "D": randn(h)[:, None].expand(-1, p),
        "dt_bias": randn(h, seed=1)[:, None].expand(-1, p), "dt_softplus": True,
    }  # fmt: skip


def single(d=6, n=5, b=2):
    return {
        "state": randn(b, 2, d, n)[:, 1], "hidden_states": randn(b, d), "dt": randn(b, d, seed=1),
        "A": -randn(d, n).exp(), "B": randn(b, n), "C": randn(b, n, seed=1), "D": randn(d),
        "dt_bias": randn(d, seed=1), "dt_softplus": True, "z": randn(b, d, seed=2),
    }  # fmt: skip


STEPS = {
    "Mamba": (mamba.mamba_selective_state_update, single()),
    "Mamba, bare": (
        mamba.mamba_selective_state_update,
        single() | {"D": None, "z": None, "dt_bias": None, "dt_softplus": False},
    ),
    "Mamba-2": (mamba2.mamba2_selective_state_update, expanded()),
    "Mamba-2, one group": (mamba2.mamba2_selective_state_update, expanded(g=1)),
    "Mamba-2, gated": (
        mamba2.mamba2_selective_state_update, expanded() | {"z": randn(2, 4, 3, seed=4)},
    ),
    "Mamba-2, bare": (
        mamba2.mamba2_selective_state_update,
        expanded() | {"D": None, "dt_bias": None, "dt_softplus": False},
    ),
}  # fmt: skip


def convert(x, dtype):
    """As `to`, but keeps expanded tensors expanded."""
    once = x
    for axis in range(x.dim()):
        once = once.narrow(axis, 0, 1) if x.stride(axis) == 0 else once
    return once.to(dtype).expand(x.shape)


def step(function, arguments, dtype):
    """The output and the new state, which stays in float32."""
    wide = torch.promote_types(dtype, torch.float32)
    given = {
        k: convert(v, wide if k in ("state", "A") else dtype) if isinstance(v, torch.Tensor) else v
        for k, v in arguments.items()
    }
    given["state"] = given["state"].clone()
    y = function(**given)
    return {"y": y, "state": given["state"]}


@TYPES
@pytest.mark.parametrize("case", STEPS)
def test_state_update(case, dtype):
    original, arguments = STEPS[case]
    actual, plain = (step(f, arguments, dtype) for f in (ops.selective_state_update, original))
    if dtype == torch.float32:
        assert_same(actual, plain)
        return
    rounded = {
        k: convert(v, dtype) if isinstance(v, torch.Tensor) and k not in ("state", "A") else v
        for k, v in arguments.items()
    }
    exact = step(ops.selective_state_update, rounded, torch.float64)
    for key, x in exact.items():
        assert_within_reference_error(actual[key], x, plain[key])


@TYPES
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("activation", ["silu", None])
def test_conv_update(dtype, bias, activation):
    x, state, weight = randn(2, 6, 1), randn(2, 6, 4), randn(6, 4)
    given = [v.to(dtype) for v in (x, state, weight)] + [randn(6).to(dtype) if bias else None]

    def update(function, wide=dtype):
        x, state, weight, bias = (None if v is None else v.to(wide) for v in given)
        state = state.clone()
        return function(x, state, weight, bias, activation), state

    ours, plain = update(ops.causal_conv1d_update), update(mamba.causal_conv1d_update)
    assert torch.equal(ours[1], plain[1])
    exact = update(ops.causal_conv1d_update, torch.float64)
    assert_within_reference_error(ours[0], exact[0], plain[0])


def taking():
    return {"hidden_states": randn(2, 6, 1), "conv_state": randn(2, 6, 4), "weight": randn(6, 4)}


@pytest.mark.parametrize(
    ("function", "arguments", "other"),
    [
        (ops.causal_conv1d_fn, conv(), {"activation": "gelu"}),
        (ops.causal_conv1d_fn, conv(), {"seq_idx": torch.zeros(2, 37, dtype=torch.int32)}),
        (ops.causal_conv1d_fn, conv(), {"cu_seqlens": torch.tensor([0, 37])}),
        (ops.selective_scan_fn, scan(), {"seq_idx": torch.zeros(2, 37, dtype=torch.int32)}),
        (ops.chunk_scan_fn, chunks(), {"seq_idx": torch.zeros(2, 37, dtype=torch.int32)}),
        (ops.chunk_scan_fn, chunks(), {"z": randn(2, 37, 4, 3)}),
        (ops.causal_conv1d_update, taking(), {"activation": "gelu"}),
        (ops.causal_conv1d_update, taking(), {"weight": randn(6, 4).requires_grad_()}),
        (ops.selective_state_update, single(), {"hidden_states": randn(2, 6).requires_grad_()}),
        (ops.selective_state_update, expanded(), {"A": -randn(4, 3, 5).exp()}),
        (ops.selective_state_update, expanded(), {"dt": randn(2, 4, 3)}),
    ],
)
def test_unsupported_calls_use_the_original(function, arguments, other):
    assert function(**arguments | other) is NotImplemented
    assert function(**arguments) is not NotImplemented


def test_packed_sequences_are_refused_as_before():
    reset = {"seq_idx": torch.zeros(2, 37, dtype=torch.int32)}
    with accelerate_transformers(), pytest.raises(ValueError, match="packed sequences"):
        mamba2.mamba2_chunk_scan(**chunks(), **reset)


def test_autocast_does_not_reach_inside():
    """Where it would narrow decays and states."""
    with accelerate_transformers():
        expected = mamba2.mamba2_chunk_scan(**chunks(t=130))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(mamba2.mamba2_chunk_scan(**chunks(t=130)), expected)
