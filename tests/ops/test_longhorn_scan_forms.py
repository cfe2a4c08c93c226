"""longhorn_scan: the CPU and GPU forms against the reference; precision, threads, processes."""

import pytest
import torch
from torch.testing import assert_close

from tests.ops.helpers import (
    assert_concurrent_calls_agree,
    assert_equals_reference,
    assert_survives_fork,
    assert_thread_count_is_invisible,
    assert_within_budget,
    narrow,
    randn,
    results,
    run_python,
    strided,
)
from tests.ops.test_longhorn_scan import OPTIONAL, both, inputs, plain_weight

LENGTHS = (1, 31, 32, 33, 63, 128, 300)  # a chunk has 32 steps


# Every implementation


@both
@pytest.mark.parametrize("t", LENGTHS)
def test_cpu_equals_reference(call, t):
    assert_equals_reference(call, "cpu", inputs(t=t))


@both
@pytest.mark.parametrize("missing", OPTIONAL)
def test_cpu_without(call, missing):
    assert_equals_reference(call, "cpu", inputs(t=40, without=(missing,)))


@pytest.mark.parametrize("options", [inputs(t=40), inputs(t=40, without=OPTIONAL)])
def test_cpu_without_sigmoid(options):
    assert_equals_reference(plain_weight, "cpu", options)


@both
@pytest.mark.parametrize("d", [1, 63, 64, 65, 130])
def test_cpu_at_the_edges_of_a_block(call, d):
    assert_equals_reference(call, "cpu", inputs(t=34, d=d))


@both
def test_cpu_takes_any_strides(call):
    tensors = {name: strided(x) for name, x in inputs(t=34, d=70).items()}
    assert_equals_reference(call, "cpu", tensors)


@both
def test_cpu_reads_half_of_a_projection_in_place(call):
    x, z = randn(2, 34, 10).chunk(2, dim=-1)
    assert not x.is_contiguous()
    assert_equals_reference(call, "cpu", inputs(t=34) | {"x": x, "z": z})


@both
def test_gradcheck(call):
    tensors = inputs(b=2, t=5, d=2, n=2)
    flags = {name: tensors.pop(name) for name in ("mask", "reset")}
    names, values = zip(*tensors.items(), strict=True)
    torch.autograd.gradcheck(
        lambda *p: call("cpu", **dict(zip(names, p, strict=True)), **flags),
        [x.requires_grad_() for x in values],
    )


@pytest.mark.parametrize("exactly", [False, True])
@pytest.mark.parametrize("without", [(), ("D", "z", "beta_bias", "mask", "reset")])
def test_opcheck(exactly, without):
    tensors = inputs(t=5, without=without)
    flags = [tensors.pop(name) for name in ("mask", "reset")]
    values = [None if x is None else x.requires_grad_() for x in tensors.values()]
    size = values[2].detach().square().sum(-1).requires_grad_()
    arguments = (*values[:4], size, *values[4:], *flags, True, exactly, True, "cpu")
    torch.library.opcheck(torch.ops.longstate.longhorn_scan, arguments)


# Precision


@both
def test_float32_error_budget(call):
    assert_within_budget(call, "cpu", inputs(t=300, d=20, n=16))


@both
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_one_rounding_of_float32(call, dtype):
    low = ("x", "beta", "k", "q", "z")
    tensors = {n: x if x is None or x.dtype == torch.bool else x.to(dtype if n in low else
               torch.float32) for n, x in inputs(t=40, d=70).items()}  # fmt: skip
    y, last = call("cpu", **tensors)
    expected, expected_last = call("cpu", **{n: narrow(x) for n, x in tensors.items()})
    assert y.dtype == dtype
    assert last.dtype == torch.float32
    assert torch.equal(y, expected.to(dtype))
    assert torch.equal(last, expected_last)


@both
@pytest.mark.parametrize("name", ["x", "beta", "k", "q", "D", "z", "h0", "beta_bias"])
def test_nan_affects_only_what_depends_on_it(call, name):
    tensors = {n: narrow(x) for n, x in inputs(t=34, d=70, without=("mask", "reset")).items()}
    tensors[name].view(-1)[tensors[name].numel() // 2] = float("nan")
    for found, expected in zip(call("cpu", **tensors), call("reference", **tensors), strict=True):
        assert torch.equal(found.isnan(), expected.isnan())
    assert any(x.isnan().any() for x in call("cpu", **tensors))


# Threads and processes

LARGE = {"b": 2, "t": 70, "d": 300, "n": 5}


@both
def test_sixteen_threads_at_once(call):
    assert_concurrent_calls_agree(call, inputs(**LARGE))


@both
def test_the_number_of_threads_does_not_change_results(call):
    assert_thread_count_is_invisible(call, inputs(**LARGE))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_longhorn_scan_forms import LARGE, inputs\n"
        "from tests.ops.test_longhorn_scan import exact as call\n"
        "tensors = inputs(**LARGE)"
    )


# Triton

INTERPRETED = """
import torch
from tests.ops.helpers import assert_equals_reference
from tests.ops.test_longhorn_scan import OPTIONAL, diagonal, exact, inputs, plain_weight
for call in (diagonal, exact):
    assert_equals_reference(call, "triton", inputs(b=1, t=35, d=3, n=3))
    assert_equals_reference(call, "triton", inputs(b=2, t=4, d=35, n=2))
assert_equals_reference(plain_weight, "triton", inputs(b=1, t=3, d=2, n=1, without=OPTIONAL))
print("same")
"""


def test_triton_under_its_interpreter():
    pytest.importorskip("triton")
    assert run_python(INTERPRETED, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@both
@pytest.mark.parametrize("t", LENGTHS)
def test_triton_on_a_gpu(call, t):
    tensors = inputs(t=t, d=70, n=16)
    on_gpu = {name: x.cuda() for name, x in tensors.items()}
    expected, found = results(call, "reference", tensors), results(call, "triton", on_gpu)
    for name, value in expected.items():
        assert_close(found[name].cpu(), value)
