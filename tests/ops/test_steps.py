"""The kernels for one or a few steps of a recurrence: each against the reference of its op."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.testing import assert_close

from longstate.ops import chunk_scan, longhorn_scan, selective_scan, short_conv
from longstate.testing import assert_within_reference_error
from tests.ops.helpers import assert_same_where_finite, narrow, randn, run_python, strided, uniform


def selective(b=2, d=70, n=5, groups=0, constant="", without=()):
    def write_or_read(name, seed):
        if name in constant:
            return randn(d, n, seed=seed)
        return randn(b, 1, groups, n, seed=seed) if groups else randn(b, 1, n, seed=seed)

    tensors = {
        "u": randn(b, 1, d, seed=1), "dt": randn(b, 1, d, seed=2),
        "A": -uniform(d, n, high=3.0, seed=3), "B": write_or_read("B", 4),
        "C": write_or_read("C", 5), "D": randn(d, seed=6), "z": randn(b, 1, d, seed=7),
        "h0": randn(b, d, n, seed=8), "dt_bias": randn(d, seed=9),
    }  # fmt: skip
    return {name: None if name in without else x for name, x in tensors.items()}


def longhorn(b=2, d=70, n=5, without=()):
    tensors = {
        "x": randn(b, 1, d, seed=1), "beta": randn(b, 1, d, seed=2), "k": randn(b, 1, n, seed=3),
        "q": randn(b, 1, n, seed=4), "D": randn(d, seed=5), "z": randn(b, 1, d, seed=6),
        "h0": randn(b, d, n, seed=7), "beta_bias": randn(d, seed=8),
    }  # fmt: skip
    return {name: None if name in without else x for name, x in tensors.items()}


def convolution(b=2, d=70, k=4, without=()):
    tensors = {
        "x": randn(b, 1, d, seed=1), "weight": randn(d, k, seed=2), "bias": randn(d, seed=3),
        "taps": randn(b, k - 1, d, seed=4),
    }  # fmt: skip
    return {name: None if name in without else x for name, x in tensors.items()}


def heads(b=2, h=4, p=3, n=5, groups=2, without=()):
    tensors = {
        "x": randn(b, 1, h, p, seed=1), "log_a": -uniform(b, 1, h, seed=2),
        "B": randn(b, 1, groups, n, seed=3), "C": randn(b, 1, groups, n, seed=4),
        "h0": randn(b, h, p, n, seed=5), "weight": uniform(b, 1, h, seed=6),
        "own": uniform(b, 1, h, seed=7), "D": randn(h, seed=8),
    }  # fmt: skip
    return {name: None if name in without else x for name, x in tensors.items()}


def smooth_selective(impl, **tensors):
    return selective_scan(**tensors, dt_softplus=True, impl=impl)


def plain_selective(impl, dt, **tensors):
    return selective_scan(dt=dt.abs(), **tensors, impl=impl)


def diagonal(impl, **tensors):
    return longhorn_scan(**tensors, beta_sigmoid=True, impl=impl)


def exact(impl, beta, **tensors):
    return longhorn_scan(beta=beta.abs(), **tensors, update="exact", impl=impl)


def silu(impl, **tensors):
    return short_conv(**tensors, activation="silu", impl=impl)


def linear(impl, **tensors):
    return short_conv(**tensors, impl=impl)


def matrix(impl, **tensors):
    return chunk_scan(**tensors, impl=impl)


CASES = {
    "selective": (smooth_selective, selective()),
    "one channel": (smooth_selective, selective(1, 1, 1)),
    "16 states": (smooth_selective, selective(3, 300, 16)),
    "15 states": (smooth_selective, selective(3, 63, 15)),
    "12 states": (plain_selective, selective(3, 300, 12)),
    "8 states": (smooth_selective, selective(3, 128, 8)),
    "groups": (smooth_selective, selective(d=12, groups=3)),
    "as many groups as channels": (smooth_selective, selective(d=6, groups=6)),
    "constant B": (smooth_selective, selective(constant="B")),
    "constant B and C": (plain_selective, selective(constant="BC")),
    "constant C, groups": (plain_selective, selective(d=12, groups=2, constant="C")),
    "bare": (plain_selective, selective(without=("D", "z", "h0", "dt_bias"))),
    "gate only": (plain_selective, selective(without=("D", "dt_bias"))),
    "longhorn": (diagonal, longhorn()),
    "longhorn, one of each": (diagonal, longhorn(1, 1, 1)),
    "longhorn, 16 states": (diagonal, longhorn(3, 300, 16)),
    "longhorn, bare": (diagonal, longhorn(without=("D", "z", "h0", "beta_bias"))),
    "exact": (exact, longhorn()),
    "exact, bare": (exact, longhorn(without=("D", "z", "h0", "beta_bias"))),
    "convolution": (silu, convolution()),
    "convolution without": (linear, convolution(without=("bias", "taps"))),
    "one tap": (linear, convolution(k=1)),
    "two taps": (silu, convolution(1, 300, 2)),
    "heads": (matrix, heads()),
    "one head": (matrix, heads(1, 1, 1, 1, 1)),
    "Mamba-2": (matrix, heads(3, 4, 64, 128, 1, without=("own",))),
    "heads, bare": (matrix, heads(without=("h0", "weight", "own", "D"))),
}
every_case = pytest.mark.parametrize("name", CASES)


@pytest.fixture(autouse=True)
def only_the_kernel(monkeypatch, request):
    """Under "auto" nothing here may go to a reference."""
    if request.node.get_closest_marker("any_form"):
        return
    from longstate.ops.chunk_scan import reference as chunks
    from longstate.ops.longhorn_scan import reference as online
    from longstate.ops.selective_scan import reference as scan
    from longstate.ops.short_conv import reference as conv

    for module in (scan, online, conv, chunks):
        kept = module.forward

        def guarded(*arguments, kept=kept):
            assert allowed, "a single step went to the reference"
            return kept(*arguments)

        monkeypatch.setattr(module, "forward", guarded)


allowed = False


def reference(call, tensors):
    global allowed
    allowed = True
    try:
        return call("reference", **tensors)
    finally:
        allowed = False


@pytest.mark.parametrize("name", [k for k, v in CASES.items() if v[0] in (silu, linear, matrix)])
@pytest.mark.parametrize("t", [2, 3, 16])
def test_a_few_steps_are_single_ones_bit_for_bit(name, t):
    call, tensors = CASES[name]
    timed = {k for k, v in tensors.items() if v is not None and v.dim() > 2} - {"taps", "h0"}
    one = {k: v for k, v in tensors.items() if k not in timed}
    long = {k: torch.cat([(1 + i) / t * tensors[k] for i in range(t)], 1) for k in timed}
    y, last = call("auto", **long, **one)
    carried, outputs = "h0" if call is matrix else "taps", []
    for i in range(t):
        now, state = call("auto", **{k: v[:, i : i + 1] for k, v in long.items()}, **one)
        one[carried] = state
        outputs.append(now)
    assert_close((y, last), (torch.cat(outputs, 1), state), rtol=0, atol=0)


@every_case
def test_is_the_reference(name):
    call, tensors = CASES[name]
    before = {k: None if x is None else x.clone() for k, x in tensors.items()}
    assert_close(call("auto", **tensors), reference(call, tensors))
    awkward = {
        k: strided(x) if x is not None and len(x.view(-1)) else x for k, x in tensors.items()
    }
    assert_close(call("auto", **awkward), reference(call, tensors))
    for k, x in tensors.items():
        assert x is None or torch.equal(x, before[k]), f"{k} was changed"


@every_case
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_error_is_that_of_the_reference(name, dtype):
    call, tensors = CASES[name]
    low = {k: narrow(x) for k, x in tensors.items()}
    for k in ("u", "x", "z", "dt", "beta"):
        if low.get(k) is not None:
            low[k] = low[k].to(dtype)
    wide = {k: None if x is None else x.double() for k, x in low.items()}
    found, plain, expected = call("auto", **low), reference(call, low), reference(call, wide)
    for y, p, e in zip(found, plain, expected, strict=True):
        assert_within_reference_error(y, e, p)


@every_case
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_nonfinite_values_spread_as_in_the_reference(name, bad):
    call, tensors = CASES[name]
    first = next(k for k in ("u", "x") if k in tensors)
    for k in (first, "h0", "taps", "z"):
        if tensors.get(k) is None or tensors[k].numel() == 0:
            continue
        changed = tensors[k].clone()
        changed.view(-1)[0] = bad
        given = tensors | {k: changed}
        for y, e in zip(call("auto", **given), reference(call, given), strict=True):
            if not e.isfinite().all():
                assert_same_where_finite(y, e)


@every_case
@pytest.mark.any_form
def test_a_gradient_a_mask_and_a_reset_are_kept(name):
    call, tensors = CASES[name]
    first = next(tensors[k] for k in ("u", "x") if k in tensors)
    for key, value in tensors.items():
        if value is None or value.numel() == 0:
            continue
        x = value.clone().requires_grad_()  # of this one alone, as weights under a given input
        every = []
        for impl in ("auto", "reference"):
            outputs = call(impl, **tensors | {key: x})
            loss = sum((y * randn(*y.shape, seed=9 + i)).sum() for i, y in enumerate(outputs))
            every.append(torch.autograd.grad(loss, x)[0])
        assert_close(*every, msg=lambda text, key=key: f"{key}: {text}")
    for flag in ("mask", "reset"):
        flags = {flag: torch.arange(len(first))[:, None] % 2 == 0}
        assert_close(call("auto", **tensors, **flags), call("reference", **tensors, **flags))


@every_case
def test_many_python_threads_at_once(name):
    call, tensors = CASES[name]
    expected = call("auto", **tensors)
    with ThreadPoolExecutor(8) as pool:
        every = list(pool.map(lambda _: call("auto", **tensors), range(24)))
    for found in every:
        assert all(torch.equal(y, e) for y, e in zip(found, expected, strict=True))


def test_the_number_of_threads_does_not_change_results():
    tensors = {k: narrow(x) for k, x in selective(4, 1500, 16).items()}
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(smooth_selective("auto", **tensors))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(y, e) for y, e in zip(other, found[0], strict=True))


def test_survives_fork():
    code = """
import multiprocessing, torch
from tests.ops.test_steps import CASES, smooth_selective, selective
tensors = {k: x.float() for k, x in selective(4, 1500, 16).items()}
torch.set_num_threads(2)
expected = smooth_selective("auto", **tensors)

def child(queue):
    again = smooth_selective("auto", **tensors)
    queue.put(all((a.numpy() == b.numpy()).all() for a, b in zip(again, expected)))

context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=child, args=(queue,), daemon=True)
process.start()
print(queue.get(timeout=60))
process.join(30)
"""
    assert run_python(code).strip() == "True"
