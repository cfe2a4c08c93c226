"""selective_scan: the CPU and GPU forms against the reference; precision, threads, processes."""

import pytest
import torch
from torch.testing import assert_close

from longstate.ops import selective_scan
from longstate.ops._choice import choose_for_length
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
from tests.ops.test_selective_scan import OPTIONAL, call, inputs, plain_step

LENGTHS = (1, 31, 32, 33, 63, 128, 300)  # a chunk has 32 steps


# Every implementation


@pytest.mark.parametrize("t", LENGTHS)
def test_cpu_equals_reference(t):
    assert_equals_reference(call, "cpu", inputs(t=t))


@pytest.mark.parametrize("missing", OPTIONAL)
def test_cpu_without(missing):
    assert_equals_reference(call, "cpu", inputs(t=40, without=(missing,)))


@pytest.mark.parametrize("options", [inputs(t=40), inputs(t=40, without=OPTIONAL)])
def test_cpu_without_softplus(options):
    assert_equals_reference(plain_step, "cpu", options)


@pytest.mark.parametrize("d", [1, 63, 64, 65, 130])
def test_cpu_at_the_edges_of_a_block(d):
    assert_equals_reference(call, "cpu", inputs(t=34, d=d))


@pytest.mark.parametrize("constant", ["", "B", "C", "BC"])
@pytest.mark.parametrize(("d", "groups"), [(6, 0), (6, 1), (6, 2), (140, 2)])
def test_cpu_with_groups_and_constants(d, groups, constant):
    assert_equals_reference(call, "cpu", inputs(t=34, d=d, groups=groups, constant=constant))


def test_cpu_with_one_of_two_in_groups():
    tensors = inputs(t=34, d=6, groups=2)
    assert_equals_reference(call, "cpu", tensors | {"B": randn(2, 34, 3)})
    assert_equals_reference(call, "cpu", tensors | {"C": randn(2, 34, 1, 3)[:, :, 0]})


def test_cpu_takes_any_strides():
    tensors = {name: strided(x) for name, x in inputs(t=34, d=70).items()}
    assert_equals_reference(call, "cpu", tensors)


def test_cpu_reads_half_of_a_projection_in_place():
    u, z = randn(2, 34, 10).chunk(2, dim=-1)
    assert not u.is_contiguous()
    assert_equals_reference(call, "cpu", inputs(t=34) | {"u": u, "z": z})


def test_gradient_of_one_output_alone():
    tensors = inputs(t=34)
    tensors = {n: tensors[n] for n in ("u", "dt", "A", "B", "h0")}
    C = randn(2, 34, 3)

    def last(impl, **p):
        return selective_scan(**p, C=C, impl=impl)[1:]

    def output(impl, **p):
        return selective_scan(**p, C=C, impl=impl)[:1]

    assert_equals_reference(last, "cpu", tensors)
    assert_equals_reference(output, "cpu", tensors)


@pytest.mark.parametrize("constant", ["", "BC"])
def test_gradcheck(constant):
    tensors = inputs(b=2, t=5, d=2, n=2, constant=constant)
    flags = {name: tensors.pop(name) for name in ("mask", "reset")}
    names, values = zip(*tensors.items(), strict=True)
    torch.autograd.gradcheck(
        lambda *p: call("cpu", **dict(zip(names, p, strict=True)), **flags),
        [x.requires_grad_() for x in values],
    )


@pytest.mark.parametrize("without", [(), OPTIONAL[:2] + OPTIONAL[3:]])
def test_opcheck(without):
    tensors = inputs(t=5, without=without)
    flags = [tensors.pop(name) for name in ("mask", "reset")]
    values = [None if x is None else x.requires_grad_() for x in tensors.values()]
    arguments = (*values, *flags, True, True, "cpu")
    torch.library.opcheck(torch.ops.longstate.selective_scan, arguments)


# Precision


@pytest.mark.parametrize("options", [inputs(t=300, d=20, n=16), inputs(t=300, constant="BC")])
def test_float32_error_budget(options):
    assert_within_budget(call, "cpu", options)


def test_float32_error_budget_of_slow_and_fast_decays():
    tensors = inputs(t=300, d=6, n=4, without=("reset",))
    tensors["A"] = -torch.logspace(-4, 3, 24, dtype=torch.float64).view(6, 4)
    assert_within_budget(call, "cpu", tensors)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_reduced_precision_is_one_rounding_of_float32(dtype):
    low = ("u", "dt", "B", "C", "z")
    tensors = {n: x if x is None or x.dtype == torch.bool else x.to(dtype if n in low else
               torch.float32) for n, x in inputs(t=40, d=70).items()}  # fmt: skip
    wide = {n: narrow(x) for n, x in tensors.items()}
    y, last = call("cpu", **tensors)
    expected, expected_last = call("cpu", **wide)
    assert y.dtype == dtype
    assert last.dtype == torch.float32
    assert torch.equal(y, expected.to(dtype))
    assert torch.equal(last, expected_last)
    found, exact = results(call, "cpu", tensors), results(call, "cpu", wide)
    for name in exact:
        # The cotangent of y is rounded too, so the gradients differ by several roundings.
        scale = exact[name].abs().max()
        error = (found[name].float() - exact[name]).abs().max()
        assert error <= 8 * torch.finfo(dtype).eps * scale, name


