"""short_conv: the reference against hand numbers and Conv1d, the others against the reference."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from longstate.ops import short_conv
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import (
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_same_where_finite,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    assert_within_budget,
    randn,
    results,
    run_python,
    strided,
    uniform,
)

LENGTHS = (1, 2, 31, 63, 300)


def call(impl, x, weight, bias=None, taps=None, activation="silu", mask=None, reset=None):
    return short_conv(
        x, weight, bias, taps, activation=activation, mask=mask, reset=reset, impl=impl
    )


def inputs(b=2, t=9, d=5, k=4, bias=True, taps=True, mask=False, reset=False):
    return {
        "x": randn(b, t, d, seed=1),
        "weight": randn(d, k, seed=2),
        "bias": randn(d, seed=3) if bias else None,
        "taps": randn(b, k - 1, d, seed=4) if taps else None,
        "mask": uniform(b, t, seed=5) < 0.7 if mask else None,
        "reset": uniform(b, t, seed=6) < 0.2 if reset else None,
    }


def without_activation(impl, **tensors):
    return call(impl, **tensors, activation=None)


# The reference


def test_hand_numbers():
    x = torch.tensor([[[1.0], [2.0], [3.0]]])
    weight = torch.tensor([[10.0, 1.0]])
    y, taps = short_conv(x, weight, torch.tensor([0.5]), impl="reference")
    assert y.flatten().tolist() == [1.5, 12.5, 23.5]
    assert taps.tolist() == [[[3.0]]]


def test_equals_a_padded_convolution():
    tensors = inputs(t=20, taps=False)
    x, weight, bias = tensors["x"], tensors["weight"], tensors["bias"]
    padded = F.pad(x.transpose(1, 2), (3, 0))
    expected = F.silu(F.conv1d(padded, weight[:, None], bias, groups=5)).transpose(1, 2)
    for impl in ("reference", "cpu"):
        assert_close(call(impl, **tensors)[0], expected)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_a_masked_sample_has_no_effect(impl):
    tensors = inputs(b=1, t=20)
    mask = uniform(1, 20, seed=8) < 0.6
    tensors["x"][~mask] = float("nan")
    y, taps = call(impl, **tensors | {"mask": mask})
    kept = tensors | {"x": tensors["x"][:, mask[0]]}
    expected, expected_taps = call(impl, **kept)
    assert torch.equal(y[:, mask[0]], expected)
    assert torch.equal(taps, expected_taps)
    assert not y[:, ~mask[0]].any()


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_reset_starts_a_new_sequence(impl):
    tensors = inputs(b=1, t=10)
    reset = torch.zeros(1, 10, dtype=torch.bool)
    reset[0, 4] = True
    whole, taps = call(impl, **tensors | {"reset": reset})
    tail, tail_taps = call(impl, **tensors | {"x": tensors["x"][:, 4:], "taps": None})
    assert torch.equal(whole[:, 4:], tail)
    assert torch.equal(taps, tail_taps)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_chunks_are_the_whole(impl):
    tensors = inputs(t=12, mask=True, reset=True)
    y, taps = call(impl, **tensors)
    parts, state, start = [], tensors["taps"], 0
    for size in (1, 2, 1, 5, 3):
        piece = {name: tensors[name][:, start : start + size] for name in ("x", "mask", "reset")}
        part, state = call(impl, **tensors | piece | {"taps": state})
        parts.append(part)
        start += size
    assert torch.equal(torch.cat(parts, dim=1), y)
    assert torch.equal(state, taps)


@pytest.mark.parametrize("impl", ["reference", "cpu"])
def test_gradients_at_masked_samples_are_zero(impl):
    tensors = inputs(t=20, mask=True)
    tensors["x"][~tensors["mask"]] = float("nan")
    found = results(call, impl, tensors)
    assert not found["gradient of x"][~tensors["mask"]].any()
    assert all(torch.isfinite(x).all() for x in found.values())


# Every implementation


@pytest.mark.parametrize("t", LENGTHS)
def test_cpu_equals_reference(t):
    assert_equals_reference(call, "cpu", inputs(t=t, mask=True, reset=True))


@pytest.mark.parametrize("k", [1, 2, 3, 5, 9])
def test_cpu_with_any_number_of_taps(k):
    tensors = inputs(t=12, k=k, mask=True, reset=True)
    tensors = {name: x for name, x in tensors.items() if x is None or x.numel()}
    assert_equals_reference(call, "cpu", tensors)


@pytest.mark.parametrize("missing", ["bias", "taps", "mask", "reset"])
def test_cpu_without(missing):
    tensors = inputs(t=12, mask=True, reset=True)
    assert_equals_reference(without_activation, "cpu", tensors | {missing: None})


@pytest.mark.parametrize("d", [1, 511, 513, 700])
def test_cpu_at_the_edges_of_a_block(d):
    assert_equals_reference(call, "cpu", inputs(b=3, t=4, d=d))


def test_cpu_takes_any_strides():
    tensors = {name: strided(x) for name, x in inputs(t=12, mask=True, reset=True).items()}
    assert_equals_reference(call, "cpu", tensors)


def test_cpu_reads_half_of_a_projection_in_place():
    both = randn(2, 12, 10)
    for half in both.chunk(2, dim=-1):
        assert not half.is_contiguous()
        assert_equals_reference(call, "cpu", inputs(t=12) | {"x": half})


def test_gradient_of_the_taps_alone():
    tensors = inputs(t=2)
    tensors = {name: tensors[name] for name in ("x", "taps")} | {
        "weight": tensors["weight"].requires_grad_(False)
    }

    def taps_only(impl, x, taps, weight):
        return (call(impl, x, weight.detach(), None, taps)[1] + 0 * weight.sum(),)

    assert_equals_reference(taps_only, "cpu", tensors)


def test_gradcheck():
    tensors = inputs(b=2, t=6, d=3, mask=True, reset=True)
    flags = {name: tensors.pop(name) for name in ("mask", "reset")}
    names, values = zip(*tensors.items(), strict=True)
    torch.autograd.gradcheck(
        lambda *p: call("cpu", **dict(zip(names, p, strict=True)), **flags),
        [x.requires_grad_() for x in values],
    )


def test_opcheck():
    from longstate.ops.short_conv import _sources

    x, weight, bias, taps = list(inputs(t=5).values())[:4]
    sources, _ = _sources(x, 3, None, None)
    for given in (bias, None):
        arguments = [None if p is None else p.requires_grad_() for p in (x, weight, given, taps)]
        torch.library.opcheck(torch.ops.longstate.short_conv, (*arguments, sources, True, "cpu"))


def test_float32_error_budget():
    assert_within_budget(call, "cpu", inputs(t=300, d=20, mask=True, reset=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_one_rounding_of_float32(dtype):
    tensors = inputs(t=40, d=70)
    low = {n: x if x is None else x.to(dtype if n in ("x", "taps") else torch.float32)
           for n, x in tensors.items()}  # fmt: skip
    wide = {n: x if x is None else x.float() for n, x in low.items()}
    y, taps = call("cpu", **low)
    assert y.dtype == taps.dtype == dtype
    assert torch.equal(y, call("cpu", **wide)[0].to(dtype))
    exact = {n: x if x is None else x.double() for n, x in low.items()}
    gradient, plain, exact = (
        results(call, impl, of)["gradient of x"]
        for impl, of in (("cpu", low), ("reference", low), ("reference", exact))
    )
    assert_within_reference_error(gradient, exact, plain)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nan_and_infinity_propagate_as_in_the_reference(bad):
    tensors = inputs(t=12, d=70)
    tensors["x"][0, 3, 1] = bad
    tensors["x"][1, 5, 69] = -bad
    narrow = {name: None if x is None else x.float() for name, x in tensors.items()}
    y, _ = without_activation("cpu", **narrow)
    assert_same_where_finite(y, without_activation("reference", **narrow)[0])


# Threads and processes

LARGE = {"b": 3, "t": 70, "d": 300, "mask": True}


def test_sixteen_threads_at_once():
    assert_concurrent_calls_agree(call, inputs(**LARGE))


def test_the_number_of_threads_does_not_change_results():
    assert_thread_count_is_invisible(call, inputs(**LARGE))
    assert_thread_count_is_invisible(call, inputs(b=1, t=70, d=1500))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_short_conv import call, inputs, LARGE; tensors = inputs(**LARGE)"
    )


# What it refuses


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3)}, "x must be"),
        ({"x": torch.zeros(2, 0, 5)}, "no time steps"),
        ({"weight": torch.zeros(4, 5)}, "weight must be"),
        ({"bias": torch.zeros(4)}, "bias must be"),
        ({"taps": torch.zeros(2, 4, 5)}, "taps must be"),
        ({"mask": torch.zeros(2, 9)}, "mask must be"),
        ({"reset": torch.zeros(2, 8, dtype=torch.bool)}, "reset must be"),
        ({"activation": "relu"}, "activation must be"),
    ],
)
def test_wrong_arguments_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        call("cpu", **inputs() | change)


# Triton

INTERPRETED = """
import torch
from tests.ops.helpers import assert_equals_reference
from tests.ops.test_short_conv import call, inputs, without_activation
assert_equals_reference(call, "triton", inputs(t=5, d=35, mask=True, reset=True))
assert_equals_reference(without_activation, "triton", inputs(t=3, d=3, k=2, bias=False, taps=False))
print("same")
"""


def test_triton_under_its_interpreter():
    pytest.importorskip("triton")
    assert run_python(INTERPRETED, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("t", LENGTHS)
def test_triton_on_a_gpu(t):
    tensors = inputs(t=t, d=70, mask=True, reset=True)
    on_gpu = {name: x.cuda() for name, x in tensors.items()}
    expected, found = results(call, "reference", tensors), results(call, "triton", on_gpu)
    for name, value in expected.items():
        assert_close(found[name].cpu(), value)