@pytest.mark.parametrize("name", ["u", "dt", "A", "B", "C", "D", "z", "h0", "dt_bias"])
def test_nan_affects_only_what_depends_on_it(name):
    tensors = {n: narrow(x) for n, x in inputs(t=34, d=70, without=("mask", "reset")).items()}
    tensors[name].view(-1)[tensors[name].numel() // 2] = float("nan")
    for found, expected in zip(call("cpu", **tensors), call("reference", **tensors), strict=True):
        assert torch.equal(found.isnan(), expected.isnan())
    assert any(x.isnan().any() for x in call("cpu", **tensors))


def test_an_infinite_input_is_not_hidden():
    tensors = {n: narrow(x) for n, x in inputs(t=34, without=("mask", "reset")).items()}
    tensors["u"][0, 3, 1] = float("inf")
    for found, expected in zip(call("cpu", **tensors), call("reference", **tensors), strict=True):
        assert torch.equal(found.isfinite(), expected.isfinite())


def test_decay_underflows_to_zero_and_overflows_to_infinity():
    one = torch.ones(1, 1, 1)
    for rate, expected in ((-1e4, 0.0), (1e4, float("inf"))):
        _, last = selective_scan(0 * one, one, rate * one[0], one, one, h0=one, impl="cpu")
        assert last.item() == expected


# Threads and processes

LARGE = {"b": 2, "t": 70, "d": 300, "n": 5}


def test_sixteen_threads_at_once():
    assert_concurrent_calls_agree(call, inputs(**LARGE))


@pytest.mark.parametrize("constant", ["", "BC"])
def test_the_number_of_threads_does_not_change_results(constant):
    assert_thread_count_is_invisible(call, inputs(**LARGE, constant=constant))


def test_fork_after_first_use():
    assert_survives_fork(
        "from tests.ops.test_selective_scan_forms import LARGE, call, inputs\n"
        "tensors = inputs(**LARGE)"
    )


def test_one_step_has_a_kernel_of_its_own():
    assert choose_for_length("auto", torch.zeros(2, 1, 5)) == "step"
    assert choose_for_length("auto", torch.zeros(2, 1, 5), flags=True) == "reference"
    assert choose_for_length("auto", torch.zeros(2, 1, 5, requires_grad=True)) == "reference"
    assert choose_for_length("auto", torch.zeros(2, 2, 5)) == "cpu"
    assert choose_for_length("cpu", torch.zeros(2, 1, 5)) == "cpu"
    tensors = inputs(t=1)
    for found, expected in zip(call("auto", **tensors), call("cpu", **tensors), strict=True):
        assert_close(found, expected)


def test_forward_keeps_no_states_without_gradients():
    tensors = [x for x in inputs(t=40, without=OPTIONAL).values() if x is not None]
    h0 = torch.zeros(2, 5, 3, dtype=torch.float64)
    kept = torch.ops.longstate.selective_scan(
        *tensors, None, None, h0, None, None, None, True, False, "cpu"
    )[2]
    assert kept.numel() == 0


def test_constant_vectors_are_not_copied_to_every_step(monkeypatch):
    """Channels with B and C of their own still run 64 at a time, as one group."""
    from longstate.ops.selective_scan import cpu

    seen = []
    scan = cpu.scan
    monkeypatch.setattr(cpu, "scan", lambda rule, *rest: seen.append(rule) or scan(rule, *rest))
    b, t, d, n = 2, 9, 70, 3
    u, dt, A, B = randn(b, t, d), randn(b, t, d).abs(), -randn(d, n).abs(), randn(d, n, seed=1)
    selective_scan(u, dt, A, B, randn(b, t, n, seed=2), impl="cpu")
    assert seen[0].row_B.shape == (2, n, 64)
    assert seen[0].B.shape == (b, t, 1, n)


# Triton

INTERPRETED = """
import torch
from tests.ops.helpers import assert_equals_reference
from tests.ops.test_selective_scan import OPTIONAL, call, inputs, plain_step
assert_equals_reference(call, "triton", inputs(b=2, t=35, d=3, n=3))
assert_equals_reference(call, "triton", inputs(b=1, t=4, d=6, n=2, groups=2))
assert_equals_reference(call, "triton", inputs(b=1, t=4, d=35, n=2, constant="BC"))
assert_equals_reference(plain_step, "triton", inputs(b=1, t=3, d=2, n=1, without=OPTIONAL))
print("same")
"""


def test_triton_under_its_interpreter():
    pytest.importorskip("triton")
    assert run_python(INTERPRETED, TRITON_INTERPRET="1").strip() == "same"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("t", LENGTHS)
@pytest.mark.parametrize("constant", ["", "BC"])
def test_triton_on_a_gpu(t, constant):
    tensors = inputs(t=t, d=70, n=16, constant=constant)
    on_gpu = {name: x.cuda() for name, x in tensors.items()}
    expected, found = results(call, "reference", tensors), results(call, "triton", on_gpu)
    for name, value in expected.items():
        assert_close(found[name].cpu(), value)
